import copy
import csv
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import forked
import numpy as np
import pytest

from peftbench.errors import UserError
from peftbench.files import atomic_write, plain
from peftbench.runs.history import read_history, write_history
from peftbench.runs.identity import fingerprint, run_id
from peftbench.runs.predictions import Predictions, read_predictions, write_predictions
from peftbench.runs.record import Record
from peftbench.runs.result import SCHEMA_VERSION, Evaluation, Section, Status

CONFIG = {
    "experiment": "demo",
    "output_dir": "outputs",
    "device": "auto",
    "seed": 3,
    "method": {"name": "adapter", "bottleneck": 64},
    "task": {
        "name": "mrpc",
        "source": "glue",
        "id": "nyu-mll/glue",
        "subset": "mrpc",
        "revision": None,
        "dir": None,
        "max_length": 128,
    },
    "model": {
        "name": "minilm",
        "source": "pypi",
        "packages": [{"name": "some-model", "version": "0.1.0", "sha256": "aa"}],
        "folder": "some_model/model",
        "files": {"model.safetensors": "bb"},
        "path": None,
    },
    "trainer": {"lr": 1e-3, "epochs": 3, "eval_batch_size": 64},
    "logger": {"name": "none"},
}


def changed(path: str, value: object) -> dict:
    config = copy.deepcopy(CONFIG)
    *groups, key = path.split(".")
    place = config
    for group in groups:
        place = place[group]
    place[key] = value
    return config


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.create(tmp_path / "demo" / run_id(CONFIG), CONFIG, ["method=adapter"])


def run_python(code: str, *arguments: object, wait: bool = True) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    return process


class TestFingerprint:
    def test_same_config_in_another_order_is_the_same_run(self) -> None:
        reordered = {
            key: dict(reversed(value.items())) if isinstance(value, dict) else value
            for key, value in reversed(CONFIG.items())
        }
        assert fingerprint(reordered) == fingerprint(CONFIG)
        assert len(fingerprint(CONFIG)) == 8
        assert int(fingerprint(CONFIG), 16) >= 0

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("output_dir", "/elsewhere"),
            ("experiment", "other"),
            ("device", "cuda"),
            ("logger", {"name": "wandb"}),
            ("task.dir", "/data/glue/mrpc"),
            ("task.ceiling", {"accuracy": 0.9}),
            ("trainer.eval_batch_size", 8),
            ("model.packages", [{"name": "repackaged", "version": "2", "sha256": "cc"}]),
            ("model.folder", "repackaged/model"),
        ],
    )
    def test_where_things_lie_does_not_count(self, path: str, value: object) -> None:
        assert fingerprint(changed(path, value)) == fingerprint(CONFIG)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("seed", 4),
            ("trainer.lr", 2e-3),
            ("method.bottleneck", 16),
            ("method.name", "lora"),
            ("task.max_length", 64),
            ("task.subset", "rte"),
            ("task.revision", "abc"),
            ("model.files", {"model.safetensors": "dd"}),
        ],
    )
    def test_what_changes_the_result_counts(self, path: str, value: object) -> None:
        assert fingerprint(changed(path, value)) != fingerprint(CONFIG)

    def test_a_local_model_is_known_by_its_path(self) -> None:
        first = changed("model", {"name": "mine", "source": "local", "path": "a"})
        second = changed("model", {"name": "mine", "source": "local", "path": "b"})
        assert fingerprint(first) != fingerprint(second)

    def test_wheels_without_checked_files_are_known_by_their_checksums(self) -> None:
        def with_wheel(sha256: str) -> dict:
            packages = [{"name": "data", "version": "1", "sha256": sha256}]
            return changed("task", {"name": "stsb", "source": "pypi", "packages": packages, "files": {}})

        assert fingerprint(with_wheel("aa")) != fingerprint(with_wheel("bb"))

    def test_stays_the_same_across_processes(self) -> None:
        code = """
            import json, sys
            from peftbench.runs.identity import fingerprint
            assert fingerprint(json.loads(sys.argv[1])) == sys.argv[2]
        """
        run_python(code, json.dumps(CONFIG), fingerprint(CONFIG))

    def test_run_id_is_a_folder_name(self) -> None:
        assert run_id(CONFIG) == f"adapter-mrpc-minilm-s3-{fingerprint(CONFIG)}"
        odd = changed("model.name", "org/my model")
        assert run_id(odd) == f"adapter-mrpc-org_my_model-s3-{fingerprint(odd)}"


