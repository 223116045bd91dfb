"""Shared by all tests: where the data and the reference tensors lie, and tiny random backbones."""

import functools
import gc
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

# tiny tensors gain nothing from threads, and tests that run side by side lose by them; for numpy and children too
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pytest
import torch
from composed_once import each_choice_composed_once

from peftbench.cli import main
from peftbench.runs.record import Record

# a shell's background job ignores Ctrl-C, and so would the commands that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """Take what is imported by now, torch and transformers, out of every later garbage collection."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # one that runs hundreds of tests needs all that a run imports
        import peftbench.sweeps.imported  # noqa: F401
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def composed_once() -> Iterator[None]:
    with each_choice_composed_once():
        yield


@pytest.fixture(autouse=True, scope="session")
def one_type_as_on_cuda() -> Iterator[None]:
    """Let products and norms refuse an input of another type than their weight outside autocast, as CUDA does."""
    with pytest.MonkeyPatch.context() as patched:
        for kind in (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Conv1d, torch.nn.Conv2d):
            patched.setattr(kind, "forward", _of_one_type(kind.forward))
        yield


def _of_one_type(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(forward)
    def checked(module: Any, input: torch.Tensor) -> torch.Tensor:
        if input.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            assert input.dtype == module.weight.dtype, f"{module} of {input.dtype}: on CUDA this fails"
        return forward(module, input)

    return checked


def _shared(variable: str, folder: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / folder)
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable}")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return _shared("PEFTBENCH_DATA", "data")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return _shared("PEFTBENCH_GOLDEN", "golden")


