"""What nobody foresaw, and what a user can type, is one line and exit code 1 or 2; never a traceback."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import forked
import pytest
import yaml

from peftbench import cli
from peftbench.errors import UserError
from peftbench.runs.record import Record


@pytest.fixture
def answer(capsys, monkeypatch, tmp_path):
    """Run a command line in this process and an empty folder; return exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["peftbench", *argv])
        code = cli.main(list(argv))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# ---- errors that nobody foresaw --------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("error", [ZeroDivisionError("oh\n  no"), KeyError("x"), AssertionError(), RecursionError("a")])
def test_the_traceback_is_in_a_log(answer, monkeypatch, tmp_path, command, error):
    def broken(argv):
        raise error

    monkeypatch.setattr(importlib.import_module(f"peftbench.commands.{command}"), "main", broken)
    code, _, err = answer(command)
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"peftbench: this should not have happened: {type(error).__name__}")
    log = Path(line.rpartition("; log ")[2])
    assert log.parent == tmp_path
    assert "Traceback" in log.read_text() and f"peftbench {command}\n" in log.read_text()


@pytest.mark.parametrize("argv", [["seed=0"], ["-m", "seed=0,1"]])
def test_what_nobody_foresaw_in_a_job_is_one_line_and_the_others_are_tried(answer, monkeypatch, argv):
    tried = []

    def broken(config):
        tried.append(config.seed)
        raise ZeroDivisionError("oh no")

    monkeypatch.setattr(importlib.import_module("peftbench.commands.train"), "train_job", broken)
    code, _, err = answer("train", *argv)
    (line,) = err.splitlines()
    assert code == 1 and line.startswith("peftbench: this should not have happened: ZeroDivisionError: oh no; log ")
    assert tried == ([0] if argv == ["seed=0"] else [0, 1])


@pytest.mark.parametrize("option", [["--output-dir", "mine"], ["--output-dir=mine"], ["output_dir=mine"]])
def test_the_log_lies_in_the_output_folder_where_there_is_one(answer, monkeypatch, tmp_path, option):
    runs = importlib.import_module("peftbench.commands.runs")
    monkeypatch.setattr(runs, "main", lambda argv: 1 / 0)
    assert "; log mine/" not in answer("runs", *option)[2]
    (tmp_path / "mine").mkdir()
    _, _, err = answer("runs", *option)
    assert (tmp_path / err.strip().rpartition("; log ")[2]).parent == tmp_path / "mine"


