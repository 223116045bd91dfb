"""A table that mixes precisions, devices or numbers of threads says so, and names the rows."""

from pathlib import Path

import pytest

from peftbench.runs.result import Environment, Result, Section, Status
from peftbench.tables.collect import PlannedRun, RunState
from peftbench.tables.notes import mixed_conditions

USUAL = {"device": "a processor", "device_type": "cpu", "threads": 2, "precision": "fp32"}


def run(label, latency=None, used=True, **conditions):
    environment = Environment(versions={}, **{**USUAL, **conditions})
    result = Result(
        Status.FINISHED,
        label,
        "lab",
        "lora",
        "mrpc",
        "minilm",
        0,
        "",
        environment=environment,
        latency=Section(latency),
    )
    return RunState(PlannedRun(label, 0, [], {}, Path(label)), "finished", None, result, used)


def test_equal_conditions_need_no_note():
    assert (
        mixed_conditions([run("full"), run("LoRA", {"settings": []}), run("bad", used=False, precision="bf16")]) == []
    )
    assert mixed_conditions([]) == []


@pytest.mark.parametrize(
    "conditions, start",
    [
        ({"precision": "bf16"}, "mixes precisions: fp32 in full, LoRA; bf16 in adapter; scores may differ"),
        ({"threads": 1}, "mixes numbers of threads: 2 in full, LoRA; 1 in adapter; times, latencies and steps cannot"),
        ({"device": "another"}, "mixes devices: a processor in full, LoRA; another in adapter; times, latencies and"),
    ],
)
def test_rows_under_other_conditions_are_named(conditions, start):
    (note,) = mixed_conditions([run("full"), run("LoRA"), run("adapter", **conditions)])
    assert note.startswith(start)


def test_a_row_may_be_of_both():
    (note,) = mixed_conditions([run("full"), run("LoRA"), run("LoRA", precision="bf16")])
    assert "fp32 in full, LoRA; bf16 in LoRA" in note


def test_kinds_of_device():
    notes = mixed_conditions([run("full", device="a GPU", device_type="cuda"), run("LoRA")])
    assert [note.partition(":")[0] for note in notes] == ["mixes kinds of device", "mixes devices"]


def test_latency_measured_elsewhere_than_trained():
    (note,) = mixed_conditions(
        [run("full", {"device": "cpu", "threads": 2}), run("LoRA", {"device": "cpu", "threads": 8})]
    )
    assert note == (
        "mixes numbers of threads in measuring latency: 2 in full; 8 in LoRA; latencies cannot be compared between them"
    )
