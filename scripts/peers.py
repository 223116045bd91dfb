"""The peers that the other scripts compare with: transformers' `Trainer` and Hugging Face `peft`.

They get the model folder, rows and hyperparameters of a peftbench run and do what run_glue.py does with them:
tokenize with `datasets`, pad to a fixed length or dynamically, train with linear warm-up and decay, AdamW and
clipping. They train in the precision peftbench does; they log, save and evaluate nothing while they train.

The `adapters` library is left out: it needs transformers 4 and cannot share an environment with peftbench.

Needs: pip install -e '.[peers]'. Not run by itself: benchmark_peers.py and
compare_quality.py use it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import datasets
import numpy as np
import peft
import torch
import transformers
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

if TYPE_CHECKING:
    from peftbench.backbones.sites import Sites
    from peftbench.config.schema import RunConfig
    from peftbench.runs.prepare import Prepared
    from peftbench.tasks.text.task import TextSplit

VERSIONS = {"peft": peft.__version__, "accelerate": accelerate.__version__}
# padding → what the tokenizer pads to, and the Trainer's sampler
PADDINGS = {
    "max_length": ("max_length", "random"),
    "longest": ("longest", "random"),
    "grouped": ("longest", "group_by_length"),
}
# PyTorch's own schedules under the Trainer's names
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}

warnings.filterwarnings("ignore", category=FutureWarning)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
datasets.disable_progress_bars()


@dataclass(frozen=True)
class Peer:
    """One training by the Trainer, as plain data: a child process gets it as JSON.

    Attributes:
        lora: arguments of peft's LoraConfig; None for full fine-tuning.
        trained: number of parameters that must train, counted by peftbench.
        padding: see `PADDINGS`; `sorted` is dynamic padding over rows that come in order.
        threads: of the CPU, in a process of its own.
        trainer: fields of peftbench's TrainerConfig.
    """

    folder: str
    num_outputs: int
    lora: dict[str, Any] | None
    trained: int
    dropout: float | None
    max_length: int
    padding: str
    seed: int
    cpu: bool
    bf16: bool
    threads: int
    trainer: dict[str, Any]


def peer_of(config: "RunConfig", prepared: "Prepared", padding: str) -> Peer:
    """Describe the Trainer's counterpart of a peftbench run."""
    from peftbench.assets.fetch import fetch

    if config.method_name not in ("lora", "full"):
        raise SystemExit(f"method={config.method_name}: the peers here train lora and full")
    return Peer(
        folder=str(fetch(config.model)),
        num_outputs=prepared.task.objective.num_outputs,
        lora=lora_settings(config.method, prepared.backbone.sites) if config.method_name == "lora" else None,
        trained=prepared.parameters["method"] + prepared.parameters["head"],
        dropout=config.model.dropout,
        max_length=config.task.longest or 0,
        padding=padding,
        seed=config.seed,
        cpu=prepared.device.type == "cpu",
        bf16=config.trainer.precision == "bf16",
        threads=torch.get_num_threads(),
        trainer=asdict(config.trainer),
    )


def lora_settings(config: Any, sites: "Sites") -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig that make it what peftbench's `config` makes."""
    return {
        "task_type": "SEQ_CLS",  # so that the classifier trains
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": [sites.layout.sites[site].rpartition(".")[2] for site in config.sites],
        "use_rslora": config.rslora,
        "use_dora": config.dora,
        # what the checkpoint did not carry (a fresh pooler) is the head's in peftbench
        "modules_to_save": sorted({name.rpartition(".")[0] for name in sites.fresh}) or None,
    }


def rows_of(split: "TextSplit", chosen: Iterable[int] | None = None) -> datasets.Dataset:
    """Return the chosen rows of a split, by default all: texts (columns text0, text1) and label."""
    columns = {f"text{i}": column for i, column in enumerate(zip(*split.texts, strict=True))}
    rows = datasets.Dataset.from_dict({**columns, "label": split.labels})
    return rows if chosen is None else rows.select(chosen)


def bare_model(folder: str, num_outputs: int, dropout: float | None = None) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=num_outputs, dtype=torch.float32)
    for module in model.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def peer_trainer(peer: Peer, rows: datasets.Dataset) -> Trainer:
    """Return a Trainer ready to train on `rows`; SystemExit where it would not train what peftbench does."""
    transformers.set_seed(peer.seed)
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the precision of the process' first Trainer
    precision = os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if peer.bf16 else "no"
    model = bare_model(peer.folder, peer.num_outputs, peer.dropout)
    if peer.lora:
        model = get_peft_model(model, LoraConfig(**peer.lora))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if trained != peer.trained:
        raise SystemExit(f"the peer would train {trained:,} parameters and peftbench {peer.trained:,}")
    tokenizer = AutoTokenizer.from_pretrained(peer.folder)
    data = tokenized(rows, tokenizer, peer)
    trainer = Trainer(
        model=model,
        args=arguments_of(peer),
        train_dataset=data,
        processing_class=tokenizer,
        data_collator=transformers.default_data_collator if peer.padding == "max_length" else None,
    )
    if trainer.accelerator.mixed_precision != precision:
        raise SystemExit(f"the peer would compute in {trainer.accelerator.mixed_precision}, not in {precision}")
    trainer.remove_callback(PrinterCallback)
    return trainer


