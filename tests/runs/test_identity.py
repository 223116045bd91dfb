"""Runs keep their names: a setting that came later leaves them as they were while it is at its neutral value."""

import pytest

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.runs.identity import run_id

# as earlier versions named them
IDS = """
adapter-mrpc-minilm-s0-a72a95ed
lora-mrpc-minilm-s0-41c65f11
prefix-movies_binary-minilm-s0-1c99068b
pfeiffer-stsb_binary-minilm-s0-536b4a34
cloze-mrpc-minilm-s0-a960af46
"""


@pytest.mark.parametrize("known", IDS.split())
def test_a_run_has_the_name_that_it_had(known: str) -> None:
    method, task, *_ = known.split("-")
    config = resolve(compose([f"method={method}", f"task={task}", "trainer.precision=bf16"]))
    assert run_id(config.plain()) == known
