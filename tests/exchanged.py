"""Methods with tensors as if trained, on tiny backbones: what goes out to other libraries and comes in from them."""

from pathlib import Path

import torch
from tiny import headed, tiny_batch, tiny_model

from peftbench.backbones.heads import HeadedBackbone
from peftbench.methods import Method, build
from peftbench.serving.exchange.bring_in import read_folder, read_method


def backbone_of(architecture: str) -> HeadedBackbone:
    return headed(tiny_model(architecture, num_labels=3))


def drawn(config, backbone: HeadedBackbone) -> Method:
    """A method of this config, its tensors and the head's far from where they start."""
    torch.manual_seed(1)
    method = build(config, backbone.sites)
    with torch.no_grad():
        for parameter in (*method.parameters(), *backbone.head.values()):
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return method


@torch.no_grad()
def answers(method: Method, backbone: HeadedBackbone) -> torch.Tensor:
    """Logits of three rows, two of them padded, (3, 3)."""
    with method.on(backbone.sites):
        return backbone.model(**tiny_batch()).logits


def read_back(folder: Path, architecture: str) -> tuple[Method, torch.Tensor]:
    """The method that a folder holds, and what it and the head answer on a new backbone."""
    backbone = backbone_of(architecture)
    method = read_method(read_folder(folder), backbone)
    return method, answers(method, backbone)
