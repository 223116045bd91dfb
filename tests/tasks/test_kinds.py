"""Each kind of task that a config may name has its modules, and these define what they must."""

from importlib import import_module

import pytest

from peftbench.config.task import TASK_KINDS
from peftbench.tasks.kinds import KINDS


def test_configs_and_readers_are_of_the_same_kinds():
    assert set(TASK_KINDS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_modules_of_a_kind_define_what_they_must(kind):
    reader, sources = map(import_module, KINDS[kind])
    assert all(map(callable, (reader.load_task, reader.blank_task, sources.data_folder)))
