"""Started by its path in a fresh process, without peftbench: what an exported folder answers in its own library.

    python reload.py merged|peft|adapters FOLDER EXAMPLES.json LOGITS.npy

EXAMPLES.json holds `texts` (a list of lists of one or two strings) and `max_length`, or `images` (files); `batch_size`;
`call` (settings of the model's call); and for peft and adapters `base` (the folder of the base model), `outputs` (the
head's width) and `attention` (the implementation, null: any). LOGITS.npy gets the logits, (examples, outputs), float32.
Prints the library's name and version.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer


def load_merged(folder: str, given: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return an ordinary folder's model, its tokenizer or image processor, and what loaded them."""
    return (
        _auto_model(given).from_pretrained(folder),
        _processor(folder, given),
        f"transformers {transformers.__version__}",
    )


def load_peft(folder: str, given: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return the base model with the adapter on it, its tokenizer or image processor, and what loaded them."""
    import peft

    # as peftbench trained it, whatever it was saved in; transformers 4, which adapters needs, does that by itself
    model = peft.PeftModel.from_pretrained(_base_model(given, dtype=torch.float32), folder)
    at = folder if "images" in given else given["base"]
    return model, _processor(at, given), f"peft {peft.__version__}"


def load_adapters(folder: str, given: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return the base model with the adapter and head in it, its tokenizer, and what loaded them."""
    import adapters

    model = _base_model(given)
    adapters.init(model)
    model.load_adapter(folder, set_active=True, use_safetensors=True)
    return model, AutoTokenizer.from_pretrained(given["base"]), f"adapters {adapters.__version__}"


def _base_model(given: dict[str, Any], **more: Any) -> Any:
    if given["attention"]:
        more["attn_implementation"] = given["attention"]
    return _auto_model(given).from_pretrained(
        given["base"], num_labels=given["outputs"], ignore_mismatched_sizes=True, **more
    )


def _auto_model(given: dict[str, Any]) -> Any:
    return getattr(transformers, f"AutoModelFor{'Image' if 'images' in given else 'Sequence'}Classification")


def _processor(folder: str, given: dict[str, Any]) -> Any:
    if "texts" in given:
        return AutoTokenizer.from_pretrained(folder)
    return transformers.AutoImageProcessor.from_pretrained(folder)


def _batch(processor: Any, given: dict[str, Any], rows: slice) -> Any:
    """Return these examples as the model takes them."""
    if "images" in given:
        from PIL import Image

        return processor([Image.open(path).convert("RGB") for path in given["images"][rows]], return_tensors="pt")
    columns = [list(column) for column in zip(*given["texts"][rows], strict=True)]
    return processor(*columns, truncation=True, max_length=given["max_length"], padding=True, return_tensors="pt")


def main(target: str, folder: str, examples: str, logits: str) -> None:
    """Answer the examples."""
    given = json.loads(Path(examples).read_text(encoding="utf-8"))
    model, processor, library = globals()[f"load_{target}"](folder, given)
    model.eval()
    found, size = [], given["batch_size"]
    with torch.inference_mode():
        for start in range(0, len(given.get("images") or given["texts"]), size):
            batch = _batch(processor, given, slice(start, start + size))
            found.append(model(**batch, **given["call"]).logits.float().numpy())
    np.save(logits, np.concatenate(found))
    print(library)


if __name__ == "__main__":
    main(*sys.argv[1:])
