"""Which pictures of a split a record shows."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from peftbench.runs.pictures import write_pictures


@pytest.mark.parametrize(("examples", "shown"), [(101, [0, 25, 50, 75]), (4, [0, 1, 2, 3]), (2, [0, 1])])
def test_shown_are_pictures_from_all_over_the_split(tmp_path, examples, shown):
    def render(split, index, answer):
        return Image.new("RGB", (8, 8), (2 * index,) * 3), Image.new("RGB", (8, 8), (2 * answer,) * 3)

    task = SimpleNamespace(splits={"validation": None}, render_example=render)
    predictions = {"validation": SimpleNamespace(predictions=list(range(examples)))}
    write_pictures(tmp_path, task, predictions)
    for name in ("truth", "prediction"):
        files = sorted((tmp_path / "pictures").glob(f"*-{name}.jpg"))
        assert [round(np.asarray(Image.open(file)).mean() / 2) for file in files] == shown
