"""What is known of a sweep's data is said once, not once a run."""


def test_data_and_warnings_are_said_once_a_sweep(sweep, capfd, tiny_data_dir):
    validation = tiny_data_dir / "opinions" / "validation.csv"
    line = [
        f"task.splits.train={validation}",
        *(f"measure.{name}=false" for name in ("latency", "training_step", "switching")),
    ]
    assert sweep(*line, "trainer.epochs=1") == 0
    shown = capfd.readouterr()
    assert "6 to train" in shown.out
    assert shown.out.count("21 examples: bad") == 2, "for train and validation"
    warnings = [warning for warning in shown.err.splitlines() if warning.startswith("warning: ")]
    assert warnings and len(set(warnings)) == len(warnings)
