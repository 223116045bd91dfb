"""Where data cannot lie: names that the system will not look at, and folders of users there are not."""

import pytest
from text_files import text_file

from peftbench.config.task import fill_task
from peftbench.errors import UserError
from peftbench.tasks import kinds
from peftbench.tasks.text.read import load_task

PLACES = ["x" * 300, "~nobody-of-this-name/x"]


@pytest.mark.parametrize("place", PLACES)
def test_a_file_of_texts_that_cannot_be_there(place):
    with pytest.raises(UserError, match="no such file|cannot read .*: File name too long"):
        load_task(text_file(splits={"train": f"{place}.csv", "validation": 0.2, "test": None}))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "more"), [("text", {"source": "glue", "text": ["sentence"]}), ("images", {})])
def test_a_folder_that_cannot_be_there(place, kind, more):
    config = {"name": "pets", "kind": kind, "source": "local", "metrics": ["accuracy"], "dir": place, **more}
    with pytest.raises(UserError, match="no such task folder"):
        kinds.load_task(fill_task(config))
