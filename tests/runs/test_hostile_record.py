"""A run's folder may come from somebody else: nothing in it is run, and nothing outside it is read or touched."""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from peftbench.cli import main
from peftbench.errors import UserError
from peftbench.files import remove, remove_temporaries
from peftbench.runs.find import inspect_run
from peftbench.runs.lock import RunLock, is_locked
from peftbench.runs.origin import code_digest
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.runs.result import Evaluation


@pytest.fixture
def copied(tiny_run: Record, tmp_path: Path) -> Record:
    return Record(Path(shutil.copytree(tiny_run.folder, tmp_path / "outputs" / tiny_run.folder.name)))


def seal(record: Record, **changes: object) -> None:
    """Write `result.json` with these fields changed and digests that fit, as a hostile sender would."""
    found = json.loads(record.result_path.read_text("utf-8")) | changes
    del found["digest"]
    for name in found["files"]:
        if (record.folder / name).is_file():
            found["files"][name] = hashlib.sha256((record.folder / name).read_bytes()).hexdigest()
    content = json.dumps(found, indent=2, ensure_ascii=False).encode().removesuffix(b"\n}")
    digest = hashlib.sha256(content).hexdigest()
    record.result_path.write_bytes(content + f',\n  "digest": "{digest}"\n}}\n'.encode())


def test_json_nested_too_deeply_is_damage(copied: Record, capsys) -> None:
    (copied.adapter_dir / "adapter.json").write_text("[" * 200_000)
    seal(copied)
    assert main(["predict", str(copied.folder), "good film"]) == 2
    assert "damaged" in capsys.readouterr().err
    copied.result_path.write_text("[" * 200_000)
    assert inspect_run(copied).status == "unreadable"


@pytest.mark.parametrize("name", ["adapter/../../../../../dev/zero", "/dev/zero"])
def test_a_record_names_no_file_outside_its_folder(copied: Record, name: str) -> None:
    seal(copied, files={**copied.read().files, name: "0" * 64})
    with pytest.raises(UserError, match="outside"):
        copied.read()


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "adapter/adapter.json"])
def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(copied: Record, name: str, capsys) -> None:
    (copied.folder / name).unlink()
    os.mkfifo(copied.folder / name)
    assert main(["predict", str(copied.folder), "good film"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_aliases_of_a_config_are_not_expanded(copied: Record) -> None:
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    with copied.config_path.open("a") as file:
        file.write(f"a0: &a0 [x]\n{levels}")
    seal(copied)
    started = time.monotonic()
    with pytest.raises(UserError, match="aliases"):
        copied.config()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "changes",
    [{"method": {}}, {"method": [1]}, {"task": "x"}, {"task": {"name": "t", "source": "local"}}, {"labels": 3}],
    ids=str,
)
def test_an_odd_adapter_json_is_one_line(copied: Record, changes: dict, capsys) -> None:
    path = copied.adapter_dir / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))
    seal(copied)
    assert main(["predict", str(copied.folder), "good film"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_modules_a_record_names_are_not_imported(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "hostile_package").mkdir()
    (tmp_path / "hostile_package" / "__init__.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "hostile_package" / "method.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digest(["hostile_package.method"])
    assert before != code_digest(["hostile_package.missing"])
    assert "hostile_package" not in sys.modules


def test_a_lock_that_leads_elsewhere_costs_no_file(tmp_path: Path) -> None:
    run, letters = tmp_path / "run", tmp_path / "letters"
    run.mkdir()
    letters.mkdir()
    (letters / "aunt.txt").write_text("dear aunt")
    os.utime(letters / "aunt.txt", (0, 0))
    (run / "run.lock").symlink_to(letters)
    with pytest.raises(UserError):
        RunLock(run).acquire()
    assert (letters / "aunt.txt").read_text() == "dear aunt"


def test_a_pipe_in_place_of_a_lock_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    os.mkfifo(tmp_path / "run.lock" / "owner")
    assert is_locked(tmp_path)
    with pytest.raises(UserError):
        RunLock(tmp_path).acquire()


def evaluation(split: str) -> Evaluation:
    return Evaluation(split, 1, {"accuracy": 1.0}, "fp32", "d")


def test_an_evaluation_is_stored_inside_the_record(copied: Record, tmp_path: Path) -> None:
    with RunLock(copied.folder):
        stored = copied.add_evaluation(evaluation("../../outside"), Predictions([0], [0]), [])
    assert (copied.folder / str(stored.predictions)).resolve().is_relative_to(copied.folder / "evaluations")
    assert not list(tmp_path.glob("**/outside*"))


def test_nothing_is_written_or_removed_through_a_link(copied: Record, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".draft.tmp").write_text("mine")
    shutil.rmtree(copied.folder / "evaluations", ignore_errors=True)  # another test may have scored the run they share
    (copied.folder / "evaluations").symlink_to(elsewhere)
    with RunLock(copied.folder):
        remove_temporaries(copied.folder)
        with pytest.raises(UserError, match="symbolic link"):
            copied.add_evaluation(evaluation("test"), Predictions([0], [0]), [])
        remove(copied.folder / "evaluations")
    assert [path.name for path in elsewhere.iterdir()] == [".draft.tmp"]
    assert not (copied.folder / "evaluations").exists()


@pytest.mark.parametrize("text", ["5\n", "true\n", "[" * 3000], ids=["5", "true", "nested"])
def test_a_config_that_is_none_costs_the_list_of_runs_nothing(copied: Record, text: str, capsys) -> None:
    copied.config_path.write_text(text)
    seal(copied)
    with pytest.raises(UserError, match="damaged"):
        copied.config()
    assert main(["runs", "--output-dir", str(copied.folder.parent)]) == 0
    assert copied.folder.name in capsys.readouterr().out


def test_a_lock_nested_too_deeply_is_one_of_nobody_known(copied: Record, capsys) -> None:
    (copied.folder / "run.lock").mkdir()
    (copied.folder / "run.lock" / "owner").write_text("[" * 200_000)
    seal(copied, status="running")
    assert main(["runs", "--output-dir", str(copied.folder.parent)]) == 0
    assert "running" in capsys.readouterr().out


def test_a_time_without_end_is_damage(copied: Record, capsys) -> None:
    time = json.loads(copied.result_path.read_text("utf-8"))["time"]
    for endless in (float("inf"), float("nan"), 10**400):
        seal(copied, time={**time, "total": endless})
        assert main(["runs", "--output-dir", str(copied.folder.parent)]) == 0
        assert "result.time.total holds" in capsys.readouterr().out


def test_runs_are_sorted_by_numbers_of_any_size(copied: Record, capsys) -> None:
    seal(copied, pid=10**400)
    assert main(["runs", "--output-dir", str(copied.folder.parent), "--sort", "pid"]) == 0
    assert copied.folder.name in capsys.readouterr().out


def test_a_pipe_in_place_of_the_curve_keeps_nobody_waiting(copied: Record) -> None:
    copied.history_path.unlink()
    os.mkfifo(copied.history_path)
    with pytest.raises(UserError, match="Cannot read"):
        copied.history()
