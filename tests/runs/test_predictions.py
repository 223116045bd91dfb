"""`predictions.csv` of each form of answer is read as what it was written as, whatever its classes are called."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from peftbench.errors import NonFiniteError, UserError
from peftbench.runs.predictions import Predictions, read_predictions, write_predictions
from peftbench.runs.scoring import score_logits
from peftbench.tasks.regression import Regression

MASKS = np.array([[[0, 1], [1, 0]], [[0, 0], [255, 0]]])
GUESSED = np.array([[[0, 1], [0, 0]], [[1, 1], [0, 0]]])


@pytest.mark.parametrize("classes", [["prediction", "other"], ["other", "prediction"], ["prediction"], ["a", "b"]])
def test_masks_are_told_from_classes_by_what_the_rows_hold(tmp_path, classes):
    path = tmp_path / "predictions.csv"
    masks, guessed = (np.where(each == 255, 255, np.minimum(each, len(classes) - 1)) for each in (MASKS, GUESSED))
    write_predictions(path, {"validation": Predictions(masks, guessed, form="pixels")}, classes)
    read = read_predictions(path)["validation"]
    assert read.form == "pixels" and list(read.ids) == ["0", "1"]
    assert read.predictions.shape == (2, len(classes), len(classes)) and read.predictions.sum() == 7
    assert read.labels.tolist() == [np.bincount(mask[mask < 255], minlength=len(classes)).tolist() for mask in masks]


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        (Predictions([1, 0], [0, 0], np.array([[1.0, 0.0], [0.5, 0.5]])), ["prediction", "2"]),
        (Predictions(None, [1, 0], np.array([[0.0, 1.0], [0.5, 0.5]])), ["1", "2"]),
        (Predictions([1, 0], [0, 0]), []),
        (Predictions(None, [3.0, 0.5]), []),
        (Predictions(None, [3, 0]), []),
    ],
)
def test_classes_and_scores_stay_what_they_are(tmp_path, given, classes):
    path = tmp_path / "predictions.csv"
    write_predictions(path, {"test": given}, classes)
    read = read_predictions(path)["test"]
    assert (read.form, read.labels, read.predictions) == ("one", given.labels, given.predictions)
    assert (read.probabilities is None) == (given.probabilities is None)


def test_an_unknown_form_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="points: no such form, there are one, pixels, boxes"):
        write_predictions(tmp_path / "predictions.csv", {"test": Predictions([1], [1], form="points")}, ["a"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "rows",
    [
        f"split,id,label,a,b\nvalidation,1,a,{10**30},2\n",
        "split,id,label,prediction\nvalidation,1,1.0,nan\n",
        "split,id,label,prediction\nvalidation,1,inf,1.0\n",
        f"split,id,label,prediction\nvalidation,1,1.0,{'9' * 400}\n",
        "split,id,label,prediction,a,b\nvalidation,1,a,b,nan,0.5\n",
        "split,id,label,prediction,a,b\nvalidation,1,a,b,0.5,inf\n",
    ],
)
def test_what_is_no_number_to_compute_with_is_damage(tmp_path, rows):
    path = tmp_path / "predictions.csv"
    path.write_text(rows)
    with pytest.raises(UserError, match="is damaged"):
        read_predictions(path)


def test_a_loss_beyond_all_numbers_fails_the_run():
    task = SimpleNamespace(objective=Regression(), metrics=["pearson"])
    score_logits(task, torch.tensor([[1e3], [2.0]]), [1.0, 2.0])
    with pytest.raises(NonFiniteError, match="the loss is inf"):
        score_logits(task, torch.tensor([[1e25], [2.0]]), [1.0, 2.0])
