"""Plots: the Pareto front, what is drawn of a table, and that the same table gives the same bytes."""

from dataclasses import replace

from made_table import made_table

from peftbench.tables.export.html import to_html
from peftbench.tables.export.plot_data import CEILING, curves, pareto_front, scatter, tuning_curves
from peftbench.tables.export.plots import save_plots
from peftbench.tables.table import Cell, Tuned


def test_the_pareto_front_is_what_nothing_beats():
    points = [(1.0, 70.0), (2.0, 80.0), (2.0, 79.0), (3.0, 78.0), (9.0, 90.0), (1.0, 69.0)]
    assert pareto_front(points) == [0, 1, 4]
    assert pareto_front([(1.0, 5.0), (1.0, 5.0)]) == [0, 1]
    assert pareto_front([]) == []


def test_rows_without_both_figures_are_left_out():
    table = made_table()
    labels = [point.label for point in scatter(table, "latency").points]
    with_both = [
        row.label
        for row in table.rows
        if row.cells.get("accuracy") and row.cells.get("latency")
        if row.cells["accuracy"].value is not None and row.cells["latency"].value is not None
    ]
    assert labels == with_both and 2 <= len(labels) < len(table.rows)


def test_shares_over_decades_are_on_a_logarithmic_axis():
    data = scatter(made_table(), "share")
    assert data.log and data.zero and data.position(0) == data.zero < min(p.cost for p in data.points if p.cost > 0)
    assert not scatter(made_table(), "latency").log


def test_one_interval_far_wider_than_the_others_does_not_squeeze_them():
    table = made_table()

    def with_intervals(*halves):
        rows = [
            replace(row, cells={"accuracy": Cell(80.0 + number, None, 3, 80.0 + number - half, 80.0 + number + half)})
            for number, (row, half) in enumerate(zip(table.rows[:3], halves, strict=True))
        ]
        rows = [replace(row, cells={**row.cells, "share": Cell(1.0 + number)}) for number, row in enumerate(rows)]
        return scatter(replace(table, rows=rows, ceiling=None), "share").shown

    assert with_intervals(2, 2, 4) == (78, 86), "all of them are in it"
    assert with_intervals(2, 80, 2) == (75, 87), "what reaches further than three times the typical one runs out"


def test_curves_are_means_over_the_used_runs():
    full = next(curve for curve in curves(made_table()) if curve.label == "Full fine-tuning")
    epoch, mean, low, high, runs = full.epochs[-1]
    assert (epoch, runs) == (3, 3)
    assert (round(mean, 6), round(low, 6), round(high, 6)) == (86.0, 85.0, 87.0)


def test_files_are_written_and_the_same_each_time(tmp_path):
    first = save_plots(made_table(), tmp_path / "a")
    again = save_plots(made_table(), tmp_path / "b")
    names = {"score-by-share", "score-by-latency", "learning-curves"}
    assert {path.name for path in first} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert (
        first[0].read_bytes().startswith(b"\x89PNG") and b"<svg" in (tmp_path / "a" / "score-by-share.svg").read_bytes()
    )


def test_letters_that_the_font_lacks_are_no_warning(tmp_path, recwarn):
    table = made_table()
    rows = [replace(row, label=f"{row.label} \u65e5\u672c") for row in table.rows]
    assert save_plots(replace(table, rows=rows), tmp_path, ["svg"])
    assert not recwarn.list


def test_how_rows_were_tuned_is_a_curve(tmp_path):
    tuned = [Tuned("Full fine-tuning", ["trainer.lr=1e-4"], [80.0, 84.0], 0, [82.0, 83.0])]
    table = replace(made_table(), tuning=[*tuned, Tuned("LoRA, r = 8", [], [], 2, [])])
    (curve,) = tuning_curves(table)
    assert table.rows[curve.row].label == curve.label == "Full fine-tuning"
    assert [(trials, best) for trials, best, *_ in curve.epochs] == [(1, 82.0), (2, 83.0)]
    assert (tmp_path / "tuning-curves.svg") in save_plots(table, tmp_path, ["svg"])
    assert '"tuning": [{' in to_html(table) and "all trials failed" in to_html(table)


def test_a_plot_without_data_is_not_written(tmp_path):
    table = made_table()
    rows = [replace(row, cells={k: c for k, c in row.cells.items() if k != "latency"}) for row in table.rows]
    files = save_plots(replace(table, rows=rows), tmp_path, ["svg"])
    assert {path.name for path in files} == {"score-by-share.svg", "learning-curves.svg"}


def test_the_score_of_human_raters_is_a_line_where_it_is_known(tmp_path):
    known, unknown = made_table(), replace(made_table(), ceiling=None)
    for number, table in enumerate((known, unknown)):
        save_plots(table, tmp_path / str(number), ["svg"])
    svgs = [(tmp_path / str(number) / "score-by-share.svg").read_text() for number in (0, 1)]
    assert [CEILING in svg for svg in svgs] == [True, False]
