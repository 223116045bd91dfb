"""What is known of a sweep's data is said once, not once a run."""

import forked
import pytest


@pytest.mark.long
def test_data_and_warnings_are_said_once_a_sweep(sweep, tiny_data_dir):
    validation = tiny_data_dir / "opinions" / "validation.csv"
    line = sweep.line(
        f"task.splits.train={validation}",
        *(f"measure.{name}=false" for name in ("latency", "training_step", "switching")),
        "trainer.epochs=1",
    )
    # a process of its own: what runs are forked from prints where it was started, maybe by another test
    shown = forked.run(["-m", "peftbench", *line], capture_output=True, text=True, check=True)
    assert "6 to train" in shown.stdout
    assert shown.stdout.count("21 examples: bad") == 2, "for train and validation"
    warnings = [warning for warning in shown.stderr.splitlines() if warning.startswith("warning: ")]
    assert warnings and len(set(warnings)) == len(warnings)
