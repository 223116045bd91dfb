"""The dashboard shows nothing but what runs and tables log, and says in one line why it cannot be saved."""

import sys
from collections.abc import Iterator

import pytest
from made_table import made_table
from wandb.errors import CommError
from wandb_log import read_logs

from peftbench.config.schema import LoggerConfig
from peftbench.loggers.wandb_table import log_table
from peftbench.tables.export.plots import save_plots
from scripts.wandb_dashboard import build_workspace, main

ws = pytest.importorskip("wandb_workspaces.workspaces")
wr = pytest.importorskip("wandb_workspaces.reports.v2")


@pytest.fixture
def workspace():
    return build_workspace("somebody", "peftbench", "peftbench")


def panels(workspace) -> Iterator:
    for section in workspace.sections:
        yield from section.panels


def test_panels_show_only_what_is_logged(workspace, train_tiny, tmp_path):
    line = ["method=lora", "logger=wandb", "logger.mode=offline", "measure.latency=true", "measure.seconds=0.02"]
    record = train_tiny("pairs", *line, "measure.batches=[1]", "measure.lengths=[8]")
    log_table(made_table(), save_plots(made_table(), tmp_path, ["png"]), LoggerConfig("wandb", mode="offline"), "lab")
    (run,), (table,) = read_logs(record.folder), read_logs(tmp_path)

    metrics, media, tables = set(), set(), set()
    for panel in panels(workspace):
        if isinstance(panel, wr.ScatterPlot):
            metrics |= {panel.x.name, panel.y.name}
        elif isinstance(panel, wr.LinePlot):
            assert any(panel.y[0] in row for row in run.rows)
            metrics |= set(panel.y)
        elif isinstance(panel, wr.BarPlot):
            metrics |= set(panel.metrics)
        elif isinstance(panel, wr.MediaBrowser):
            media |= set(panel.media_keys)
        else:
            tables.add(panel.table_name)
    assert {"validation/accuracy", "validation/f1", "figures/share", "figures/latency"} <= metrics
    assert all(isinstance(run.summary[key], int | float) for key in metrics)
    assert media == {key for key in table.summary if key.startswith("plots/")}
    assert {table.summary[key]["_type"] for key in tables} == {"table-file"}


def test_what_is_asked_for_is_there(workspace):
    pairs = {(panel.x.name, panel.y.name) for panel in panels(workspace) if isinstance(panel, wr.ScatterPlot)}
    assert {("figures/share", "validation/accuracy"), ("figures/share", "validation/f1")} <= pairs
    grouped = [panel for panel in panels(workspace) if isinstance(panel, wr.LinePlot | wr.BarPlot)]
    assert {panel.groupby for panel in grouped} == {"JobType"}  # a run's job type is its method
    # what is sent to wandb names the server's own fields
    sent = workspace._to_model().model_dump_json(by_alias=True)
    assert '"groupBy":"jobType"' in sent and '"xAxis":"summary:figures/share"' in sent


def test_saving_sends_the_view_and_prints_its_address(monkeypatch, capsys):
    def save(workspace):
        workspace._internal_name = f"nw-{workspace.entity}-v"
        return workspace

    monkeypatch.setattr(ws.Workspace, "save", save)
    monkeypatch.setattr(ws.Workspace, "url", property(lambda workspace: f"https://w/{workspace._internal_name}"))
    assert main(["--entity", "somebody"]) == 0
    assert capsys.readouterr().out == "https://w/nw-somebody-v\n"


def test_without_a_key_one_line_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "No API key" in captured.err and "wandb login" in captured.err
    assert not captured.out


def test_without_a_network_one_line_says_so(monkeypatch, capsys):
    def save(workspace):
        raise CommError("Failed to verify credentials: no route to host\nand much more")

    monkeypatch.setattr(ws.Workspace, "save", save)
    assert main(["--entity", "somebody"]) == 2
    expected = "wandb_dashboard: cannot save the dashboard: Failed to verify credentials: no route to host\n"
    assert capsys.readouterr().err == expected


def test_without_the_library_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "wandb_dashboard: wandb-workspaces is missing: pip install 'peftbench[dashboard]'\n"
    )
