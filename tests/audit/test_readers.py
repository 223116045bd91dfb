"""Other people's files: what is read from each format, and one line for each mistake."""

import numpy as np
import pytest
from evidences import answers, write_csv, write_harness, write_peft

from peftbench.audit.read import read_evidence
from peftbench.audit.unpaired import count_examples
from peftbench.errors import UserError

TRUTHS = {"lora": 0.8, "prefix": 0.6}


def same(evidence, systems):
    assert evidence.paired
    assert list(evidence.systems) == list(systems)
    for name, values in systems.items():
        assert np.array_equal(evidence.systems[name].values, values)
        assert evidence.systems[name].scores == pytest.approx(values.mean(axis=1))


def test_a_csv_of_single_examples(tmp_path):
    systems = answers(TRUTHS, 60)
    path = write_csv(tmp_path / "scores.csv", systems)
    same(read_evidence(path), systems)
    header, *rows = path.read_text().splitlines()
    np.random.default_rng(0).shuffle(rows)
    path.write_text("\n".join([header, *rows]).replace(",", ";"), "utf-8-sig")
    shuffled = read_evidence(path)
    for name, values in systems.items():  # by their names, whatever the order
        found = shuffled.systems[name]
        assert found.scores[np.argsort(found.seeds)] == pytest.approx(values.mean(axis=1))


def test_lines_of_a_csv_may_end_in_a_carriage_return_alone(tmp_path):
    systems = answers(TRUTHS, 60)
    path = write_csv(tmp_path / "scores.csv", systems)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    same(read_evidence(path), systems)


def test_a_column_that_is_not_read_may_have_a_comma_in_its_name(tmp_path):
    systems = answers(TRUTHS, 60)
    path = write_csv(tmp_path / "scores.csv", systems)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f'{header},"notes, and ""more"""', *(f'{row},"a, b"' for row in rows)]))
    same(read_evidence(path), systems)


def test_a_csv_of_means_takes_its_deviation_over_examples(tmp_path):
    path = tmp_path / "means.csv"
    path.write_text("system,seed,score,examples,sd\na,0,31.2,400,20\na,1,30.2,400,20\nb,0,29,400,10\n")
    evidence = read_evidence(path)
    assert not evidence.paired
    assert evidence.examples == 400
    assert evidence.systems["a"].errors == pytest.approx([1, 1])
    assert evidence.systems["b"].errors == pytest.approx([0.5])


def test_harness_samples_by_model_and_seed(tmp_path):
    systems = answers(TRUTHS, 60)
    evidence = read_evidence(write_harness(tmp_path, systems, acc_norm=1.0), metric="acc")
    same(evidence, {f"org/{name}": values for name, values in systems.items()})
    assert evidence.systems["org/lora"].seeds == ["0", "1", "2"]
    assert read_evidence(tmp_path).notes == ["metric acc; --metric chooses another: acc_norm"]
    assert read_evidence(tmp_path, metric="acc_norm").systems["org/lora"].scores.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("folders", "read"),
    [
        (["ByteDance-Seed__Seed1.5", "ByteDance-Seed__Seed2.5"], {"ByteDance-Seed/Seed1.5", "ByteDance-Seed/Seed2.5"}),
        (["org__lora_seed=3", "org__linseed3"], {"org/lora", "org/linseed3"}),
        (["org__lora.Seed3.final", "org__lora-seed3b"], {"org/lora.final", "org/lora-seed3b"}),
    ],
)
def test_a_seed_is_a_word_of_its_own(tmp_path, folders, read):
    for folder, written in zip(folders, write_harness(tmp_path, answers(TRUTHS, 60, 1)).iterdir(), strict=True):
        written.rename(tmp_path / folder)
    assert set(read_evidence(tmp_path).systems) == read


def test_a_csv_may_begin_with_blank_lines(tmp_path):
    systems = answers(TRUTHS, 60)
    path = write_csv(tmp_path / "scores.csv", systems)
    path.write_text("\n  \n" + path.read_text())
    same(read_evidence(path), systems)


def test_models_of_one_name_in_several_folders_are_several(tmp_path):
    systems = answers({"llama": 0.5}, 60, seeds=2)
    for folder in ("base", "lora"):
        write_harness(tmp_path / folder, systems)
    assert set(read_evidence(tmp_path).systems) == {"base/org/llama", "lora/org/llama"}
    assert read_evidence(tmp_path).systems["base/org/llama"].seeds == ["0", "1"]


def test_seeds_may_be_folders_above_the_models(tmp_path):
    for seed in range(2):
        write_harness(tmp_path / f"seed{seed}", answers(TRUTHS, 60, seeds=1))
        for folder in list((tmp_path / f"seed{seed}").iterdir()):
            folder.rename(folder.with_name(folder.name.removesuffix("-seed0")))
    systems = read_evidence(tmp_path).systems
    assert {name: system.seeds for name, system in systems.items()} == {f"org/{name}": ["0", "1"] for name in TRUTHS}


