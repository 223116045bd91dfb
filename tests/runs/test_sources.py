"""Where the runs lie that another is made of: told by a method that is made of runs, and by no other."""

import pytest

from peftbench.runs.sources import part_folders


@pytest.mark.parametrize(
    ("method", "folders"),
    [
        (
            {"name": "fusion", "runs": {"a": "pfeiffer-a"}, "adapters": {"a": "/there/pfeiffer-a"}},
            {"a": "/there/pfeiffer-a"},
        ),
        ({"name": "fusion", "runs": {"a": "pfeiffer-a"}, "adapters": None}, {}),  # imported, or its parts are gone
        ({"name": "own", "adapters": {"count": 4}}, {}),  # a setting of another method that happens to be called so
        ({"name": "own", "adapters": 4, "runs": 2}, {}),
        ({"name": "lora"}, {}),
    ],
)
def test_part_folders(method, folders):
    assert part_folders(method) == folders
