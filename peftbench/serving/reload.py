"""Started by its path in a fresh process, without peftbench: what an exported folder answers in its own library.

    python reload.py merged|peft|adapters FOLDER EXAMPLES.json LOGITS.npy

EXAMPLES.json holds `texts` (a list of lists of one or two strings), `max_length`, `batch_size`, and for peft and
adapters `base` (the folder of the base model), `outputs` (the head's width) and `attention` (the implementation, null:
any); LOGITS.npy gets the logits, (examples, outputs), float32. Prints the library's name and version.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def load_merged(folder: str, given: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return an ordinary folder's model and tokenizer, and what loaded them."""
    import transformers

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder), f"transformers {transformers.__version__}"


def load_peft(folder: str, given: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return the base model with the adapter on it, its tokenizer, and what loaded them."""
    import peft

    model = peft.PeftModel.from_pretrained(_base_model(given), folder)
    return model, AutoTokenizer.from_pretrained(given["base"]), f"peft {peft.__version__}"


def load_adapters(folder: str, given: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return the base model with the adapter and head in it, its tokenizer, and what loaded them."""
    import adapters

    model = _base_model(given)
    adapters.init(model)
    model.load_adapter(folder, set_active=True, use_safetensors=True)
    return model, AutoTokenizer.from_pretrained(given["base"]), f"adapters {adapters.__version__}"


def _base_model(given: dict[str, Any]) -> Any:
    more = {"attn_implementation": given["attention"]} if given["attention"] else {}
    return AutoModelForSequenceClassification.from_pretrained(
        given["base"], num_labels=given["outputs"], ignore_mismatched_sizes=True, **more
    )


def main(target: str, folder: str, examples: str, logits: str) -> None:
    """Answer the examples."""
    given = json.loads(Path(examples).read_text(encoding="utf-8"))
    model, tokenizer, library = globals()[f"load_{target}"](folder, given)
    model.eval()
    columns = list(zip(*given["texts"], strict=True))
    found = []
    with torch.inference_mode():
        for start in range(0, len(given["texts"]), given["batch_size"]):
            rows = (list(column[start : start + given["batch_size"]]) for column in columns)
            batch = tokenizer(*rows, truncation=True, max_length=given["max_length"], padding=True, return_tensors="pt")
            found.append(model(**batch).logits.float().numpy())
    np.save(logits, np.concatenate(found))
    print(library)


if __name__ == "__main__":
    main(*sys.argv[1:])
