"""A run that sleeps past its lock's expiry at any file operation leaves the record to the one that took it over."""

import json
from pathlib import Path

import forked
import pytest

pytestmark = pytest.mark.long

DRIVER = Path(__file__).with_name("takeover.py")


@pytest.mark.parametrize(
    ("end", "step"),
    [
        ("finishes", 5),
        ("fails", 5),
        pytest.param("finishes", 1, marks=pytest.mark.slow),
        pytest.param("fails", 1, marks=pytest.mark.slow),
    ],
)
def test_a_pause_at_any_file_operation(
    end: str, step: int, tiny_model_dir: Path, tiny_data_dir: Path, tmp_path: Path
) -> None:
    opinions = tiny_data_dir / "opinions"
    line = ["method=bitfit", "model=local", f"model.path={tiny_model_dir}", "task=text_file", "task.max_length=16"]
    line += [f"task.splits.{name}={opinions / name}.csv" for name in ("train", "validation", "test")]
    line += ["trainer.epochs=1", "trainer.batch_size=24", "trainer.precision=fp32", "device=cpu", "threads=1"]
    line += ["measure.latency=false", "measure.switching=true"]
    ran = forked.run(
        [DRIVER, tmp_path / "outputs", end, str(step), *line],
        capture_output=True,
        text=True,
        timeout=570,
    )
    assert ran.returncode == 0, ran.stderr
    outcomes = [json.loads(text) for text in ran.stdout.splitlines()]
    assert len(outcomes) > 20 / step
    undisturbed = learned(outcomes[0]["files"])  # paused before it had done anything
    for outcome in outcomes:
        taken_over, paused = outcome["codes"]
        where = outcome["operation"]
        assert taken_over == 0 and paused in (0, 1), (where, ran.stderr)
        result = json.loads(outcome["files"]["result.json"])
        assert (result["status"], result["error"]) == ("finished", None), where
        assert result["switching"]["result"], where
        assert learned(outcome["files"]) == undisturbed, where
    assert "Traceback" not in ran.stderr
    complaints = [text for text in ran.stderr.splitlines() if "another process took" in text]
    assert len(complaints) > 10 / step, "a run that was taken over ends with one line"


def learned(files: dict[str, str]) -> dict[str, str]:
    """What a run has learned, and that there is nothing else in its folder."""
    history = [json.loads(line) for line in files["history.jsonl"].splitlines()]
    losses = json.dumps([(row["step"], row["loss"]) for row in history])
    others = {name: text for name, text in files.items() if name not in ("result.json", "history.jsonl")}
    return {**others, "history.jsonl": losses}