def typed(*argv: str, **streams) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "peftbench", *argv], timeout=120, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["list"], ["list", "--json"], ["list", "--help"], ["runs"]])
def test_a_full_standard_output(argv, unbuffered, tmp_path):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        process = typed(*argv, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, env=environment)
    assert process.returncode == 1
    assert process.stderr == b"peftbench: cannot write the standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_a_closed_standard_output(closed, tmp_path):
    shell = f"{sys.executable} -m peftbench list {closed}"
    process = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60)
    assert process.returncode == 1
    assert process.stderr == (
        b"" if "2>" in closed else b"peftbench: standard output is closed: give it a file, or /dev/null\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_head_ends_with_0(unbuffered, tmp_path):
    shell = f"set -o pipefail; {sys.executable} -m peftbench list | head -1 > /dev/null"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.run(["bash", "-c", shell], capture_output=True, cwd=tmp_path, env=environment, timeout=60)
    assert (process.returncode, process.stderr) == (0, b"")


# ---- what a user can type --------------------------------------------------------------------------------

TYPED = [
    *(f"train {word}" for word in (
        "seed=99999999999999999999", "seed=-1", "seed=nan", "seed=null", "seed=[1]", "seed", "trainer.lr=nan",
        "trainer.lr=abc", "trainer.lr={a:1}", "trainer.epochs=0", "trainer.epochs=1e1", "trainer=null", "trainer=1",
        "trainer.betas=0.9", "trainer.betas=[]", "task.text=[]", "task.metrics=[]", "task.splits=1",
        "model=null", "model.packages=[1]", "model.packages=[{name:-rx,version:1,sha256:0}]", "model.source=ftp",
        "model.archive=/etc/passwd", "method=null", "method=[lora,adapter]", "method.name=null", "method.name=os",
        "method=", "method=lora=2", "--method=lora", "--method", "-x", "--cfg", "--mult", "=", "+", "~",
        "~method", "~seed", "++method=xyz", "threads=0", "threads=100000", "device=cuda:99", "device=[]",
        "experiment=..", "experiment=a/b", "output_dir=null", "force=maybe", "logger=nothing", "measure.batches=3",
        "seed=${oc.env:NO_SUCH_VARIABLE}", "seed=${nothing}", "seed=${seed}", "hydra/launcher=xyz", "seed=0,1",
        "model=local model.path=???", "task=text_file", "a.b.c=1", "hydra=1", "hydra.run=1", "hydra.job=null",
        "--config-name=nothing", "--config-dir=nowhere", "sedes=1", "\x1b[31m=1", "[/b]=1", "method=[/b]", "'", "a={",
    )),
    "trian", "", "-m", "--", "\x00", "list xyz", "list --jsn", "list methods tasks", "runs --status x", "runs nowhere",
    "evaluate", "evaluate nothing", "evaluate x --batch-size 0", "predict nothing text", "predict x --file",
    "params seed=a", "params --method=lora", "params task.text=[]", "table", "table nothing", "table ../../etc",
    "table smoke --format xyz", "table smoke seeds=0", "table smoke seeds=[99999999999999999999]",
    "table smoke seeds=nan", "table smoke sedes=3", "table smoke --output x", "sweep", "sweep table=nothing",
    "sweep seeds=3", "sweep table=null", "sweep search=gird", "sweep search=null", "sweep table=smoke on_error=x",
    "sweep table=smoke seed=1", "sweep --table=smoke", "-sc", "-sc install=tcsh",
    f"train seed={'9' * 5000}", f"table smoke table.delta={'9' * 5000}",
    *(f"{command} {'x' * 300}" for command in ("predict", "evaluate", "export", "runs", "runs a=", "audit")),
    f"import {'x' * 300} --task mrpc", f"recommend {'x' * 300}", f"train task=text_file model.path='a,{'x' * 300}'",
    f"predict --runs a={'x' * 300} rows.csv", f"serve {'x' * 300}",
]  # fmt: skip


@pytest.fixture
def nothing_trained(monkeypatch):
    """A line that is taken for right shows as such, and no time is spent on it."""

    def accept(*_):
        raise UserError("taken for right")

    monkeypatch.setattr("peftbench.runs.prepare.load_task", accept)


@pytest.mark.parametrize("line", TYPED, ids=lambda line: ascii(line)[1:-1][:80])
def test_a_mistake_is_one_line(answer, nothing_trained, line, tmp_path):
    argv = line.split(" ") if line else [""]
    code, out, err = answer(*argv)
    assert code == 2, (out, err)
    assert len(err.splitlines()) == 1 and err.startswith("peftbench: "), err
    assert "should not have happened" not in err and "Traceback" not in out + err and "taken for right" not in err
    assert not {"\x1b", "\x00"} & set(err)
    assert not (tmp_path / "outputs").exists()


HINTS = [
    ("table smoke sedes=3", "sedes=3: there is no setting 'sedes'. Did you mean seeds?"),
    ("sweep table=smoke on_eror=stop", "on_eror=stop: there is no setting 'on_eror'. Did you mean on_error?"),
    ("sweep search=gird", "search=gird: there is no such search. Did you mean grid?"),
    ("train search=grid", "search=grid: one run has no such setting; `peftbench sweep search=grid …` does that"),
    ("train seeds=3", "seeds=3: one run has no such setting; `peftbench sweep seeds=3 …` does that"),
    ("train --method=lora", "--method=lora: settings have no dashes: write method=lora"),
    ("sweep --table=smoke", "--table=smoke: settings have no dashes: write table=smoke"),
    ("params --multirun", "peftbench params has no option --multirun. Choose from: --help, --json."),
    ("runs --outptu-dir x", "peftbench runs has no option --outptu-dir. Did you mean --output-dir"),
]


@pytest.mark.parametrize(("line", "hint"), HINTS)
def test_a_hint_fits(answer, nothing_trained, line, hint):
    code, _, err = answer(*line.split())
    assert code == 2 and err.startswith(f"peftbench: {hint}"), err


# ---- files that are damaged or somebody else's -----------------------------------------------------------

DAMAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "a list": b"[1, 2]",
    "a word": b"word",
    "half": b'{"a": [1, ',
    "a tag": b"!!python/object/apply:os.system ['touch ran']",
    "itself": b"title: x\nrows: &rows [*rows]",
}


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize("name", ["result.json", "config.yaml", "adapter/adapter.json", "adapter/adapter.safetensors"])
def test_a_damaged_file_of_a_record(answer, tiny_run: Record, tmp_path, name, content):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "outputs" / "x" / tiny_run.folder.name)
    (folder / name).write_bytes(DAMAGE[content])
    for argv in (["evaluate", str(folder)], ["predict", str(folder), "good film"]):
        code, out, err = answer(*argv)
        # a label needs the adapter alone
        assert code == 2 or (argv[0] == "predict" and not name.startswith("adapter")), (argv, out, err)
        assert "should not have happened" not in err and "Traceback" not in out + err
        assert len(err.splitlines()) <= 1
    assert answer("runs")[0] == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize("group", ["table", "method"])