def tokenized(rows: datasets.Dataset, tokenizer: Any, peer: Peer) -> datasets.Dataset:
    texts = [name for name in rows.column_names if name.startswith("text")]

    def tokenize(batch: dict[str, list[str]]) -> Any:
        return tokenizer(
            *(batch[name] for name in texts),
            padding="max_length" if peer.padding == "max_length" else False,
            max_length=peer.max_length,
            truncation=True,
        )

    return rows.map(tokenize, batched=True)


def grouped_order(rows: datasets.Dataset, batch_size: int, whole: int) -> list[int]:
    """Return the order that the Trainer's length grouping gives, as tight as over the `whole` split.

    Over few rows its sampler sorts short stretches and pads a tenth more than over the split it is used on.
    """
    lengths = [len(ids) for ids in rows["input_ids"]]
    return get_length_grouped_indices(lengths, batch_size, max(1, min(whole // (batch_size * 4), 50)))


def peer_scores(trainer: Trainer, peer: Peer, rows: datasets.Dataset, metrics: list[str]) -> dict[str, float]:
    """Return the metrics on `rows`, computed by peftbench from the Trainer's predictions."""
    from peftbench.tasks.metrics import score

    output = trainer.predict(tokenized(rows, trainer.processing_class, peer))
    logits = np.asarray(output.predictions)
    predictions = logits.argmax(-1) if peer.num_outputs > 1 else logits.squeeze(-1)
    # the Trainer's own labels: with length grouping it predicts in another order than the rows'
    return score(metrics, predictions, np.asarray(output.label_ids), peer.num_outputs)


class Clock(TrainerCallback):
    """When the first step ended (`time.time`), and how many seconds the last epoch took."""

    def __init__(self) -> None:
        self.first_step: float | None = None
        self.seconds = 0.0
        self._begun = 0.0

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the epoch's clock."""
        self._begun = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the first."""
        self.first_step = self.first_step or time.time()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop the epoch's clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._begun


def run(command: list[str], folder: Path) -> str:
    """Run Python without the hub, its data cache in `folder`; return the output, or exit with the errors."""
    paths = filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
    more = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run([sys.executable, *command], env={**os.environ, **more}, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ran.stderr}")
    return ran.stdout


def run_peer(peer: Peer, rows: Path, steps: int, folder: Path) -> dict[str, Any]:
    """Train in a process of its own; return startup (seconds to the first step) and peak memory in bytes."""
    order = folder / "peer.json"
    order.write_text(json.dumps({"peer": asdict(peer), "rows": str(rows), "steps": steps}), encoding="utf-8")
    # the clock starts before anything is imported, as peftbench's does
    start = "import time; started = time.time(); import peers; peers.child(started)"
    return json.loads(run(["-c", start, str(order)], folder).splitlines()[-1])


def child(started: float) -> None:
    """Do what `run_peer` asks, in its process."""
    from peftbench.measuring.memory import peak_memory

    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    peer = Peer(**order["peer"])
    torch.set_num_threads(peer.threads)
    rows = datasets.load_dataset("json", data_files=order["rows"], split="train")
    trainer, clock = peer_trainer(peer, rows), Clock()
    trainer.add_callback(clock)
    trainer.args.max_steps = order["steps"]
    trainer.train()
    assert clock.first_step is not None
    memory = peak_memory(torch.device("cpu" if peer.cpu else "cuda"))
    print(json.dumps({"startup": clock.first_step - started, **memory}))


def show(title: str, note: str, header: list[str], rows: list[list[str]]) -> str:
    """Print a table on the terminal and return it as Markdown."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=note, title_justify="left", caption_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join([f"### {title}", "", *(f"| {' | '.join(line)} |" for line in lines), "", note, ""])


def arguments_of(peer: Peer) -> TrainingArguments:
    """Return the Trainer's settings that train as peftbench does."""
    trainer = peer.trainer
    sampling = PADDINGS[peer.padding][1] if peer.padding in PADDINGS else "sequential"
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),
        num_train_epochs=trainer["epochs"],
        per_device_train_batch_size=trainer["batch_size"],
        per_device_eval_batch_size=trainer["eval_batch_size"],
        gradient_accumulation_steps=trainer["accumulate"],
        learning_rate=trainer["lr"],
        weight_decay=trainer["weight_decay"],
        adam_beta1=trainer["betas"][0],
        adam_beta2=trainer["betas"][1],
        lr_scheduler_type=_SCHEDULES[trainer["schedule"]],
        warmup_steps=trainer["warmup"],  # below 1 it is a share of all steps
        max_grad_norm=trainer["clip"] or 0.0,
        train_sampling_strategy=sampling,
        seed=peer.seed,
        use_cpu=peer.cpu,
        bf16=peer.bf16,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
