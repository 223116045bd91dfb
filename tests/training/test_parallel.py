"""Under torchrun two processes train as one does with the same batch: same result, one record, output once."""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import forked
import pytest
import torch
from dense_data import write_detection, write_segmentation, write_tiny_dinov2
from safetensors.torch import load_file

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.runs.execute import execute_run
from peftbench.runs.prepare import prepare
from peftbench.runs.workers import execute_or_help
from peftbench.training.parallel import ALONE, Workers

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]


@pytest.fixture
def settings(tiny_model_dir, tiny_data_dir, tmp_path):
    opinions = tiny_data_dir / "opinions"

    def build(name: str, method: str = "method=lora method.rank=2") -> list[str]:
        return [
            f"output_dir={tmp_path / name}",
            "model=local", f"model.path={tiny_model_dir}", "model.dropout=0.0", "task=text_file", "task.max_length=32",
            f"task.splits.train={opinions / 'train.csv'}", f"task.splits.validation={opinions / 'validation.csv'}",
            "trainer.batch_size=9", "trainer.accumulate=2", "trainer.epochs=2", "trainer.lr=0.01", "device=cpu",
            "trainer.precision=fp32", "threads=1", "measure.latency=false", *shlex.split(method),
        ]  # fmt: skip

    return build


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.rglob("adapter.safetensors")
    return load_file(path)


