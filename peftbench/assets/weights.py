"""Which files make a pretrained model, and the digest that tells it from any other."""

import hashlib
import re
from pathlib import Path

from peftbench.assets.cache import file_digest

CONFIG_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",  # SentencePiece
    "preprocessor_config.json",
    "processor_config.json",
]
# the second kind is read where there is none of the first
SAFETENSORS = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
PICKLED = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def weights_digest(folder: Path, source: str) -> str:
    """Return what tells the model in a folder from any other, whatever the folder is called.

    `commit:` and the 40 digits of the commit of a hub's snapshot, whose files have been checked; of any other folder
    `sha256:` and 64 digits, of its weights, config and tokenizer. Files are read once (see `file_digest`).

    Args:
        folder: of the model. source: it comes from, as in `fetch`: one named as a folder may have changed.
    """
    if source == "hub" and (commit := snapshot_commit(folder)):
        return f"commit:{commit}"
    digest = hashlib.sha256()
    for path in model_files(folder):
        digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def model_files(folder: Path) -> list[Path]:
    """Return the files in a folder that transformers reads of a model, sorted by name."""
    weights = _matching(folder, SAFETENSORS) or _matching(folder, PICKLED)
    return sorted({*weights, *_matching(folder, CONFIG_FILES)})


def has_weights(folder: Path) -> bool:
    """Tell whether there are weights of either kind."""
    return bool(_matching(folder, SAFETENSORS + PICKLED))


def snapshot_commit(folder: Path) -> str | None:
    """Return the commit where the folder is a snapshot in the hub's cache (models--*/snapshots/<commit>)."""
    folder = folder.absolute()
    inside = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return folder.name if inside and re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def _matching(folder: Path, patterns: list[str]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
