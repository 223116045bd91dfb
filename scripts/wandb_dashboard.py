"""Lay out the dashboard of a Weights & Biases project: score against share, learning curves, latency, tables.

    pip install 'peftbench[dashboard]'
    python scripts/wandb_dashboard.py --project peftbench

Saves a view of the project's workspace and prints its address. Runs logged with `logger=wandb` fill it.
"""

import argparse
import sys
from typing import TYPE_CHECKING

import wandb

from peftbench.errors import UserError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

# a run's job type is its method
METHOD = "JobType"
SCORES = {"accuracy": "Accuracy", "f1": "F1"}


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        print(save(args.entity, args.project, args.name))
    except UserError as error:
        print(f"wandb_dashboard: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--entity", help="user or team (default: that of the key)")
    parser.add_argument("--project", default="peftbench")
    parser.add_argument("--name", default="peftbench", help="the view's name")
    return parser.parse_args(argv)


def save(entity: str | None, project: str, name: str) -> str:
    """Save the view and return its address; raises UserError without the library, a key or a network."""
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise UserError("wandb-workspaces is missing: pip install 'peftbench[dashboard]'") from error
    try:
        entity = entity or wandb.Api().default_entity
        if not entity:
            raise UserError("the key has no user or team of its own: name one with --entity")
        return str(build_workspace(entity, project, name).save().url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise UserError(f"cannot save the dashboard: {str(error).strip().splitlines()[0]}") from error


def build_workspace(entity: str, project: str, name: str) -> "Workspace":
    """Return the view, unsaved."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def scatter(x: str, title_x: str, score: str) -> wr.ScatterPlot:
        y = wr.SummaryMetric(f"validation/{score}")
        return wr.ScatterPlot(title=f"{SCORES[score]} against {title_x}", x=wr.SummaryMetric(x), y=y)

    def curve(title: str, metric: str) -> wr.LinePlot:
        return wr.LinePlot(title=title, y=[metric], groupby=METHOD, groupby_aggfunc="mean", groupby_rangefunc="minmax")

    def bars(title: str, metric: str, unit: str) -> wr.BarPlot:
        return wr.BarPlot(
            title=title,
            metrics=[metric],
            title_x=unit,
            groupby=METHOD,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )

    share, latency = "figures/share", "figures/latency"
    panels = {
        "Score against cost": [
            *(scatter(share, "parameter share (%)", score) for score in SCORES),
            *(scatter(latency, "latency (× bare backbone)", score) for score in SCORES),
        ],
        "Learning curves": [
            *(curve(f"{title} on validation", f"validation/{score}") for score, title in SCORES.items()),
            curve("Training loss", "train/loss"),
        ],
        "Latency": [
            bars("Latency at batch 1", latency, "× bare backbone"),
            bars("Latency at batch 1, merged", "figures/latency_merged", "× bare backbone"),
        ],
        "Parameter share": [
            bars("Parameter share", share, "% of the backbone"),
            bars("Trained parameters", "figures/trained", "parameters"),
        ],
        "Tables": [
            wr.WeavePanelSummaryTable(table_name="table"),
            wr.MediaBrowser(
                title="Plots of the tables",
                media_keys=["plots/score-by-share", "plots/score-by-latency", "plots/learning-curves"],
            ),
        ],
    }
    two = ws.SectionLayoutSettings(columns=2, rows=2)
    sections = [
        ws.Section(name=title, panels=section, is_open=True, layout_settings=two) for title, section in panels.items()
    ]
    # groups of all seeds and methods are to be whole
    settings = ws.WorkspaceSettings(max_runs=100)
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections, settings=settings)


if __name__ == "__main__":
    sys.exit(main())
