"""Load what turns examples into a model's input: its tokenizer, or its image processor."""

from pathlib import Path
from typing import Any

from peftbench.backbones.inputs import IDS

# an image processor that transformers has for torchvision alone
_NEEDS_TORCHVISION = "DINOv3ViTImageProcessor"


def load_processor(folder: Path, model: Any) -> Any:
    """Load what turns examples into the model's input: a tokenizer, or an image processor."""
    return load_tokenizer(folder) if model.main_input_name == IDS else load_image_processor(folder)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder; ValueError where it has no vocabulary."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _check_tokenizer(folder, tokenizer)
    return tokenizer


def load_image_processor(folder: Path) -> Any:
    """Load the image processor of a folder; ValueError where there is none that works here."""
    from transformers import AutoImageProcessor, ViTImageProcessorPil

    if not any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError("it has no preprocessor_config.json; save one there with processor.save_pretrained")
    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        if _NEEDS_TORCHVISION not in str(error):
            raise
        # it resizes, rescales and normalizes as ViT's does, which does it with Pillow
        return ViTImageProcessorPil.from_pretrained(folder)


def _check_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Refuse a folder without a vocabulary: transformers makes a tokenizer up that knows no word."""
    files = sorted(set(tokenizer.vocab_files_names.values()))
    if files and not any((folder / name).exists() for name in files):
        raise ValueError(f"it has no tokenizer ({' or '.join(files)}); save one there with tokenizer.save_pretrained")
