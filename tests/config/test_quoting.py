"""Paths and column names need no quotes of Hydra's; other values stay as they were given."""

import pytest

from peftbench.config.compose import compose
from peftbench.config.quoting import quote_free_text

NAMES = [
    "my data/a b.csv",
    "日本/ünï.csv",
    "seed=1.csv",
    "copy (1).csv",
    "it's.csv",
    "~/x.csv",
    "a#b&c.csv",
    "a{b}.csv",
    'the "best".csv',
    "ending in ü\\",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_reach_the_config_as_they_are(name):
    lines = quote_free_text([f"task.splits.train={name}", f"task.text={name}", f"model.path={name}"])
    config = compose(["task=text_file", "model=local", *lines])
    assert config.task.splits.train == config.task.text == config.model.path == name


@pytest.mark.parametrize(
    "template", ["{text} It was {mask} .", "{text_a} {soft:3} {mask} , {text_b}", "{mask}", "[{text}] {mask}, {soft:1}"]
)
def test_a_template_may_begin_with_a_place(template):
    assert compose(["method=cloze", *quote_free_text([f"method.template={template}"])]).method.template == template


def test_lists_of_texts_beyond_what_hydra_reads():
    lines = ["task.text=[Überschrift,Titel (neu)]", "task.labels=[it's, größer]", "task.splits.train=a.csv"]
    task = compose(["task=text_file", *quote_free_text(lines)]).task
    assert task.text == ["Überschrift", "Titel (neu)"] and task.labels == ["it's", "größer"]


@pytest.mark.parametrize(
    "line",
    ["task.splits.validation=0.2", "task.text=[a,b]", "task.dir='a b'", 'task.dir="ü"', "task.dir=a,b", "seed=0,1"],
)
def test_what_hydra_reads_stays(line):
    assert quote_free_text([line]) == [line]


@pytest.mark.parametrize("name", ["2024_11_28", "1.10", "1e3", "true", "007", "0x1F", "inf", "1_0", "2024"])
def test_names_that_look_like_numbers_stay_as_they_are(name):
    lines = quote_free_text([f"experiment={name}", f"task.label={name}", f"output_dir={name}", f"task.text={name}"])
    config = compose(["task=text_file", *lines])
    found = (config.experiment, config.task.label, config.output_dir, config.task.text)
    assert tuple(map(str, found)) == (name,) * 4
    lines = quote_free_text([f"task.labels=[{name}, no]", "task.splits.validation=.20"])
    config = compose(["task=text_file", *lines])
    assert list(config.task.labels) == [name, "no"] and config.task.splits.validation == 0.2


def test_a_file_whose_name_looks_like_several_values(tmp_path):
    path = tmp_path / "a,b.csv"
    path.touch()
    assert quote_free_text([f"task.splits.train={path}"]) == [f'task.splits.train="{path}"']


def test_other_settings_are_none_of_its_business():
    others = ["logger.project=ü", "-m", "~task.labels"]
    assert quote_free_text(others) == others
