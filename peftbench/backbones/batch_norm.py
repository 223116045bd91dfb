"""Batch norm for maps of any size, one place of one picture included."""

import torch
from torch import nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """torch's, which takes its running means where a channel has one value alone: that one has no deviation."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(batch, channels, rows, columns) → the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def with_batch_norms(module: nn.Module) -> nn.Module:
    """Put this norm in the place of each of torch's inside a module, its channels alike; returns the module."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, BatchNorm(child.num_features))
    return module