class TestRecord:
    def test_create_begins_a_running_record(self, record: Record) -> None:
        result = record.read()
        assert result.status == Status.RUNNING
        assert result.schema == SCHEMA_VERSION
        assert result.id == record.folder.name
        assert (result.experiment, result.method, result.seed) == ("demo", "adapter", 3)
        assert result.overrides == ["method=adapter"]
        assert result.pid == os.getpid()
        assert result.started.endswith("+00:00")
        assert record.config() == CONFIG

    def test_finish_and_fail(self, record: Record) -> None:
        record.update(primary="accuracy", best_epoch=1)
        record.finish(best_epoch=2)
        result = record.read()
        assert (result.status, result.primary, result.best_epoch) == ("finished", "accuracy", 2)
        assert result.finished >= result.started

        record.fail(Status.OOM, "out of memory")
        assert record.read().status == "oom"
        assert record.read().error == "out of memory"

    def test_create_leaves_nothing_of_an_earlier_attempt(self, record: Record) -> None:
        write_history(record.history_path, [{"step": 1}])
        record.write_predictions({"validation": Predictions([1], [0])})
        record.checkpoint_path.write_text("old")
        record.adapter_dir.mkdir()
        (record.folder / ".result.json.1234.tmp").write_text("half")
        record.fail(Status.FAILED, "boom")

        Record.create(record.folder, CONFIG, [])

        assert sorted(path.name for path in record.folder.iterdir()) == ["config.yaml", "result.json"]
        assert record.read().status == "running"
        assert record.read().error is None

    def test_reopen_keeps_what_was_there(self, record: Record) -> None:
        started = record.read().started
        write_history(record.history_path, [{"step": 1}])
        record.checkpoint_path.write_text("state")
        record.fail(Status.INTERRUPTED, "Ctrl-C")

        record.reopen()

        result = record.read()
        assert (result.status, result.error, result.finished) == ("running", None, None)
        assert result.started == started
        assert record.history() == [{"step": 1}]
        assert record.checkpoint_path.read_text() == "state"

    def test_nan_numpy_and_paths_make_valid_json(self, record: Record) -> None:
        figures = {
            "loss": float("nan"),
            "values": np.array([1.5, np.inf]),
            "count": np.int64(3),
            "accuracy": np.float32(0.5),
            "path": Path("a"),
            "both": (True, None),
        }
        record.update(latency=Section(figures))
        text = record.result_path.read_text()
        assert "NaN" not in text
        assert "Infinity" not in text
        found = record.read().latency.result
        assert (found["loss"], found["values"], found["count"]) == (None, [1.5, None], 3)
        assert (found["accuracy"], found["path"], found["both"]) == (0.5, "a", [True, None])

    def test_torch_values_are_plain_too(self) -> None:
        torch = pytest.importorskip("torch")
        assert plain({"x": torch.tensor([1.0, float("nan")]), "n": torch.tensor(2)}) == {
            "x": [1.0, None],
            "n": 2,
        }

    @pytest.mark.parametrize("content", ["", '{"status": "fini', "[]", '{"status": "odd", "schema": 1}', "\xff"])
    def test_damaged_result_is_one_clear_line(self, record: Record, content: str) -> None:
        record.result_path.write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match="damaged") as caught:
            record.read()
        assert str(record.result_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_and_newer_results(self, record: Record, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="No run in"):
            Record(tmp_path / "nowhere").read()
        record.result_path.write_text(json.dumps({"schema": SCHEMA_VERSION + 1}))
        with pytest.raises(UserError, match="newer peftbench"):
            record.read()

    @pytest.mark.parametrize("content", ["a: [", "- 1\n", ""])
    def test_damaged_config(self, record: Record, content: str) -> None:
        record.config_path.write_text(content)
        with pytest.raises(UserError, match=r"config\.yaml is damaged"):
            record.config()


class TestHistory:
    def test_rows_come_back(self, record: Record) -> None:
        assert record.history() == []
        rows = [{"step": step, "loss": 1 / step} for step in range(1, 5)]
        write_history(record.history_path, [*rows, {"step": 5, "loss": float("nan")}])
        assert record.history() == [*rows, {"step": 5, "loss": None}]

    def test_a_line_cut_short_is_left_out(self, record: Record) -> None:
        write_history(record.history_path, [{"step": 1}])
        with record.history_path.open("a") as file:
            file.write('{"step": 2, "lo')
        assert read_history(record.history_path) == [{"step": 1}]

    def test_a_full_disk_takes_no_half_line(self, record: Record) -> None:
        rows = [{"step": step} for step in range(10)]
        write_history(record.history_path, rows)
        whole = record.history_path.read_bytes()
        # A limit on the file's size, in another process, stands for the end of the disk.
        code = """
            import resource, signal, sys
            from pathlib import Path
            from peftbench.errors import UserError
            from peftbench.runs.history import read_history, write_history
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
            path = Path(sys.argv[1])
            try:
                write_history(path, [*read_history(path), {"step": 10}])
            except UserError as error:
                assert "history.jsonl" in str(error) and "output_dir=" in str(error), error
            else:
                raise SystemExit("nothing was raised")
        """
        run_python(code, record.history_path, len(whole) + 5)
        assert record.history_path.read_bytes() == whole


class TestPredictions:
    def test_classes_round_trip(self, record: Record) -> None:
        generator = np.random.default_rng(0)
        probabilities = generator.random((5, 3), dtype=np.float32)
        given = {
            "validation": Predictions(np.array([0, 1, 2, 1, 0]), probabilities.argmax(1), probabilities),
            "test": Predictions(None, [2, 0], [[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]], ["q7", "q9"]),
        }
        write_predictions(record.predictions_path, given, ["no, never", "maybe", "yes"])

        with record.predictions_path.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["split", "id", "label", "prediction", "no, never", "maybe", "yes"]
        assert [row[:3] for row in rows[1:4]] == [
            ["validation", "0", "no, never"],
            ["validation", "1", "maybe"],
            ["validation", "2", "yes"],
        ]
        assert rows[6] == ["test", "q7", "", "yes", "0.1", "0.2", "0.7"]
        found = read_predictions(record.predictions_path)
        assert found["validation"].labels == [0, 1, 2, 1, 0]
        assert found["validation"].predictions == probabilities.argmax(1).tolist()
        assert np.array_equal(np.array(found["validation"].probabilities, dtype=np.float32), probabilities)
        assert found["test"] == given["test"]

    def test_scores_round_trip_without_probabilities(self, record: Record) -> None:
        write_predictions(record.predictions_path, {"validation": Predictions([3.0, 0.25], [-2.5, 1e-7])})
        assert record.predictions_path.read_text().startswith("split,id,label,prediction\n")
        assert read_predictions(record.predictions_path) == {
            "validation": Predictions([3.0, 0.25], [-2.5, 1e-7], None, ["0", "1"])
        }

    def test_a_file_of_version_1(self, record: Record) -> None:
        record.predictions_path.write_text("split,index,label,prediction,p0,p1\nvalidation,0,1,0,0.75,0.25\n")
        assert read_predictions(record.predictions_path) == {"validation": Predictions([1], [0], [[0.75, 0.25]], ["0"])}

    def test_lengths_must_agree(self, record: Record) -> None:
        with pytest.raises(ValueError, match="validation"):
            record.write_predictions({"validation": Predictions([0, 1], [0])})

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("split,id,label,prediction,no,yes\nvalidation,0,yes,ye,0,1\n", "'ye' is no class"),
            ("split,id,label,prediction,no,yes\nvalidation,0,yes,,0,1\n", "a prediction is missing"),
            ("split,id,label,prediction,no,yes\nvalidation,0,yes,yes,0,x\n", "could not convert"),
            ("split,id,label,prediction,no,yes\nvalidation,0,yes\n", "line 2 has 3 cells"),
            ("split,index,label,prediction,p0,p1\nvalidation,0,1,7,0,1\n", "7 is no class"),
            ("id,label,prediction,split\n", "its header"),
            ("", "its header"),
        ],
    )
    def test_a_damaged_file_is_named_with_the_reason(self, record: Record, text: str, why: str) -> None:
        record.predictions_path.write_text(text)
        with pytest.raises(UserError, match=why) as caught:
            read_predictions(record.predictions_path)
        assert str(record.predictions_path) in str(caught.value)

    def test_rows_that_are_missing(self, record: Record) -> None:
        record.write_predictions({"validation": Predictions([1, 0], [0, 0])})
        evaluation = Evaluation("validation", 3, {"accuracy": 0.5}, "fp32", "data", predictions="predictions.csv")
        with pytest.raises(UserError, match="2 rows of validation instead of 3"):
            record.predictions(evaluation)
        record.predictions_path.unlink()
        with pytest.raises(UserError, match=r"predictions\.csv"):
            record.predictions(evaluation)