def _torchrun(settings: list[str], runs: int = 1) -> None:
    """Train with torchrun itself."""
    run = subprocess.run([*TORCHRUN, "peftbench", "train", *settings], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("epoch 2/2") == runs


def _as_torchrun(settings: list[str], says: str) -> None:
    """Train in two processes that torchrun might have begun."""
    done = _begun_as_torchrun([["-m", "peftbench", "train", *settings]] * 2)
    assert [code for code, *_ in done] == [0, 0], done
    assert [output.count(says) for _, output, _ in done] == [1, 0]


def _begun_as_torchrun(lines: list[list[str]]) -> list[tuple[int, str, str]]:
    """Return exit code, output and errors of two processes that torchrun might have begun, each with a line."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = {**os.environ, "TORCHELASTIC_RUN_ID": "job", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    both = [
        forked.Popen(line, env=job | rank, stdout=PIPE, stderr=PIPE, text=True)
        for line, rank in zip(lines, ranks, strict=True)
    ]
    told = [process.communicate(timeout=300) for process in both]
    return [(process.returncode, *said) for process, said in zip(both, told, strict=True)]


LORA = "method=lora method.rank=2"
# of its two batches of 48 examples, the smaller leaves one process nothing; one draws no layer, then one does
ROBUST = "method=pfeiffer method.bottleneck=4 method.drop=robust trainer.batch_size=47 trainer.accumulate=1 seed=3"
CACHED = "method=pfeiffer method.bottleneck=4 method.layers=1 trainer.cache_frozen=true"


FUSION = "method=fusion"


@pytest.mark.long
@pytest.mark.parametrize("method", [LORA, ROBUST, CACHED, FUSION])
def test_two_processes_train_what_one_trains(method, settings, tiny_method, tmp_path):
    if method is FUSION:
        method = shlex.join(tiny_method("fusion"))
    lines = settings("one", method)
    execute_run(resolve(compose(lines)), [])
    if method is LORA:
        _torchrun(settings("two", method))
    else:
        _as_torchrun(settings("two", method), "epoch 2/2")
    alone, together = _tensors(tmp_path / "one"), _tensors(tmp_path / "two")
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        if name.endswith("key.bias"):  # adds as much to the scores of all adapters: its gradient is rounding alone
            continue
        torch.testing.assert_close(together[name], tensor, rtol=0, atol=1e-6)
    folders = [sorted(path.name for path in (tmp_path / name).glob("*/*") if path.is_dir()) for name in ("one", "two")]
    assert folders[0] == folders[1] and len(folders[0]) == 1, "the identity is the same"
    _as_torchrun(settings("two", method), "finished already")


@pytest.mark.long
def test_two_processes_train_one_combination_after_the_other(settings, tmp_path):
    _torchrun(["-m", "seed=0,1", *settings("two", LORA)], runs=2)
    assert len(list((tmp_path / "two").rglob("adapter.safetensors"))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [("trainer.batch_size=1", "cannot be divided among 2"), ("device=cuda:1", "takes its GPU with device=auto")],
)
def test_what_cannot_be_divided_is_the_user_s_mistake(settings, change, message, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=message):
        execute_or_help(resolve(compose([*settings("one"), change])), lambda: None)


@pytest.mark.parametrize(("kind", "write"), [("segmentation", write_segmentation), ("detection", write_detection)])
def test_batch_norms_are_not_divided(kind, write, tmp_path, monkeypatch):
    data, model = write(tmp_path / "data"), write_tiny_dinov2(tmp_path / "dinov2")
    line = [f"task={kind}_folder", f"task.dir={data}", "model=local", f"model.path={model}", "method=lora"]
    config = resolve(compose([*line, "device=cpu", "threads=1"]))
    prepare(config)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="under torchrun .* batch norms"):
        prepare(config)


def test_parts_of_a_batch():
    batch = list(range(7))
    assert [list(Workers(rank, 3).part(batch)) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert ALONE.part(batch) == batch and ALONE.from_first(lambda: 5) == 5


def test_processes_draw_different_dropout_and_the_first_keeps_its_state():
    torch.manual_seed(0)
    state, drawn = torch.get_rng_state(), []
    for rank in range(3):
        torch.set_rng_state(state)
        Workers(rank, 3).seed(seed=5, epoch=1)
        drawn.append(torch.rand(1).item())
    torch.set_rng_state(state)
    assert drawn[0] == torch.rand(1).item() and len(set(drawn)) == 3


# what goes wrong in one of the processes at its third batch
BROKEN = """
import sys, torch
import peftbench.training.loop as loop
from peftbench.errors import UserError

def break_at_the_third_batch(forward, batch, loss_of, mean=loop._mean_loss, seen=[]):
    seen.append(batch)
    if len(seen) == 3:
        raise {error}
    return mean(forward, batch, loss_of)

loop._mean_loss = break_at_the_third_batch
from peftbench.cli import main
sys.exit(main(sys.argv[1:]))
"""
MEMORY = "torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB')"


@pytest.mark.long
@pytest.mark.parametrize(
    ("rank", "error", "codes", "status", "recorded"),
    [
        (1, MEMORY, [1, 1], "oom", "out of memory: lower trainer.batch_size"),
        (1, "ValueError('odd')", [1, 1], "failed", "process 1 of 2: odd"),
        (1, "UserError('wrong')", [2, 2], "failed", "process 1 of 2: wrong"),
        (0, "UserError('Cannot write: disk full')", [2, 0], "failed", "Cannot write: disk full"),
    ],
)
def test_what_fails_in_one_process_is_what_the_run_failed_of(
    rank, error, codes, status, recorded, settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    broken = BROKEN.format(error=error)
    lines = [["-c", broken, "train"] if number == rank else ["-m", "peftbench", "train"] for number in (0, 1)]
    done = _begun_as_torchrun([[*line, *settings("two", LORA)] for line in lines])
    assert [code for code, *_ in done] == codes, done
    (record,) = (tmp_path / "two").rglob("result.json")
    result = json.loads(record.read_text())
    assert result["status"] == status and recorded in result["error"]
    (_, _, first), (_, out, second) = done
    assert len(first.splitlines()) == 1 and recorded in first
    assert out == "" and len(second.splitlines()) == rank, "the other process ends silently"
    assert "should not have happened" not in second and not list(tmp_path.rglob("crash-*"))
    log = record.with_name("train.log")
    assert not log.exists() or "break_at_the_third_batch" in log.read_text()


@pytest.mark.long
def test_a_run_that_failed_in_one_process_does_not_keep_the_next_from_training(settings, tmp_path):
    lines = [["-c", BROKEN.format(error=MEMORY), "train"], ["-m", "peftbench", "train"]]
    done = _begun_as_torchrun([[*line, "-m", "seed=0,1", *settings("two", LORA)] for line in lines[::-1]])
    assert [code for code, *_ in done] == [1, 1], done
    statuses = [json.loads(path.read_text())["status"] for path in sorted((tmp_path / "two").rglob("result.json"))]
    assert statuses == ["oom", "finished"]


# what goes wrong in the first process when the others have trained
BROKEN_BEHIND = """
import sys
import peftbench.runs.adapter as adapter
from peftbench.errors import UserError

def break_once(*arguments, save=adapter.save_adapter):
    adapter.save_adapter = save
    raise UserError("Cannot write: disk full")

adapter.save_adapter = break_once
from peftbench.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_a_run_that_failed_behind_training_does_not_keep_the_next_from_training(settings, tmp_path):
    lines = [["-c", BROKEN_BEHIND, "train"], ["-m", "peftbench", "train"]]
    done = _begun_as_torchrun([[*line, "-m", "seed=0,1", *settings("two", LORA)] for line in lines])
    assert [code for code, *_ in done] == [2, 0], done
    statuses = [json.loads(path.read_text())["status"] for path in sorted((tmp_path / "two").rglob("result.json"))]
    assert statuses == ["failed", "finished"]
