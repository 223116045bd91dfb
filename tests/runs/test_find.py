from pathlib import Path

import pytest

from peftbench.errors import UserError
from peftbench.runs.find import UNREADABLE, find_runs, load_run
from peftbench.runs.identity import run_id
from peftbench.runs.lock import RunLock
from peftbench.runs.record import Record
from peftbench.runs.result import Status


def make(output_dir: Path, method: str = "adapter", seed: int = 0, experiment: str = "demo", **more) -> Record:
    config = {
        "experiment": experiment,
        "seed": seed,
        "method": {"name": method},
        "task": {"name": more.get("task", "mrpc"), "source": "glue"},
        "model": {"name": more.get("model", "minilm"), "source": "hub"},
        "trainer": {"lr": 1e-3},
    }
    record = Record.create(output_dir / experiment / run_id(config), config, [f"method={method}"])
    record.finish()
    return record


def test_nothing_there(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "outputs") == []
    assert find_runs(tmp_path) == []


def test_filters_and_order(tmp_path: Path) -> None:
    first = make(tmp_path, "lora", seed=9)
    second = make(tmp_path, "adapter", task="rte")
    third = make(tmp_path, "adapter", experiment="lab/bottleneck", model="mpnet_base")
    third.fail(Status.OOM, "out of memory")
    first.update(started="2026-01-03T10:00:00.000+00:00")
    second.update(started="2026-01-01T10:00:00.000+00:00")
    third.update(started="2026-01-02T10:00:00.000+02:00")

    def ids(**filters: str) -> list[str]:
        return [run.id for run in find_runs(tmp_path, **filters)]

    everything = [second.folder.name, third.folder.name, first.folder.name]
    assert ids() == everything
    assert ids(method="adapter") == everything[:2]
    assert ids(task="rte") == everything[:1]
    assert ids(model="mpnet_base") == ids(experiment="lab/bottleneck") == ids(status="oom") == [everything[1]]
    assert ids(method="adapter", status="finished") == everything[:1]
    assert ids(method="lora", task="rte") == []


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.update(status=Status.RUNNING)
    with RunLock(record.folder):
        assert [run.status for run in find_runs(tmp_path)] == [Status.RUNNING]
    assert [run.status for run in find_runs(tmp_path)] == [Status.INTERRUPTED]
    assert [run.status for run in find_runs(tmp_path, status="interrupted")] == [Status.INTERRUPTED]
    assert find_runs(tmp_path, status="running") == []


def test_a_run_that_ends_while_looked_at_is_not_called_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make(tmp_path)
    record.update(status=Status.RUNNING)

    def ends(folder: Path) -> bool:
        record.finish()
        return False

    monkeypatch.setattr("peftbench.runs.find.is_locked", ends)
    assert [run.status for run in find_runs(tmp_path)] == [Status.FINISHED]


def test_damaged_records_are_listed(tmp_path: Path) -> None:
    good, bad = make(tmp_path, "lora"), make(tmp_path, "adapter")
    bad.result_path.write_text('{"status": "fin')
    runs = find_runs(tmp_path)
    assert [(run.id, run.status) for run in runs] == [
        (bad.folder.name, UNREADABLE),
        (good.folder.name, Status.FINISHED),
    ]
    assert "damaged" in runs[0].error
    assert [run.id for run in find_runs(tmp_path, status=UNREADABLE)] == [bad.folder.name]
    good.update(started="yesterday")
    assert len(find_runs(tmp_path)) == 2


def test_load_run_by_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, other = make(tmp_path, "lora"), make(tmp_path, "adapter")
    name = record.folder.name
    hash_ = name.rpartition("-")[2]
    for run in (name, "lora", name[:-3], hash_, f"demo/{name}", "demo/lor"):
        assert load_run(run, tmp_path).folder == record.folder
    assert load_run(str(record.folder), Path("unused")).folder == record.folder
    assert load_run(str(record.result_path), Path("unused")).folder == record.folder
    monkeypatch.chdir(other.folder)
    assert load_run(".", Path("unused")).read().method == "adapter"


def test_a_full_id_wins_over_longer_ones(tmp_path: Path) -> None:
    record = make(tmp_path)
    longer = record.folder.with_name(record.folder.name + "0")
    longer.mkdir()
    (longer / "result.json").write_text(record.result_path.read_text())
    assert load_run(record.folder.name, tmp_path).folder == record.folder


def test_unknown_and_ambiguous_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs under"):
        load_run("lora", tmp_path)
    lora, adapter = make(tmp_path, "lora"), make(tmp_path, "adapter")
    with pytest.raises(UserError, match=f"Did you mean demo/{adapter.folder.name}\\?"):
        load_run("adaptor-mrpc", tmp_path)
    with pytest.raises(UserError, match="peftbench runs"):
        load_run("zzz", tmp_path)
    with pytest.raises(UserError, match="No run 'x*' under"):
        load_run("x" * 300, tmp_path)  # a text, where the run was forgotten
    with pytest.raises(UserError, match="No run ''"):
        load_run("", tmp_path)
    other = make(tmp_path, "lora", seed=1)
    with pytest.raises(UserError) as caught:
        load_run("lora", tmp_path)
    assert lora.folder.name in str(caught.value)
    assert other.folder.name in str(caught.value)

    again = make(tmp_path, "adapter", experiment="other")
    assert again.folder.name == adapter.folder.name
    with pytest.raises(UserError, match=f"demo/{again.folder.name}, other/{again.folder.name}"):
        load_run(again.folder.name, tmp_path)
    assert load_run(f"other/{again.folder.name}", tmp_path).folder == again.folder


def test_links_are_followed_and_each_run_is_listed_once(tmp_path: Path) -> None:
    elsewhere, outputs = tmp_path / "elsewhere", tmp_path / "outputs"
    make(elsewhere, experiment="on_a_large_disk")
    make(outputs, seed=1)
    (outputs / "linked").symlink_to(elsewhere / "on_a_large_disk")
    (outputs / "again").symlink_to(outputs / "demo")
    (outputs / "demo" / "loop").symlink_to(outputs)
    (outputs / "gone").symlink_to(tmp_path / "gone")
    found = find_runs(outputs)
    assert sorted(run.result.seed for run in found) == [0, 1]
    assert load_run("linked/adapter", outputs).folder.parent == outputs / "linked"
