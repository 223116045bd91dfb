"""Numbers against scikit-learn and SciPy."""

import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from peftbench.errors import UserError
from peftbench.tables.columns import SCORES
from peftbench.tasks import metrics
from peftbench.tasks.classification import Classification
from peftbench.tasks.detection import average_precision
from peftbench.tasks.metrics import score
from peftbench.tasks.regression import Regression
from peftbench.tasks.segmentation import confusion

CLASSES = ["accuracy", "f1", "macro_f1", "matthews"]


@pytest.mark.parametrize("kind", [metrics, confusion, average_precision])
def test_every_metric_is_a_score_that_tables_compare(kind):
    assert set(kind.METRICS) <= set(SCORES)


def by_sklearn(predictions, labels, num_classes):
    present = len(set(labels) | set(predictions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if num_classes == 2:
            f1 = sklearn.metrics.f1_score(labels, predictions, pos_label=1, average="binary", zero_division=0)
        else:
            f1 = sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0)
        macro_f1 = sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0)
        matthews = sklearn.metrics.matthews_corrcoef(labels, predictions) if present else 0.0
    accuracy = sklearn.metrics.accuracy_score(labels, predictions)
    return {"accuracy": accuracy, "f1": f1, "macro_f1": macro_f1, "matthews": matthews}


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_class_metrics(num_classes, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, 200)
    predictions = np.where(random.random(200) < 0.6, labels, random.integers(0, num_classes, 200))
    found = score(CLASSES, predictions, labels, num_classes)
    assert found == pytest.approx(by_sklearn(predictions, labels, num_classes))
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize(
    ("predictions", "labels", "num_classes"),
    [
        ([0, 0, 0], [0, 0, 0], 2),
        ([1, 1, 1], [1, 1, 1], 2),
        ([0, 0, 0], [1, 1, 1], 2),
        ([1, 1, 1], [0, 0, 0], 2),
        ([0, 0, 0, 0], [0, 1, 0, 1], 2),
        ([1], [0], 2),
        ([0, 1, 0], [0, 1, 1], 3),  # the third class never occurs
        ([2, 2, 2], [0, 1, 2], 3),
        ([2, 2], [2, 2], 3),
    ],
)
def test_degenerate_classes(predictions, labels, num_classes):
    found = score(CLASSES, np.array(predictions), np.array(labels), num_classes)
    assert found == pytest.approx(by_sklearn(predictions, labels, num_classes))


def test_f1_without_the_number_of_classes_goes_by_the_highest():
    binary = score(["f1"], np.array([1, 0, 1]), np.array([1, 1, 0]))
    assert binary["f1"] == pytest.approx(0.5)
    macro = score(["f1"], np.array([2, 0, 1]), np.array([2, 1, 0]))
    assert macro["f1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_correlations(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 6, 300).astype(np.float32)  # with ties
    predictions = (labels + random.normal(0, 2, 300)).astype(np.float32)
    found = score(["pearson", "spearman"], predictions, labels)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(predictions, labels).statistic)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(predictions, labels).statistic)


def test_correlations_far_from_zero_keep_their_precision():
    labels = np.arange(50, dtype=np.float32)
    found = score(["pearson"], labels * 1e-3 + 1000, labels)
    expected = scipy.stats.pearsonr((labels * 1e-3 + 1000).astype(np.float64), labels.astype(np.float64))
    assert found["pearson"] == pytest.approx(expected.statistic)


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.3])
def test_a_constant_side_scores_zero(constant):
    flat, rising = np.full(7, constant), np.arange(7.0)
    for predictions, labels in ((flat, rising), (rising, flat), (flat, flat)):
        assert score(["pearson", "spearman"], predictions, labels) == {"pearson": 0.0, "spearman": 0.0}


def test_nothing_to_score():
    assert score(["accuracy", "f1"], np.array([]), np.array([])) == {"accuracy": 0.0, "f1": 0.0}


def test_an_unknown_metric():
    with pytest.raises(UserError, match=r"unknown metric 'acuracy'\. Did you mean accuracy\?"):
        score(["acuracy"], np.array([1]), np.array([1]))


def test_vectors_of_two_lengths():
    with pytest.raises(ValueError, match="equally long"):
        score(["accuracy"], np.array([1, 0]), np.array([1]))


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("decimals", [1, 8])  # with one decimal there are many ties
def test_roc_auc(num_classes, decimals):
    random = np.random.default_rng(num_classes)
    labels = np.r_[0:num_classes, random.integers(0, num_classes, 300)]
    probabilities = random.dirichlet(np.ones(num_classes), len(labels)).round(decimals)
    found = score(["roc_auc"], probabilities.argmax(1), labels, num_classes, probabilities)["roc_auc"]
    if num_classes == 2:
        expected = sklearn.metrics.roc_auc_score(labels, probabilities[:, 1])
    else:
        one_hot = np.eye(num_classes)[labels]
        expected = sklearn.metrics.roc_auc_score(one_hot, probabilities, average="macro")
    assert found == pytest.approx(expected)


def test_roc_auc_leaves_out_classes_without_examples():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    found = score(["roc_auc"], probabilities.argmax(1), np.array([0, 1, 1]), 3, probabilities)
    assert found["roc_auc"] == 1.0
    assert score(["roc_auc"], np.zeros(2), np.zeros(2), 2, probabilities[:2, :2])["roc_auc"] == 0.5


def test_the_figures_of_each_class():
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 3, 100), random.integers(0, 3, 100)
    found = Classification(("a", "b", "c")).by_class(predictions, labels)
    assert found["names"] == ["a", "b", "c"]
    assert found["f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predictions, average=None))
    assert found["confusion"] == sklearn.metrics.confusion_matrix(labels, predictions).tolist()
    many = Classification(tuple(map(str, range(60)))).by_class(predictions, labels)
    assert many["confusion"] is None and len(many["f1"]) == 60


def test_many_classes_are_described_by_the_most_frequent():
    labels = [0] * 5 + [1] * 9 + list(range(2, 40)) + [7] * 1000
    text = Classification(tuple(f"class{index}" for index in range(40))).describe(labels)
    assert text.startswith("class7 1,001, class1 9, class0 5, class2 1, ") and text.endswith(", 33 classes more")
    assert Classification(("bad", "good")).describe([1, 0, 1]) == "bad 1, good 2"


def test_scores_are_described_by_their_range():
    assert Regression().describe([0.0, 2.5, 5.0]) == "scores 0 to 5, mean 2.5"