def test_a_damaged_file_in_a_folder_of_configs(answer, tmp_path, group, content):
    path = tmp_path / "conf" / group / "odd.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGE[content])
    search = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    argv = ["table", "odd", search] if group == "table" else ["train", search, f"{group}=odd"]
    code, out, err = answer(*argv)
    assert code == 2, (out, err)
    assert len(err.splitlines()) == 1 and "should not have happened" not in err, err
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_configs_that_is_not_there(tmp_path):
    for argv in (["train", "--cfg", "job"], ["sweep", "table=smoke"], ["params"]):
        done = forked.run(
            ["-m", "peftbench", *argv, f"hydra.searchpath=[file://{tmp_path / 'none'}]"], capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr == (
            f"peftbench: hydra.searchpath: there is no folder {tmp_path / 'none'}\n"
        )


@pytest.fixture
def foreign_run(tiny_run: Record, tmp_path):
    """A copy of a run, whose model and task can be changed as somebody else might have."""
    folder = shutil.copytree(tiny_run.folder, tmp_path / "foreign" / tiny_run.folder.name)

    def change(group: str, **fields) -> Path:
        path = folder / "adapter" / "adapter.json"
        description = json.loads(path.read_text())
        description[group].update(fields)
        path.write_text(json.dumps(description))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config[group].update(fields)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return change


def test_a_foreign_run_runs_no_code_and_writes_nowhere(answer, foreign_run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda *argv, **options: calls.append(argv))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    package = {"name": "tiny", "version": "1.0", "sha256": "0" * 64}
    for fields in (
        {"packages": [package | {"name": f"-r{victim}"}]},
        {"packages": [package | {"version": "1.0/../../../victim"}]},
        {"packages": [package], "archive": str(victim)},
        {"packages": [package], "folder": "../../victim"},
        {"packages": [package], "files": {"../../victim": "0" * 64}},
    ):
        folder = foreign_run("model", **{"source": "pypi", "archive": None, "folder": None, "files": {}, **fields})
        for argv in (["predict", str(folder), "good film"], ["evaluate", str(folder)]):
            code, out, err = answer(*argv)
            assert code == 2 and len(err.splitlines()) == 1, (fields, out, err)
    assert calls == [] and victim.read_text() == "precious"


def test_a_foreign_run_learns_nothing_of_the_environment(answer, foreign_run, monkeypatch):
    monkeypatch.setenv("SECRET", "swordfish")
    folder = foreign_run("model", path="/nowhere/${oc.env:SECRET}")
    code, out, err = answer("predict", str(folder), "good film")
    assert code == 2 and "swordfish" not in out + err and len(err.splitlines()) == 1
