"""The tables that ship: readable, the same as docs/results shows, and made from any table."""

import pytest
from conftest import ROOT
from planted import plant

from peftbench.advice.advise import Query, advise
from peftbench.advice.comparison import PUBLISHED, SHIPPED, TEXT_TYPES
from peftbench.advice.shipped import FOLDER, read_comparison, read_shipped, to_comparison, write_comparison
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.runs.record import Record
from peftbench.tables.build import build_table
from peftbench.tables.collect import PlannedRun, collect
from peftbench.tables.columns import COLUMNS
from peftbench.tables.spec import read_spec
from peftbench.tables.table import format_cell, heading

MEASURED = sorted(path for path in FOLDER.rglob("*.json") if path.parent.name != "published")


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_a_shipped_table_is_what_the_docs_show(path):
    comparison = read_comparison(path)
    lines = (ROOT / "docs" / "results" / path.parent.name / f"{path.stem}.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    columns = {heading(column): column for column in COLUMNS.values()}
    shown = 0
    for candidate in comparison.candidates:
        (row,) = [cells for cells in table if cells[0] == candidate.label and len(cells) == len(table[0])]
        for title, text in zip(table[0], row, strict=True):
            column = columns.get(title)
            if column is not None and column.key in candidate.cells:
                assert format_cell(candidate.cells[column.key], column) == text.replace("**", "")
                shown += 1
    assert shown > 10


def test_what_ships_has_scores_and_commands_that_compose():
    for comparison in read_shipped():
        assert comparison.kind in (SHIPPED, PUBLISHED)
        for candidate in comparison.candidates:
            assert comparison.primary in candidate.cells
            assert bool(candidate.overrides) == (comparison.kind == SHIPPED)
        if comparison.kind == SHIPPED:
            config = resolve(compose(comparison.candidates[0].overrides))
            assert config.method_name == comparison.candidates[0].method["name"]
            assert (config.model.name, config.task.name) == (comparison.model, comparison.task)


def test_a_table_becomes_a_shipped_one(tmp_path):
    planned = []
    for label, method, accuracies in (
        ("full", {"name": "full"}, (0.85, 0.84)),
        ("LoRA", {"name": "lora"}, (0.7, 0.71)),
    ):
        for seed, record in enumerate(plant(tmp_path, method, accuracies, share=0.01)):
            overrides = [f"method={method['name']}", "output_dir=/elsewhere", f"seed={seed}"]
            planned.append(PlannedRun(label, seed, overrides, record.config(), record.folder))
    raw = {
        "title": "Made",
        "base": [],
        "baseline": "full",
        "columns": ["accuracy"],
        "rows": [{"label": label, "overrides": []} for label in ("full", "LoRA", "missing")],
    }
    missing = PlannedRun("missing", 0, [], planned[0].config, tmp_path / "none")
    found = collect([*planned, missing])
    table = build_table(read_spec("made", raw, 2), found, "peftbench sweep table=made")
    made = to_comparison(table, found)
    write_comparison(made, tmp_path / "tables" / "a" / "made.json")
    (read,) = read_shipped(tmp_path / "tables")
    assert read == made
    assert [one.label for one in read.candidates] == ["full", "LoRA"]
    assert read.candidates[1].overrides == ["method=lora"]
    assert read.difference("LoRA", "full").high < -5
    assert (read.task_type, read.training_rows, read.seeds, read.backbone) == ("pair", 3668, 2, 100_000)
    assert read.made == Record(planned[0].folder).read().finished[:10]
    with pytest.raises(UserError, match="has no finished runs: peftbench sweep table=made"):
        to_comparison(table, [missing_run for missing_run in found if not missing_run.used])


def test_a_damaged_table_is_one_line(tmp_path):
    (tmp_path / "bad.json").write_text('{"kind": 3}')
    with pytest.raises(UserError, match=r"bad\.json cannot be read: bad\.json\.kind holds '3'"):
        read_shipped(tmp_path)


def test_of_pictures_no_figures_of_texts_are_set_beside_the_answer(tmp_path):
    asked = advise(Query(task_type="segmentation", size=370), tmp_path)
    assert asked[0].answer.comparison.task == "camvid" and asked[0].answer.best.label == "ViT-Adapter, ViT frozen"
    assert (
        not any(advice.other_sources or advice.verdicts for advice in asked)
        and "of texts: left out" in asked[0].notes[0]
    )
    (found, *_) = advise(Query(size=370), tmp_path)
    assert found.answer.comparison.task_type in TEXT_TYPES and found.other_sources, (
        "of texts where no type is asked for"
    )