@pytest.mark.parametrize("written", range(4))
def test_a_run_begun_again_and_killed_between_two_writes_can_be_begun_again(
    record: Record, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """With settings that its name says nothing of."""
    config = {**CONFIG, "threads": 7}
    assert run_id(config) == record.folder.name
    writes = itertools.count()

    def replace(source: Path, target: Path, rename: Callable[[Path, Path], Path] = Path.replace) -> Path:
        if next(writes) == written:
            raise KeyboardInterrupt
        return rename(source, target)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Path, "replace", replace)
        Record.create(record.folder, config, [])
    assert Record(record.folder).read().status == Status.RUNNING
    Record.create(record.folder, config, [])
    assert record.config()["threads"] == 7


class TestAtomicWrite:
    def test_an_error_keeps_the_old_content(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
            file.write("new")
            raise KeyboardInterrupt
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_kill_keeps_the_old_content(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        code = """
            import sys, time
            from pathlib import Path
            from peftbench.files import atomic_write
            with atomic_write(Path(sys.argv[1])) as file:
                file.write("new" * 100_000)
                file.flush()
                print("half", flush=True)
                time.sleep(60)
        """
        process = run_python(code, path, wait=False)
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        assert path.read_text() == "old"
        with atomic_write(path) as file:
            file.write("newer")
        assert path.read_text() == "newer"

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
    def test_a_refused_write_is_one_line_that_says_what_to_do(
        self, record: Record, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        before = record.result_path.read_bytes()

        def refuse(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError) as caught:
            record.update(primary="f1")
        message = str(caught.value)
        assert str(record.result_path) in message
        assert os.strerror(code) in message
        assert "output_dir=" in message
        assert "\n" not in message
        assert ("Free some space" in message) == (code in (errno.ENOSPC, errno.EDQUOT))
        assert record.result_path.read_bytes() == before
        assert not list(record.folder.glob(".*.tmp"))

    def test_a_full_disk_behind_torch_save(self, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        code = """
            import resource, signal, sys
            from pathlib import Path
            import torch
            from peftbench.errors import UserError
            from peftbench.files import atomic_write
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)
            try:
                with atomic_write(Path(sys.argv[1]), binary=True) as file:
                    torch.save({"x": torch.zeros(1_000_000)}, file)
            except UserError as error:
                assert sys.argv[1] in str(error), error
            else:
                raise SystemExit("nothing was raised")
        """
        path = tmp_path / "checkpoint.pt"
        path.write_text("old")
        forked.run(["-c", textwrap.dedent(code), path], check=True)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_callers_own_errors_pass(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file") as file:
            file.write((tmp_path / "input").read_text())
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file") as file:
            file.write(str(1 / 0))
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "outputs").write_text("a file")
        with pytest.raises(UserError, match="output_dir="):
            Record.create(tmp_path / "outputs" / "demo" / "run", CONFIG, [])
        with pytest.raises(UserError, match="Not a directory"), atomic_write(tmp_path / "outputs" / "x"):
            pass

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        mask = os.umask(0o022)
        try:
            with atomic_write(tmp_path / "file") as file:
                file.write("x")
        finally:
            os.umask(mask)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_the_record_needs_no_torch() -> None:
    code = """
        import sys
        import peftbench.runs.find, peftbench.runs.lock, peftbench.runs.record
        heavy = {"torch", "transformers", "datasets", "numpy", "scipy"} & set(sys.modules)
        assert not heavy, heavy
    """
    run_python(code)
