"""How an exported model's answers compare with its run's."""

from dataclasses import dataclass

import numpy as np

from peftbench.errors import PeftbenchError

# as a share of the largest logit: what rounding explains where the same products are summed in another order
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Certificate:
    """How an exported model's answers compare with its run's, both in fp32.

    Attributes:
        library: what loaded the export in a process of its own, with its version; None where the library that it is
            for was not at hand, and peftbench itself read it back.
        examples: of the validation split. largest_difference: of two logits.
        equal: how many examples get the same class; None for a regression.
    """

    library: str | None
    examples: int
    largest_difference: float
    equal: int | None


def compare(run_logits: np.ndarray, exported_logits: np.ndarray, library: str | None) -> Certificate:
    """Return the certificate of two sets of logits, (examples, outputs).

    Raises PeftbenchError where they differ by more than rounding explains.
    """
    largest = float(np.abs(run_logits - exported_logits).max())
    if not largest <= TOLERANCE * max(1.0, float(np.abs(run_logits).max())):
        raise PeftbenchError(
            f"the exported model does not answer as the run does: logits differ by up to {largest:.2g}; nothing is kept"
        )
    equal = int((run_logits.argmax(1) == exported_logits.argmax(1)).sum()) if run_logits.shape[1] > 1 else None
    return Certificate(library, len(run_logits), largest, equal)
