"""`peftbench.load` and `peftbench.runs`, as a program uses them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked
import pytest

import peftbench
from peftbench.errors import UserError
from peftbench.runs.record import Record

TEXTS = ["the film was good", "a dull and bad plot", "the plot is fine but dull"]


def test_importing_it_is_light() -> None:
    code = (
        "import sys, peftbench; assert callable(peftbench.load) and callable(peftbench.runs);"
        "from peftbench.runs.find import find_runs; assert peftbench.runs('/no/such/folder') == [];"
        "print([name for name in ('torch', 'transformers', 'numpy', 'hydra') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_predict_gives_what_training_recorded(tiny_run: Record, tiny_data_dir: Path) -> None:
    predictor = peftbench.load(tiny_run.folder, device="cpu")
    assert (predictor.labels, predictor.columns) == (["bad", "good"], ["text"])
    lines = (tiny_data_dir / "opinions" / "validation.csv").read_text().splitlines()[1:]
    answers = predictor.predict([line.rpartition(",")[0].strip('"') for line in lines])
    told = tiny_run.predictions(tiny_run.read().evaluation("validation"))
    assert [answer.prediction for answer in answers] == [("bad", "good")[index] for index in told.predictions]
    for answer, row in zip(answers, told.probabilities, strict=True):
        assert list(answer.probabilities.values()) == pytest.approx(row, abs=1e-5)


def test_order_batches_and_merging_do_not_matter(tiny_run: Record) -> None:
    whole = peftbench.load(str(tiny_run.folder.name), tiny_run.folder.parents[1], device="cpu").predict(TEXTS)
    for options in ({"batch_size": 1}, {"merged": True}):
        again = peftbench.load(tiny_run.folder, device="cpu", **options).predict(TEXTS[::-1])
        for answer, other in zip(again[::-1], whole, strict=True):
            assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    assert peftbench.load(tiny_run.folder, device="cpu").predict([]) == []


def test_an_example_without_text_has_no_prediction(tiny_run: Record) -> None:
    first, blank, last = peftbench.load(tiny_run.folder, device="cpu").predict([TEXTS[0], " ", TEXTS[1]])
    assert blank == (None, {}) and first.prediction and last.prediction


def test_pairs_and_scores(tiny_pair_run: Record, tiny_score_run: Record) -> None:
    pairs = [("the film", "a plot"), ["the film", "was fine"], ("the film", "")]
    answers = peftbench.load(tiny_pair_run.folder, device="cpu").predict(pairs)
    assert [answer.prediction is None for answer in answers] == [False, False, True]
    assert sum(answers[0].probabilities.values()) == pytest.approx(1)
    (score,) = peftbench.load(tiny_score_run.folder, device="cpu").predict(pairs[:1])
    assert isinstance(score.prediction, float) and score.probabilities == {}


def test_threads_may_share_a_predictor(tiny_run: Record) -> None:
    predictor = peftbench.load(tiny_run.folder, device="cpu")
    expected = predictor.predict(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(predictor.predict, [TEXTS] * 12):
            for answer, other in zip(answers, expected, strict=True):
                assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_script_ends_without_a_word(tiny_run: Record) -> None:
    code = f"import peftbench; model = peftbench.load({str(tiny_run.folder)!r}); print(len(model.predict(['good'])))"
    done = forked.run(["-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    ("fixture", "texts", "message"),
    [
        ("tiny_run", "one text", "predict takes a list of texts, not one string"),
        ("tiny_run", [("a", "b")], "takes a list of texts; example 0 is \"('a', 'b')\""),
        ("tiny_run", ["good", None], "example 1 is 'None'"),
        ("tiny_run", ["\ud800 good"], "takes a list of texts; example 0 is '\\ud800 good'"),
        ("tiny_run", None, "predict takes a list of texts, not NoneType"),
        ("tiny_run", {"good": "bad"}, "predict takes a list of texts, not dict"),
        ("tiny_pair_run", ["ab"], "takes a list of pairs of texts (sentence1, sentence2); example 0 is 'ab'"),
    ],
)
def test_what_is_no_list_of_examples(fixture: str, texts: object, message: str, request: pytest.FixtureRequest) -> None:
    predictor = peftbench.load(request.getfixturevalue(fixture).folder, device="cpu")
    with pytest.raises(UserError) as caught:
        predictor.predict(texts)
    assert message in str(caught.value)


def test_what_cannot_be_loaded(tiny_pair_run: Record, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No run 'lora'"):
        peftbench.load("lora", tmp_path)
    with pytest.raises(UserError, match="adapter cannot be merged"):
        peftbench.load(tiny_pair_run.folder, merged=True)
    with pytest.raises(UserError, match="batch_size=0 must be 1 or more"):
        peftbench.load(tiny_pair_run.folder, batch_size=0)


def test_runs_are_flat_dictionaries(tiny_run: Record, tiny_pair_run: Record, tmp_path: Path) -> None:
    outputs = tiny_run.folder.parents[1]
    (run,) = [run for run in peftbench.runs(outputs) if run["id"] == tiny_run.folder.name]
    result = tiny_run.read()
    assert run["folder"] == str(tiny_run.folder) and run["status"] == "finished"
    assert (run["method"], run["method.rank"], run["trainer.lr"], run["seed"]) == ("lora", 8, 0.01, 0)
    assert run["score"] == run["validation.accuracy"] == result.metrics["validation"]["accuracy"]
    assert run["parameters.method"] == result.parameters.method and run["time.train"] > 0
    assert not any(isinstance(value, dict) for value in run.values())
    assert run in peftbench.runs(outputs, {"trainer.lr": 1e-2, "method.rank": 8}, method="lora", status="finished")
    assert run not in peftbench.runs(outputs, {"trainer.lr": 1e-3})
    assert peftbench.runs(tmp_path / "none") == []


def test_a_damaged_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    (run,) = peftbench.runs(tmp_path)
    assert (run["id"], run["status"]) == ("broken", "unreadable") and "damaged" in run["error"]
