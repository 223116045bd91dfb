"""Overrides that work, and for each kind of mistake the one line that says what is wrong."""

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from peftbench.config.compose import compose, expand
from peftbench.config.folder import CONFIG_PATH
from peftbench.config.mistakes import UnknownKeyError, translate
from peftbench.errors import UserError


def line_of(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_defaults_and_overrides():
    assert compose([]).method.name == "adapter"
    config = compose(["method=lora", "method.rank=4", "seed=3", "+extra=1"])
    assert (config.method.name, config.method.rank, config.seed, config.extra) == ("lora", 4, 3, 1)
    assert "hydra" not in config


def test_every_option_of_every_group_composes():
    for group in ("method", "model", "task", "trainer", "logger", "measure"):
        for path in (Path(CONFIG_PATH) / group).glob("*.yaml"):
            assert compose([f"{group}={path.stem}"])[group], path


MISTAKES = [
    (["methd=lora"], "methd=lora: the config has no key 'methd'. Did you mean method?"),
    (["modle=minilm"], "modle=minilm: the config has no key 'modle'. Did you mean model?"),
    (["sed=1"], "sed=1: the config has no key 'sed'. Did you mean seed?"),
    (["method=lorra"], "method=lorra: there is no such method. Did you mean lora?"),
    (["task=mrcp"], "task=mrcp: there is no such task. Did you mean mrpc?"),
    (
        ["method=xyz"],
        "method=xyz: there is no such method. Choose from: adapter, adaptformer, bitfit, ",
    ),
    (["hydra/launcher=bsic"], "hydra/launcher=bsic: there is no such hydra/launcher. Did you mean basic?"),
    (
        ["method.bottlneck=8"],
        "method.bottlneck=8: method=adapter has no key 'bottlneck'. Did you mean bottleneck?",
    ),
    (
        ["method=lora", "method.rnk=8"],
        "method.rnk=8: method=lora has no key 'rnk'. Did you mean rank?",
    ),
    (["trainer.lrr=1"], "trainer.lrr=1: trainer=default has no key 'lrr'. Did you mean lr?"),
    (["train.lr=1"], "train.lr=1: the config has no key 'train'. Did you mean trainer?"),
    (["hydra.verbos=1"], "hydra.verbos=1: hydra has no key 'verbos'. Did you mean verbose?"),
    (["batch_size=8"], "batch_size=8: the config has no key 'batch_size'. Did you mean trainer.batch_size?"),
    (
        ["method.rank=8"],
        "method.rank=8: method=adapter has no key 'rank'; it belongs to method=compacter or method=fact or method=lora",
    ),
    (
        ["method.length=8"],
        "method.length=8: method=adapter has no key 'length'; it belongs to method=coop or method=mam or method=prefix",
    ),
    (["seed.x=1"], "seed.x=1: seed is a single value and has no key 'x'"),
    (
        ["task.dir==x"],
        "cannot read 'task.dir==x': write key=value; a value with special characters needs both",
    ),
    (
        ["seed=[1,2"],
        "cannot read 'seed=[1,2': write key=value; a value with special characters needs both quotes",
    ),
    (["method"], "cannot read 'method': write key=value"),
    (["a b"], "cannot read 'a b': write key=value"),
]


@pytest.mark.parametrize(("overrides", "expected"), MISTAKES, ids=lambda value: " ".join(value)[:30])
def test_each_mistake_has_its_line(overrides, expected):
    assert line_of(*overrides).startswith(expected)


def test_the_quoting_that_is_proposed_works():
    line = line_of("task.name=a=b")
    proposed = line.rsplit(" ", 1)[1]
    assert proposed == "task.name='\"a=b\"'"
    unquoted_by_the_shell = proposed.replace("'", "")
    assert compose([unquoted_by_the_shell]).task.name == "a=b"


def test_a_deletion_of_what_is_not_there():
    assert "method=adapter has no key 'bottlneck'. Did you mean bottleneck?" in line_of("~method.bottlneck")


def test_the_unknown_key_carries_its_override():
    with pytest.raises(UnknownKeyError) as caught:
        compose(["method=lora", "seed=1", "method.bottleneck=8"])
    assert caught.value.override == "method.bottleneck=8"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("override", ["method=adapter,lora", "seed=range(0,3)", "seed=choice(1,2)"])
def test_several_values_ask_for_multirun(override):
    line = line_of(override)
    assert line.startswith(f"{override}: several values need -m") and f"peftbench train -m {override}" in line
    assert "one list" not in line


def test_several_values_of_a_list_may_lack_their_brackets():
    line = line_of("method=lora", "method.targets=query,key")
    assert "several values need -m" in line
    assert line.endswith("one list is written method.targets=[query,key]")


def test_a_misspelt_key_with_several_values_under_multirun():
    """The Hydra-main path hands over the whole command line, flags and sweeps included."""
    try:
        compose(["method=lora", "method.position=ffn"])
    except UserError as error:
        cause = error.__cause__
    line = str(translate(cause, ["-m", "--cfg", "job", "method=lora", "method.position=ffn,both", "seed=0,1"]))
    assert line == (
        "method.position=ffn: method=lora has no key 'position'; it belongs to method=adapter or method=compacter"
        " or method=coop"
    )


def test_an_option_from_the_users_own_folder(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("name: lora\nrank: 3\n")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    assert compose([search, "method=mine"]).method.rank == 3
    assert line_of(search, "method=mien").startswith("method=mien: there is no such method. Did you mean mine")
    assert line_of(search, "method=mine", "method.rnk=1") == (
        "method.rnk=1: method=mine has no key 'rnk'. Did you mean rank?"
    )


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        translate(ZeroDivisionError(), ["seed=1"])


def test_a_folder_that_cannot_be_used():
    error = PermissionError(13, "Permission denied", "/outputs")
    assert str(translate(error, [])) == "cannot use /outputs: Permission denied"


def test_a_link_to_nothing_is_called_so(tmp_path):
    (tmp_path / "outputs").symlink_to(tmp_path / "none")
    error = FileExistsError(17, "File exists", str(tmp_path / "outputs"))
    assert str(translate(error, [])) == f"cannot use {tmp_path / 'outputs'}: it is a link to nothing"


def test_an_unforeseen_hydra_error_keeps_its_own_text():
    assert str(translate(HydraException("first\nsecond\nthird"), ["seed=1"])) == "first second"


def test_expand():
    assert expand(["method=adapter,lora", "seed=range(0,2)", "trainer.lr=0.1"]) == [
        ["method=adapter", "seed=0", "trainer.lr=0.1"],
        ["method=adapter", "seed=1", "trainer.lr=0.1"],
        ["method=lora", "seed=0", "trainer.lr=0.1"],
        ["method=lora", "seed=1", "trainer.lr=0.1"],
    ]
    assert expand([]) == [[]]
    with pytest.raises(UserError, match="cannot read 'seed'"):
        expand(["seed"])


def test_compose_leaves_a_running_hydra_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peftbench", "seed=5", "hydra.output_subdir=null", "hydra.run.dir=."])
    seen = {}

    @hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="train")
    def main(config: DictConfig) -> None:
        outer = GlobalHydra.instance().hydra
        seen["inner"] = compose(["seed=7"]).seed
        assert GlobalHydra.instance().hydra is outer
        seen["outer"] = config.seed

    main()
    assert seen == {"inner": 7, "outer": 5}


def test_composing_imports_no_torch():
    script = "import sys; from peftbench.config.compose import compose; compose([]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("line", "epochs", "rate"),
    [
        (["task=mrpc", "method=adapter"], 5, 5e-4),
        (["task=stsb_binary", "method=adapter"], 3, 2e-3),
        (["task=stsb_binary", "method=lora"], 3, 1e-3),
        (["task=stsb_binary", "method=ia3"], 5, 2e-2),
        (["task=camvid", "method=lora"], 20, 1e-3),  # epochs of any method
        (["task=stsb_binary", "method=adapter", "trainer.lr=0.1", "trainer.epochs=7"], 7, 0.1),
    ],
)
def test_a_task_may_have_its_own_recipe_for_a_method(line, epochs, rate):
    trainer = compose(line).trainer
    assert (trainer.epochs, trainer.lr) == (epochs, rate)
