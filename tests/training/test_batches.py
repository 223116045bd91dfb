"""Batches from the background thread: the same ones in the same order, and no thread left behind."""

import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from tiny import encoded_texts

from peftbench.training.batches import batches_of
from peftbench.training.inference import logits_of

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "batches"]


class Counting:
    """A split that counts the batches made of it, and may fail at one."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.made, self.fails_at = 0, fails_at

    def batch(self, indices, multiple=1):
        if self.made == self.fails_at:
            raise IndexError("no such row")
        self.made += 1
        return {"input_ids": torch.tensor(indices)}


def test_the_batches_are_those_of_the_split_in_order():
    data = encoded_texts(
        [{"input_ids": [row] * (1 + row % 5)} for row in range(50)], torch.arange(50), {"input_ids": 0}
    )
    order = data.shuffled(4, seed=1, epoch=2)
    with batches_of(data, order, CPU) as batches:
        found = list(batches)
    assert len(found) == len(order) and not threads()
    for batch, indices in zip(found, order, strict=True):
        assert all(torch.equal(column, data.batch(indices)[name]) for name, column in batch.items())


def test_some_are_made_ahead_but_not_all():
    data = Counting()
    with batches_of(data, [[row] for row in range(100)], CPU) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while data.made < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert 3 <= data.made <= 10
    assert not threads()


def test_an_error_comes_where_its_batch_is_asked_for():
    with batches_of(Counting(fails_at=2), [[row] for row in range(5)], CPU) as batches:
        assert [int(next(batches)["input_ids"]) for _ in range(2)] == [0, 1]
        with pytest.raises(IndexError, match="no such row"):
            next(batches)
    assert not threads()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_thread_is_left_behind_an_interruption(error):
    with pytest.raises(error), batches_of(Counting(), [[row] for row in range(1000)], CPU) as batches:
        next(batches)
        raise error
    assert not threads()


def test_the_thread_pins_memory_on_the_device_of_the_run(monkeypatch):
    used = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: used.update({threading.current_thread().name: device}))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pytest.fail("no device") if not used else tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: tensor)
    second = torch.device("cuda", 1)
    with batches_of(Counting(), [[0], [1]], second) as batches:
        assert len(list(batches)) == 2
    assert used == {"batches": second}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_batches_are_on_the_device():
    order = [[row, row + 1] for row in range(20)]
    with batches_of(Counting(), order, torch.device("cuda", 0)) as batches:
        found = [batch["input_ids"] for batch in batches]
    assert all(column.is_cuda for column in found) and [column.tolist() for column in found] == order


@pytest.mark.parametrize(("precision", "widths"), [("bf16", {8, 16, 19}), ("fp32", set(range(1, 20)))])
def test_in_bf16_on_a_cpu_lengths_share_their_kernels(precision, widths):
    seen = set()

    class Widths(torch.nn.Module):
        def forward(self, input_ids, attention_mask=None):
            seen.add(input_ids.shape[1])
            return SimpleNamespace(logits=input_ids[:, :1].float())

    data = encoded_texts([{"input_ids": [1] * length} for length in range(1, 20)], torch.arange(19), {"input_ids": 0})
    logits_of(Widths(), data, 1, precision, CPU)
    assert seen == widths


def test_logits_are_kept_once_in_the_order_of_the_rows():
    kept, most = [], 0

    class Remembering(torch.nn.Module):
        def forward(self, input_ids, attention_mask=None):
            nonlocal most
            most = max(most, sum(batch() is not None for batch in kept))
            logits = input_ids[:, :1].float()
            kept.append(weakref.ref(logits))
            return SimpleNamespace(logits=logits)

    rows = [{"input_ids": [row] * (1 + row % 3)} for row in range(12)]
    found = logits_of(Remembering(), encoded_texts(rows, torch.arange(12), {"input_ids": 0}), 2, "fp32", CPU)
    assert found[:, 0].tolist() == list(range(12)) and most <= 1
