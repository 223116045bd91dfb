"""The one place where values are checked: what is refused, wherever it comes from, and what stays text."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from peftbench.config.asset import ModelConfig
from peftbench.config.compose import compose
from peftbench.config.fill import fill
from peftbench.config.schema import MAX_SEED, check_threads, resolve
from peftbench.config.task import TextTaskConfig
from peftbench.config.values import typed
from peftbench.errors import UserError

PACKAGE = {"name": "tiny-model", "version": "0.1.0", "sha256": "0" * 64}
MODEL = {"name": "tiny", "source": "pypi", "packages": [PACKAGE], "folder": "tiny/model"}
TASK = {"name": "tiny", "source": "pypi", "packages": [PACKAGE], "text": ["text"], "metrics": ["accuracy"]}


def refused(cls, group, values):
    with pytest.raises(UserError) as caught:
        fill(cls, values, group)
    line = str(caught.value)
    assert "\n" not in line
    return line


ATTACKS = {
    "a requirements file as a name": ({"packages": [PACKAGE | {"name": "-r/tmp/evil/req.txt"}]}, "packages[0].name"),
    "an option as a name": ({"packages": [PACKAGE | {"name": "--index-url=http://evil"}]}, "packages[0].name"),
    "a path as a name": ({"packages": [PACKAGE | {"name": "../../evil"}]}, "packages[0].name"),
    "a URL as a name": ({"packages": [PACKAGE | {"name": "x @ http://evil/x.whl"}]}, "packages[0].name"),
    "a name with a line end": ({"packages": [PACKAGE | {"name": "tiny\n"}]}, "packages[0].name"),
    "a path as a version": ({"packages": [PACKAGE | {"version": "1/../../../evil"}]}, "packages[0].version"),
    "more requirements as a version": ({"packages": [PACKAGE | {"version": "1.0 -r evil.txt"}]}, "packages[0].version"),
    "a version with a line end": ({"packages": [PACKAGE | {"version": "1.0\n"}]}, "packages[0].version"),
    "a short checksum": ({"packages": [PACKAGE | {"sha256": "0" * 63}]}, "packages[0].sha256"),
    "no checksum": ({"packages": [{"name": "a", "version": "1"}]}, "packages[0] must have name, version, sha256"),
    "a path as a source archive": ({"packages": [PACKAGE | {"file": "../x.tar.gz"}]}, "packages[0].file"),
    "another kind of source archive": ({"packages": [PACKAGE | {"file": "x.sh"}]}, "packages[0].file"),
    "a second package": ({"packages": [PACKAGE, PACKAGE | {"name": "-rx"}]}, "packages[1].name"),
    "an absolute archive": ({"archive": "/etc/passwd"}, "archive"),
    "an archive above": ({"archive": "../evil"}, "archive"),
    "an archive in a folder": ({"archive": "a/b.zip"}, "archive"),
    "an archive by backslash": ({"archive": "..\\evil"}, "archive"),
    "no archive's name": ({"archive": "."}, "archive"),
    "an absolute folder": ({"folder": "/etc"}, "folder"),
    "a folder above": ({"folder": "tiny/../../evil"}, "folder"),
    "a file above": ({"files": {"../../evil": "0" * 64}}, "files"),
    "an absolute file": ({"files": {"/etc/passwd": "0" * 64}}, "files"),
    "a file's short checksum": ({"files": {"model.safetensors": "0"}}, "files.model.safetensors"),
    "a path as a repository": ({"id": "../../evil"}, "id"),
    "an absolute path as a repository": ({"id": "/tmp/evil"}, "id"),
    "a revision above": ({"revision": "../../../evil"}, "revision"),
    "an absolute revision": ({"revision": "/tmp/evil"}, "revision"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("cls", "group", "base"), [(ModelConfig, "model", MODEL), (TextTaskConfig, "task", TASK)])
def test_a_source_that_leads_elsewhere_is_refused(cls, group, base, name):
    fields, shown = ATTACKS[name]
    assert refused(cls, group, base | fields).startswith(f"{group}.{shown}")


def test_the_shipped_sources_pass():
    for name in ("minilm", "mpnet_base", "bert_base", "distilbert_base"):
        assert resolve(compose([f"model={name}"])).model.name == name
    assert fill(ModelConfig, MODEL | {"revision": "refs/pr/1", "id": "gpt2", "archive": "a-b.zip"}, "model")


def test_interpolations_of_a_record_stay_text(monkeypatch):
    monkeypatch.setenv("SECRET", "swordfish")
    plain = resolve(compose(["model=local", "model.path=/models"])).plain()
    plain["task"]["labels"] = ["${oc.env:SECRET}", "${seed}"]
    plain["model"]["path"] = "/models/${oc.env:SECRET}"
    config = resolve(plain)
    assert config.task.labels == ["${oc.env:SECRET}", "${seed}"]
    assert config.model.path == "/models/${oc.env:SECRET}"
    plain["trainer"]["epochs"] = "${oc.env:SECRET}"
    with pytest.raises(UserError, match=r"^trainer\.epochs=\$\{oc\.env:SECRET\} is not of type int$"):
        resolve(plain)


NUMBERS = [
    ("seed=-1", "seed=-1 must lie in 0"),
    ("seed=4294967296", "seed=4294967296 must lie in 0"),
    ("seed=99999999999999999999", "seed=99999999999999999999 must lie in 0"),
    ("seed=1e3", "seed=1000.0 is not of type int"),
    ("seed=nan", "seed=nan is not of type int"),
    ("seed=null", "seed=None is not of type int"),
    ("threads=0", "threads=0 must be 1 or more"),
    ("trainer.lr=0", "trainer.lr=0 must be above 0"),
    ("trainer.lr=-1e-3", "trainer.lr=-0.001 must be above 0"),
    ("trainer.lr=nan", "trainer.lr=nan must be a finite number"),
    ("trainer.lr=inf", "trainer.lr=inf must be a finite number"),
    ("trainer.lr=-inf", "trainer.lr=-inf must be a finite number"),
    ("trainer.lr='nan'", "trainer.lr=nan must be a finite number"),
    ("trainer.weight_decay=nan", "trainer.weight_decay=nan must be a finite number"),
    ("trainer.clip=inf", "trainer.clip=inf must be a finite number"),
    ("trainer.warmup=nan", "trainer.warmup=nan must be a finite number"),
    ("trainer.betas=[0.9,nan]", "trainer.betas=[0.9, nan] must be a finite number"),
    ("model.dropout=nan", "model.dropout=nan must be a finite number"),
    ("method.init_std=inf", "method.init_std=inf must be a finite number"),
    ("measure.seconds=inf", "measure.seconds=inf must be a finite number"),
    ("task.threshold=nan", "task.threshold=nan must be a finite number"),
    ('experiment="a\udcff"', "experiment=a\udcff must be UTF-8 text"),
    ('output_dir="\udcff"', "output_dir=\udcff must be UTF-8 text"),
    ("task.text=[]", "task.text has 0 columns"),
    ("task.text=[a,b,c]", "task.text has 3 columns"),
    ("experiment=..", "experiment='..' is no folder's name"),
    ("experiment=''", "experiment='' is no folder's name"),
]


@pytest.mark.parametrize(("override", "line"), NUMBERS)
def test_a_value_out_of_range_is_refused(override, line):
    with pytest.raises(UserError) as caught:
        resolve(compose([override]))
    assert str(caught.value).startswith(line)


def test_the_largest_seed_is_one_that_numpy_and_torch_take():
    import numpy
    import torch

    assert resolve(compose([f"seed={MAX_SEED}"])).seed == MAX_SEED
    numpy.random.RandomState(MAX_SEED)
    torch.manual_seed(MAX_SEED)


def test_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    check_threads(None)
    check_threads(2)
    with pytest.raises(UserError, match=r"threads=3 is more than this machine's 2 cores"):
        check_threads(3)


def test_a_record_s_config_that_lacks_something():
    plain = resolve(compose([])).plain()
    for key in ("method", "model", "seed"):
        with pytest.raises(UserError, match=f"the config lacks {key!r}"):
            resolve({name: value for name, value in plain.items() if name != key})
    with pytest.raises(UserError, match="trainer lacks 'epochs'"):
        resolve(plain | {"trainer": {}})
    with pytest.raises(UserError, match="trainer=None must have keys and values"):
        resolve(plain | {"trainer": None})


@dataclass
class Typed:
    count: int = 0
    rate: float = 0.0
    flag: bool = False
    text: str = ""
    perhaps: float | None = None
    either: int | str = 0
    numbers: list[int] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    anything: Any = None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", "3", 3), ("rate", 1, 1.0), ("rate", "1e-3", 0.001), ("flag", "yes", True), ("flag", 0, False),
        ("text", 1.5, "1.5"), ("text", "${a}", "${a}"), ("perhaps", None, None), ("perhaps", 2, 2.0),
        ("either", 3, 3), ("either", "a", "a"), ("numbers", ("1", 2), [1, 2]), ("names", {"a": 1}, {"a": "1"}),
        ("anything", {"a": [None]}, {"a": [None]}),
    ],
)  # fmt: skip
def test_values_become_what_their_field_declares(name, value, expected):
    result = typed(Typed, name, value, name)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", True), ("count", 1.0), ("count", None), ("count", "three"), ("count", "${a}"), ("rate", True),
        ("rate", "a"), ("flag", "maybe"), ("flag", None), ("flag", 2), ("flag", 1.0), ("text", [1]), ("text", None),
        ("numbers", "12"), ("numbers", [1.5]), ("numbers", [None]), ("names", []), ("names", {1: "a"}),
        ("count", "9" * 5000),
    ],
)  # fmt: skip
def test_another_type_is_refused(name, value):
    with pytest.raises(UserError, match=f"^{name}=.* is not of type "):
        typed(Typed, name, value, name)
