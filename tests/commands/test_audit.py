"""`peftbench audit`: known winners are found, known ties are not told apart, from files of every format."""

import csv
import io
import json
import re
import time

import numpy as np
import pytest
from evidences import answers, write_csv, write_harness, write_peft
from scipy.stats import binomtest

from peftbench.cli import main

EQUAL = {"lora": 0.84, "prefix": 0.84, "ia3": 0.84}


def audited(capsys, *words):
    """Return the table as JSON has it."""
    assert main(["audit", *map(str, words), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def told_apart(table):
    return {(pair["row"], pair["other"]) for pair in table["pairs"] if not pair["low"] <= 0 <= pair["high"]}


def test_a_winner_is_found_and_ties_are_not_told_apart(tmp_path, capsys):
    systems = answers({**EQUAL, "full": 0.9}, 4000, seed_sd=0.002)
    table = audited(capsys, write_csv(tmp_path / "scores.csv", systems))
    assert table["rows"][0]["label"] == "full"
    assert {frozenset(pair) for pair in told_apart(table)} == {frozenset(("full", name)) for name in EQUAL}
    for row in table["rows"]:
        assert row["cells"]["score"]["value"] == pytest.approx(100 * systems[row["label"]].mean())
    groups = {row["label"]: row["group"] for row in table["rows"]}
    assert groups["full"] == "a" and {groups[name] for name in EQUAL} == {"b"}
    best = {row["label"]: row["cells"]["p_best"]["value"] for row in table["rows"]}
    assert best["full"] > 99 and sum(best.values()) == pytest.approx(100)
    assert main(["audit", str(tmp_path / "scores.csv")]) == 0
    shown = capsys.readouterr().out
    assert "of 3 neighbours in this order 1" in shown
    assert "paired" in shown and "3 seeds, n = 4,000 examples of scores.csv" in shown
    assert "one run alone" not in shown


def test_a_single_run_costs_systems_with_seeds_no_certainty(tmp_path, capsys):
    systems = answers({"full": 0.9, "lora": 0.84, "ia3": 0.84}, 4000, seeds=5, seed_sd=0.004)
    several = audited(capsys, write_csv(tmp_path / "several.csv", systems))
    systems["lora"] = systems["lora"][:1]
    one = audited(capsys, write_csv(tmp_path / "one.csv", systems))
    for table in (several, one):
        assert frozenset(("full", "lora")) in {frozenset(pair) for pair in told_apart(table)}


def test_pairing_finds_what_means_alone_do_not(tmp_path, capsys):
    systems = answers({"full": 0.86, "lora": 0.84}, 2500, seeds=1)
    paired = audited(capsys, write_csv(tmp_path / "scores.csv", systems))
    rows = [f"{name},{values.mean()},2500" for name, values in systems.items()]
    (tmp_path / "means.csv").write_text("\n".join(["system,score,examples", *rows]))
    unpaired = audited(capsys, tmp_path / "means.csv")
    widths = [table["pairs"][0]["high"] - table["pairs"][0]["low"] for table in (paired, unpaired)]
    # right on one example rather than the other: the variance of the difference, in the closed form
    expected = 100 * 2 * 1.96 * np.std(systems["full"] - systems["lora"]) / 50
    assert widths[0] == pytest.approx(expected, rel=0.04)
    assert widths[1] > 1.4 * widths[0]
    assert any(line.startswith("unpaired") for line in unpaired["reading"])
    assert "pairs" not in paired["conclusion"], "one pair is no list of pairs"
    for table in (paired, unpaired):
        assert any("cannot be known from one" in line for line in table["reading"])


def test_peft_results_of_one_seed(tmp_path, capsys):
    ties = {f"lora/rank{rank}": (640 - rank) / 1319 for rank in range(20)}
    folder = write_peft(tmp_path / "results", {**ties, "prefix/default": 200 / 1319})
    table = audited(capsys, folder)
    assert {name for pair in told_apart(table) for name in pair} == {*ties, "prefix/default"}
    assert not any(set(pair) <= set(ties) for pair in told_apart(table))
    assert "of 20 neighbours in this order 1." in table["conclusion"]
    pair = next(pair for pair in table["pairs"] if (pair["row"], pair["other"]) == ("lora/rank0", "lora/rank19"))
    # what it takes at that width: 1.44 points apart of a standard error of 1.94, by the range of 21 and a power of 80 %
    width = (pair["high"] - pair["low"]) / 2 / 1.94
    assert pair["needs_examples"] == pytest.approx(1319 * ((width + 0.84) * 1.94 / 1.44) ** 2, rel=0.03)
    assert main(["audit", str(folder), "--format", "markdown"]) == 0
    markdown = capsys.readouterr().out
    assert "n = 1,319 is inferred" in markdown and "every system" in markdown
    assert main(["audit", str(folder), "--format", "all", "--output", str(tmp_path / "audit")]) == 0
    page = (tmp_path / "audit" / "table.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert len(data["intervals"]) == 21
    first = data["intervals"][0]
    assert first["score_high"] - first["score"] == pytest.approx(1.96 * 1.376, rel=0.03)
    assert (tmp_path / "audit" / "score-intervals.svg").is_file()
    assert "examples would decide, if seeds did not matter" in markdown and "and 7 others" in markdown


def test_systems_that_answer_alike_are_not_different(tmp_path, capsys):
    values = answers({"full": 0.84}, 3000, seeds=1)["full"]
    path = write_csv(tmp_path / "scores.csv", {"full": values, "same": values})
    (pair,) = audited(capsys, path)["pairs"]
    assert pair["verdict"] == "not different" and pair["low"] < 0 < pair["high"]
    assert audited(capsys, path, "--delta", "0.01")["pairs"][0]["verdict"] == "cannot be told"


@pytest.mark.parametrize(("differing", "verdict"), [(5, "not different"), (6, "better")])
def test_few_examples_are_judged_as_by_the_exact_sign_test(tmp_path, capsys, differing, verdict):
    assert (binomtest(differing, differing).pvalue < 0.05) == (verdict == "better")
    right = np.ones((1, 2000), int)
    wrong = right.copy()
    wrong[0, :differing] = 0
    path = write_csv(tmp_path / "scores.csv", {"full": right, "lora": wrong})
    assert audited(capsys, path)["pairs"][0]["verdict"] == verdict


def test_intervals_end_where_scores_can_end(tmp_path, capsys):
    collapsed = np.repeat([[1], [0]], 200, axis=1)
    systems = {**answers({"full": 0.9}, 200, seeds=2), "wild": collapsed}
    table = audited(capsys, write_csv(tmp_path / "scores.csv", systems))
    cells = {row["label"]: row["cells"] for row in table["rows"]}
    (pair,) = table["pairs"]
    assert {abs(pair["low"]), abs(pair["high"])} == {100}
    assert (cells["wild"]["score"]["low"], cells["wild"]["score"]["high"]) == (0, 100)


def test_one_run_beside_several_is_said(tmp_path, capsys):
    folder = write_peft(tmp_path, {"lora": 636 / 1319, "full": 640 / 1319})
    write_peft(folder, {"lora": 630 / 1319}, seed=1)
    table = audited(capsys, folder)
    assert any("one run alone of full" in line for line in table["reading"])
    (pair,) = table["pairs"]
    assert pair["single"] and pair["verdict"] == "cannot be told" and pair["needs_seeds"] is None


def test_every_format_of_samples(tmp_path, capsys):
    folder = write_harness(tmp_path / "samples", answers({"full": 0.9, "lora": 0.7}, 400))
    for name in ("markdown", "csv", "latex", "html"):
        assert main(["audit", str(folder), "--format", name]) == 0
        text = capsys.readouterr().out
        assert "org/full" in text
        if name == "csv":
            rows = {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(text))}
            assert rows["org/lora", "difference"]["differs"] == "True"


def test_a_large_file_takes_seconds(tmp_path, capsys):
    path = tmp_path / "large.csv"
    examples, systems, seeds = 20_000, 10, 3
    ends = np.char.mod("%d", np.arange(examples))
    right = np.random.default_rng(0).integers(0, 2, (systems, seeds, examples)).astype(str)
    with path.open("w") as file:
        file.write("system,seed,example,correct\n")
        for system in range(systems):
            for seed in range(seeds):
                ends_of_rows = np.char.add(np.char.add(ends, ","), right[system, seed])
                file.writelines(f"s{system},{seed},{end}\n" for end in ends_of_rows)
    start = time.process_time()
    audited(capsys, path)
    assert time.process_time() - start < 5


def test_what_is_read_is_not_written_over(tmp_path, capsys):
    path = write_csv(tmp_path / "table.csv", answers({"full": 0.9, "lora": 0.8}, 100))
    (tmp_path / "link.csv").symlink_to(path)
    results = tmp_path / "results"
    write_peft(results, {"lora": 0.5, "ia3": 0.4})
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    for source, form, output in (
        (path, "csv", path),
        (path, "csv", tmp_path / "link.csv"),
        (tmp_path / "link.csv", "json", path),
        (path, "all", tmp_path),
        (results, "json", next(results.iterdir())),
        (results, "json", results / "new.json"),
        (path, "markdown", tmp_path / "mine.yaml"),
    ):
        assert main(["audit", str(source), "--format", form, "--output", str(output)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--output {output}: " in line
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before


def test_mistakes_are_one_line(tmp_path, capsys):
    path = write_csv(tmp_path / "scores.csv", answers({"full": 0.9}, 100))
    assert main(["audit", str(path)]) == 2
    assert "one system only" in capsys.readouterr().err
    assert main(["audit", str(path), "--format", "pdf"]) == 2
    assert main(["audit", str(tmp_path), "--examples", "none"]) == 2
    assert main(["audit", str(tmp_path), "--delta", "1e-300"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (
        len(lines) == 3
        and "--delta 1e-300 must be a number of points from 0.001" in lines[2]
        and "no format 'pdf'" in lines[0]
        and "--examples none" in lines[1]
    )
