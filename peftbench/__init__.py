"""Run, measure and compare parameter-efficient fine-tuning methods.

The public API: `load` answers texts with a finished run, `runs` lists the runs there are. Importing it is quick;
torch is imported when a run is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from peftbench import runs

if TYPE_CHECKING:
    from peftbench.serving.predictor import Predictor

__all__ = ["load", "runs"]
__version__ = "0.1.0"


def load(
    run: str | Path,
    output_dir: str | Path = "outputs",
    *,
    device: str = "auto",
    merged: bool = False,
    batch_size: int | None = None,
) -> "Predictor":
    """Load a finished run, ready to answer: `peftbench.load(RUN).predict(["a text", "another"])`.

    Args:
        run: its folder, its id, the start of the id, or its hash.
        output_dir: where the records lie, if `run` is not a folder.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        merged: fold the method into the backbone's weights, where that is possible: no cost at inference.
        batch_size: rows in one forward pass; None takes the run's `trainer.eval_batch_size`.

    Raises UserError where the run is not there, has not finished or is damaged, where its model is gone, and where
    its method cannot be merged.
    """
    from peftbench.serving.predictor import load_predictor

    return load_predictor(run, output_dir, device, merged, batch_size)