def test_samples_may_begin_with_a_byte_order_mark(tmp_path):
    systems = answers(TRUTHS, 60)
    for path in write_harness(tmp_path, systems).rglob("*.jsonl"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    same(read_evidence(tmp_path), {f"org/{name}": values for name, values in systems.items()})


def test_older_samples_do_not_name_their_metrics(tmp_path):
    systems = answers(TRUTHS, 60)
    for path in write_harness(tmp_path, systems).rglob("*.jsonl"):
        path.write_text(path.read_text().replace('"filter": "none", "metrics": ["acc"], ', ""))
        assert "metrics" not in path.read_text()
    assert read_evidence(tmp_path).metric == "gsm8k acc"


def test_the_seed_of_samples_stands_in_the_results_beside(tmp_path):
    systems = answers(TRUTHS, 60, seeds=1)
    write_harness(tmp_path, systems)
    for folder in list(tmp_path.iterdir()):
        (folder / "results_2025-06-19T19-15-35.123456.json").write_text('{"config": {"random_seed": 7}}')
        folder.rename(tmp_path / folder.name.replace("-seed0", ""))
    assert [system.seeds for system in read_evidence(tmp_path).systems.values()] == [["7"], ["7"]]


def test_peft_results_have_the_number_of_examples_inferred(tmp_path):
    scores = {"lora/rank32": 636 / 1319, "ia3/default": 541 / 1319}
    write_peft(tmp_path, scores)
    write_peft(tmp_path, {"lora/rank32": 640 / 1319}, seed=1)
    write_peft(tmp_path, {"oft/broken": 0.1}, status="failed")
    evidence = read_evidence(tmp_path)
    assert evidence.examples == 1319
    assert not evidence.paired
    assert evidence.systems["lora/rank32"].scores == pytest.approx([636 / 1319, 640 / 1319])
    assert evidence.systems["ia3/default"].errors == pytest.approx([(0.41 * 0.59 / 1319) ** 0.5], rel=1e-2)
    assert any("1,319" in note for note in evidence.notes)
    assert any("oft--broken-0.json" in note for note in evidence.notes)
    assert read_evidence(tmp_path, examples=2638).examples == 2638


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        ([3 / 7, 1 / 7], 7),
        ([1 / 3, 1 / 2], 6),
        ([0.482, 0.41], None),  # rounded: of 1,000, or of anything
        ([0.4821834, 0.41], None),
        ([1.0, 0.0], None),
    ],
)
def test_how_many_examples_shares_are_of(scores, count):
    assert count_examples(scores) == count


def faulty_csv(edit):
    def write(folder):
        path = write_csv(folder / "scores.csv", answers(TRUTHS, 60))
        path.write_bytes(edit(path.read_text()).encode() if not isinstance(edit, bytes) else edit)
        return path

    return write


