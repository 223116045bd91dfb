"""A small table of two seeds and three rows, on the tiny model."""

import pytest

from peftbench.cli import main

TABLE = """
title: Tiny
base: [experiment=tiny, model=local, model.path={model}, task=text_file, task.max_length=32, {splits}
       trainer.epochs=2, trainer.batch_size=8, device=cpu, threads=1, measure.seconds=0.02, "measure.batches=[1]",
       "measure.lengths=[8]", output_dir={outputs}]
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
        table = "table=tiny" if command == "sweep" else "tiny"
        return [command, table, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", *argv]

    run.outputs, run.line, run.spec = outputs, line, folder / "tiny.yaml"
    return run
