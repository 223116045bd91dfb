"""Tables as they are read with their runs: of those that come along every row can be trained."""

import pytest

from peftbench.config.groups import read_group
from peftbench.errors import UserError
from peftbench.sweeps.request import read_request


@pytest.mark.parametrize("table", [table["name"] for table in read_group("table")])
def test_every_row_is_a_run(table):
    request = read_request([f"table={table}", "seeds=1"])
    assert len(request.planned) >= len(request.spec.rows) > 1
    assert {run.label for run in request.planned} >= {row.label for row in request.spec.rows}


@pytest.mark.parametrize(("task", "form"), [("camvid", "segmentation"), ("bccd", "detection")])
def test_a_vit_adapter_takes_the_form_of_its_dense_task(task, form):
    planned = read_request(["table=lecture/dense", f"task={task}", "seeds=1"]).planned
    methods = [run.config["method"] for run in planned if run.config["method"]["name"] == "vit_adapter"]
    assert [method["form"] for method in methods] == [form, form]


def test_a_table_without_seeds_says_so(tmp_path):
    (tmp_path / "table").mkdir()
    spec = "title: t\nbaseline: a\ncolumns: [accuracy]\nrows: [{label: a, overrides: [method=head]}]\n"
    (tmp_path / "table" / "mine.yaml").write_text(spec)
    line = ["table=mine", f"hydra.searchpath=[file://{tmp_path}]"]
    with pytest.raises(UserError, match="^table=mine: seeds is missing$"):
        read_request(line)
    assert len(read_request([*line, "seeds=2"]).planned) == 2