def text(content, name="scores.csv"):
    def write(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return write


def two_scales(folder):
    return write_csv(folder / "scores.csv", {"a": np.full((1, 60), 0.8), "b": np.full((1, 60), 80.0)}, "score")


def other_documents(folder):
    write_harness(folder, answers(TRUTHS, 60, seeds=1))
    path = next(path for path in folder.rglob("*.jsonl") if "prefix" in str(path))
    path.write_text(path.read_text().replace('"h3"', '"other"'))
    return folder


def torn_samples(folder):
    write_harness(folder, answers(TRUTHS, 60, seeds=1))
    path = next(folder.rglob("*.jsonl"))
    path.write_text(path.read_text()[:-20])
    return folder


def huge_samples(folder):
    write_harness(folder, answers(TRUTHS, 60, seeds=1))
    path = next(folder.rglob("*.jsonl"))
    path.write_text(path.read_text().replace('"acc": 1.0', f'"acc": 1{"0" * 400}', 1))
    return folder


def a_seed_a_row(folder):
    rows = "".join(f"{'ab'[row % 2]},{row},e{row},1\n" for row in range(200_000))
    return text(f"system,seed,example,correct\n{rows}")(folder)


def twice_an_experiment(folder):
    write_peft(folder, {"lora/a": 1 / 61, "lora/b": 3 / 61})
    content = (folder / "lora--a-0.json").read_text()
    (folder / "lora--a-again.json").write_text(content)
    return folder


def evaluated_twice(folder):
    write_harness(folder, answers(TRUTHS, 60, seeds=1))
    for model in folder.iterdir():
        written = next(model.iterdir())
        for day in ("20", "21"):
            at = f"2025-06-{day}T10-00-00.1"
            (model / f"samples_gsm8k_{at}.jsonl").write_bytes(written.read_bytes())
            (model / f"results_{at}.json").write_text('{"config": {"random_seed": 0}}')
        written.unlink()
        model.rename(folder / model.name.replace("-seed0", ""))
    return folder


def means(rows):
    return text(f"system,seed,score,examples\n{rows}\n")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: folder, "is empty"),
        (lambda folder: folder / "absent", "no such file or folder"),
        (text(b"\x89PNG", "plot.png"), "unknown format"),
        (lambda folder: text('{"a": 1}', "a.json")(folder).parent, "unknown format"),
        (lambda folder: write_peft(folder / "results", {"a": 0.5, "b": 0.5}).parent, "results?"),
        (faulty_csv(lambda content: content.replace("system,", "sistem,")), "no column 'system'. Did you mean sistem?"),
        (faulty_csv(lambda content: content.replace("correct", "right")), "no column 'score'"),
        (faulty_csv(lambda content: content.replace("example,", "item,")), "neither a column 'example'"),
        (faulty_csv(lambda content: "\n".join(content.splitlines()[:181])), "one system only, lora"),
        (lambda folder: write_csv(folder / "few.csv", answers(TRUTHS, 49)), "too few examples to judge by, 49: it"),
        (faulty_csv(lambda content: "\n".join(content.splitlines()[:-1])), "seed 2 lacks 1 of 60 examples, 'e59'"),
        (faulty_csv(lambda content: content + "lora,1,e7,1\n"), "lora, seed 1 has example 'e7' 2 times"),
        (faulty_csv(lambda content: content + "lora,1,e7\n"), "got 3"),
        (faulty_csv(lambda content: content.replace("lora,1,e7,", "lora,1,e7,NaN")), "correct is 'NaN"),
        (faulty_csv(lambda content: content.replace("correct", "score").replace("a,1,e7,", "a,1,e7,NaN#")), "NaN"),
        (faulty_csv(lambda content: content.replace("lora,1,e7,", ",1,e7,")), "a row has no system"),
        (text("system,score,examples\na,0.8,400\nb,good,400"), "score is 'good' in a row, which is no number"),
        (text("system,example,correct\na,0,1\na,0,1\n"), "or tell runs apart by a column seed"),
        (text(""), "empty"),
        (text("system,seed,example,correct\n"), "no row below"),
        (text("system,seed,example,correct\nb\xe9t,0,1,1\n".encode("latin-1")), "not UTF-8"),
        (text("system,seed,example,correct\nb\xe9t,0,1,1\n".encode("utf-16")), "not UTF-8"),
        (two_scales, "two scales: a, seed 0 has 0.8, b, seed 0 80"),
        (means("a,0,81.5,400\nb,0,80,400"), "no share of right answers"),
        (means("a,0,0.8,400\na,0,0.81,400"), "two rows of one seed"),
        (text("system,score,examples\na,0.8,400\na,0.81,400"), "of one seed: keep one row of each, or tell runs"),
        (means("a,0,0.8,400\nb,0,0.81,300"), "one whole number for all"),
        (means(f"a,0,0.8,{'9' * 400}\nb,0,0.81,{'9' * 400}"), "below 10^12"),
        (means(f"a,0,0.8,{'9' * 5000}\nb,0,0.81,{'9' * 5000}"), "below 10^12"),
        (faulty_csv(lambda content: content.replace("correct", "score").replace("e7,", "e7,1e30")), "too extreme"),
        (lambda folder: write_csv(folder / "s.csv", {"a": np.full((1, 60), 1e-300), "b": np.zeros((1, 60))}, "score"),
         "too extreme"),
        (text("system,score,examples,sd\na,80,400,0\nb,81,400,1"), "sd must be above 0"),
        (other_documents, "document 3 of"),
        (torn_samples, "is no JSON"),
        (evaluated_twice, "keep one of samples_gsm8k_2025-06-20T10-00-00.1.jsonl, samples_gsm8k_2025-06-21T10-00-00.1"),
        (huge_samples, "is NaN or infinite"),
        (a_seed_a_row, "a, seed 0 lacks 199,999 of 200,000 examples, 'e1' among them"),
        (text(f"system,seed,example,{'correct' * 20_000}\n"), "line 1: field larger than field limit"),
        (lambda folder: write_peft(folder, {"a": 10**400, "b": 0.41}), "test accuracy is 1000000000"),
        (twice_an_experiment, "lora/a, seed 0 is there more than once"),
        (lambda folder: write_peft(folder, {"a": 0.48, "b": 0.41}), "--examples N does"),
        (lambda folder: write_peft(folder, {"a": float("nan"), "b": 0.41}), "which is no score"),
        (lambda folder: write_peft(folder, {"a": 0.7, "b": 0.4}, metric="drift"), "no finished run has a score"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(write, words, tmp_path):
    with pytest.raises(UserError) as error:
        read_evidence(write(tmp_path))
    message = str(error.value)
    assert words in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_an_option_that_a_format_has_no_use_for(tmp_path):
    path = write_csv(tmp_path / "scores.csv", answers(TRUTHS, 60))
    with pytest.raises(UserError, match="--metric is not for"):
        read_evidence(path, metric="acc")
    with pytest.raises(UserError, match="no metric 'ac'. Did you mean acc?"):
        read_evidence(write_harness(tmp_path / "samples", answers(TRUTHS, 60)), metric="ac")
