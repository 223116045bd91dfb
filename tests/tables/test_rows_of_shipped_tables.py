"""The tables that come along: every row is a run that can be trained."""

import pytest

from peftbench.config.groups import read_group
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