WORDS = ("good", "fine", "bad", "dull", "the", "a", "film", "plot", "was", "is", "and", "but")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it: a tiny random BERT and its tokenizer."""
    from tiny import tiny_model
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("model") / "tiny-bert"
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters,
        *(f"##{x}" for x in letters),
    ]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    tiny_model("bert").base_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`opinions/*.csv` with text and label, bad or good; `pairs/*.tsv` like GLUE's, test labels hidden."""
    folder = tmp_path_factory.mktemp("data")
    opinions, pairs = folder / "opinions", folder / "pairs"
    opinions.mkdir()
    pairs.mkdir()
    for split, size, end in (("train", 48, "was"), ("validation", 21, "is fine"), ("test", 9, "but dull")):
        texts = [" ".join(WORDS[(3 * i + i * i * j) % 12] for j in range(3 + i % 4)) + f" {end}" for i in range(size)]
        kinds = ["good" if i % 5 < 3 else "bad" for i in range(size)]
        rows = [f'"{kind}, {text}",{kind}' for kind, text in zip(kinds, texts, strict=True)]
        (opinions / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        labels = [-1] * size if split == "test" else [int(kind == "good") for kind in kinds]
        rows = [f"the film\t{kind} {text}\t{label}" for kind, text, label in zip(kinds, texts, labels, strict=True)]
        (pairs / f"{split.replace('validation', 'dev')}.tsv").write_text(
            "\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n"
        )
    return folder


@pytest.fixture(scope="session")
def train_tiny(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_data_dir: Path
) -> Callable[..., Record]:
    """A function that trains on the tiny model with the overrides given and returns the record."""
    outputs = tmp_path_factory.mktemp("outputs")

    def train(task: str, *overrides: str) -> Record:
        from peftbench.config.compose import compose
        from peftbench.config.schema import resolve
        from peftbench.loggers.wandb_run import wandb_run
        from peftbench.runs.execute import execute_run

        files = {name: tiny_data_dir / "opinions" / f"{name}.csv" for name in ("train", "validation", "test")}
        data = {
            "opinions": ["task=text_file", *(f"task.splits.{name}={path}" for name, path in files.items())],
            "pairs": ["task=mrpc", f"task.dir={tiny_data_dir / 'pairs'}"],
            "scores": ["task=stsb", f"task.dir={tiny_data_dir / 'pairs'}"],
        }[task]
        lines = [f"output_dir={outputs}", f"experiment={task}", "model=local", f"model.path={tiny_model_dir}"]
        lines += [*data, "task.max_length=32", "trainer.epochs=2", "trainer.batch_size=8"]
        lines += ["device=cpu", "threads=1", "trainer.precision=fp32", "measure.latency=false", *overrides]
        with redirect_stdout(io.StringIO()):
            result = execute_run(resolve(compose(lines)), lines, open_loggers=wandb_run)
        return Record(outputs / result.experiment / result.id)

    return train


@pytest.fixture(scope="session")
def tiny_method(train_tiny: Callable[..., Record]) -> Callable[[str], list[str]]:
    """A function that returns the overrides for a method: for a fusion those that name two runs, which it trains."""

    def overrides(method: str) -> list[str]:
        if method != "fusion":
            return [f"method={method}"]
        runs = [train_tiny(task, "method=pfeiffer", "method.bottleneck=4") for task in ("opinions", "pairs")]
        return ["method=fusion", f"method.adapters={{own: {runs[0].folder}, other: {runs[1].folder}}}"]

    return overrides


@pytest.fixture(scope="session")
def tiny_run(train_tiny: Callable[..., Record]) -> Record:
    """A finished LoRA run on single texts with two classes, bad and good."""
    return train_tiny("opinions", "method=lora", "trainer.lr=0.01")


@pytest.fixture(scope="session")
def tiny_pair_run(train_tiny: Callable[..., Record]) -> Record:
    """A finished adapter run on pairs of texts whose test labels are hidden."""
    return train_tiny("pairs", "method=adapter", "method.bottleneck=8")


@pytest.fixture(scope="session")
def tiny_score_run(train_tiny: Callable[..., Record]) -> Record:
    """A finished prefix run that predicts a score for pairs of texts."""
    return train_tiny("scores", "method=prefix", "method.length=4")


TASK_METHODS = {
    "lora": ["method=lora"],
    "lora_again": ["method=lora", "seed=1"],
    "adapter": ["method=adapter", "method.bottleneck=4"],
    "prefix": ["method=prefix", "method.length=3"],
    "prompt": ["method=prompt", "method.length=2"],
    "bitfit": ["method=bitfit"],
    "full": ["method=full"],
    "head": ["method=head"],
    "mam": ["method=mam", "method.mid_dim=4"],
}


@pytest.fixture(scope="session")
def task_runs(train_tiny: Callable[..., Record]) -> dict[str, Record]:
    """Runs of many methods on one backbone, two of one kind, on single texts and pairs, classes and scores."""
    short = ["trainer.max_steps=3", "trainer.lr=0.02"]
    found = {name: train_tiny("opinions", *overrides, *short) for name, overrides in TASK_METHODS.items()}
    found["pairs"] = train_tiny("pairs", "method=ia3", *short)
    found["scores"] = train_tiny("scores", "method=adapter", "method.bottleneck=4", *short)
    return found


@pytest.fixture
def shared_process(monkeypatch):
    """Let the runs of a sweep share this process, as they do where torch cannot be forked: a third of their time."""
    monkeypatch.setattr("peftbench.sweeps.run_process.IS_CHEAP", False)


TABLE = """
title: Tiny
base: [experiment=tiny, model=local, model.path={model}, task=text_file, task.max_length=32, {splits}
       trainer.epochs=2, trainer.batch_size=8, trainer.precision=fp32, device=cpu, threads=1, measure.seconds=0.02,
       "measure.batches=[1]", "measure.lengths=[8]", output_dir={outputs}]
seeds: 2
baseline: head
columns: [share, accuracy, difference, latency, step, switch]
tolerance: {{share: 0.5}}
rows:
  - label: head
    overrides: [method=head]
  - label: LoRA
    overrides: [method=lora, method.rank=2]
    lab: {{share: 3.0, accuracy: 99}}
    published: {{accuracy: "88 (somebody)"}}
  - label: adapter
    overrides: [method=adapter, method.bottleneck=2]
claims:
  - {{text: adapters beat LoRA, column: accuracy, ascending: [LoRA, adapter]}}
"""


@pytest.fixture
def sweep(tmp_path, tiny_model_dir, tiny_data_dir):
    """A function that runs `peftbench sweep` (or table) in this process; `.outputs` is where records go."""
    folder = tmp_path / "conf" / "table"
    folder.mkdir(parents=True)
    files = {name: tiny_data_dir / "opinions" / f"{name}.csv" for name in ("train", "validation", "test")}
    splits = " ".join(f"task.splits.{name}={path}," for name, path in files.items())
    outputs = tmp_path / "outputs"
    (folder / "tiny.yaml").write_text(TABLE.format(model=tiny_model_dir, splits=splits, outputs=outputs))

    def run(*argv: str, command: str = "sweep") -> int:
        return main(line(*argv, command=command))

    def line(*argv: str, command: str = "sweep") -> list[str]:
        table = "tiny" if command == "table" else "table=tiny"
        return [command, table, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", *argv]

    run.outputs, run.line, run.spec = outputs, line, folder / "tiny.yaml"
    return run
