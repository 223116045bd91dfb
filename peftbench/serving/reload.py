"""Started by its path in a fresh process, without peftbench: what an exported folder answers in plain transformers.

    python reload.py FOLDER EXAMPLES.json LOGITS.npy

EXAMPLES.json holds `texts` (a list of lists of one or two strings), `max_length` and `batch_size`; LOGITS.npy gets the
logits, (examples, outputs), float32.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main(folder: str, examples: str, logits: str) -> None:
    """Answer the examples."""
    given = json.loads(Path(examples).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    columns = list(zip(*given["texts"], strict=True))
    found = []
    with torch.inference_mode():
        for start in range(0, len(given["texts"]), given["batch_size"]):
            rows = (list(column[start : start + given["batch_size"]]) for column in columns)
            batch = tokenizer(*rows, truncation=True, max_length=given["max_length"], padding=True, return_tensors="pt")
            found.append(model(**batch).logits.float().numpy())
    np.save(logits, np.concatenate(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
