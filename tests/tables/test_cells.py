"""The figures of a row: what its runs' records say, over all of them."""

from types import SimpleNamespace

import pytest

from peftbench.tables import cells


@pytest.mark.parametrize("share", [0.23329096955030554, 5.484078761816884, 0.1 + 0.2])
def test_what_is_equal_in_all_runs_is_that_figure(share, monkeypatch):
    monkeypatch.setattr(cells, "PER_RUN", {"share": lambda result: share})
    monkeypatch.setattr(cells, "MEASURED", ())
    cell = cells.record_cells([SimpleNamespace(result=SimpleNamespace())] * 3, {})["share"]
    assert cell.low == cell.value == cell.high == share
