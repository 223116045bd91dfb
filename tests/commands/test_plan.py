"""`peftbench plan`: from records, or from stated assumptions where there are none; mistakes in one line."""

import pytest

from peftbench.cli import main

TWO = """
title: Two rows
base: [model=minilm, task=mrpc, trainer.epochs=1]
seeds: 3
baseline: head
columns: [accuracy]
rows:
  - {label: head, overrides: [method=head]}
  - {label: BitFit, overrides: [method=bitfit]}
"""


@pytest.fixture
def plan(tmp_path, tiny_data_dir, capsys):
    """A function that plans a table of two rows with more settings and returns exit code, output and error."""
    (tmp_path / "conf" / "table").mkdir(parents=True)
    (tmp_path / "conf" / "table" / "two.yaml").write_text(TWO)
    (tmp_path / "conf" / "table" / "one.yaml").write_text(TWO.rpartition("  - ")[0])

    def plan(*settings, table="two"):
        where = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", f"output_dir={tmp_path / 'outputs'}"]
        data = f"task.dir={tiny_data_dir / 'pairs'}"
        code = main(["plan", f"table={table}", *where, *([] if "task.dir" in str(settings) else [data]), *settings])
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), err

    return plan


def test_without_any_run_it_says_what_it_assumes(plan, tmp_path):
    code, out, _ = plan("--plot", str(tmp_path / "plan.svg"), "seeds=4")
    assert code == 0 and "Two rows: 2 rows, minilm on mrpc, accuracy on" in out and "examples of validation" in out
    assert "assumed, for no two rows have two seeds yet: two rows differ on 13 % of the examples" in out
    assert "durations: not known" in out and "To tell 1 point: no number of seeds does" in out
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")


def test_without_data_it_assumes_their_number_and_says_why(plan):
    """It asks nobody on the network either."""
    code, out, _ = plan("task.dir=/nowhere")
    assert code == 0 and "accuracy on 1,000 examples" in out and "assumed: 1,000 examples, for " in out


@pytest.mark.parametrize(
    "settings, table, expected",
    [
        (["--plot", "plan.pdf"], "two", "--plot plan.pdf must end in .svg or .png"),
        (["table.delta=0"], "two", "table=two: table.delta=0 must be a number of points above 0"),
        (["seeds=0"], "two", "seeds=0 must be a number of seeds"),
        ([], "one", "table=one has one row: there is nothing to tell it from"),
        ([], "tow", "table=tow: there is no such table. Choose from"),
    ],
)
def test_mistakes(plan, settings, table, expected):
    code, _, error = plan(*settings, table=table)
    assert code == 2 and expected in error and error.count("\n") == 1
