"""Gradient checkpointing: the same gradients, dropout included, with every method's hooks, and less is kept."""

from itertools import product

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model

from peftbench.backbones.economy.attach import economical
from peftbench.backbones.economy.first_token import head_reads_first_token
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.fusion import FusionConfig
from peftbench.methods.lora import LoraConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

METHODS = {
    "adapter": AdapterConfig(bottleneck=4),
    "compacter": CompacterConfig(bottleneck=4),
    "parallel": ParallelConfig(bottleneck=4),
    "lora": LoraConfig(rank=2, targets=["all"], dropout=0.2),
    "prefix": PrefixConfig(length=3),
    "reparametrized": PrefixConfig(length=3, reparametrize=True, mid_dim=8),
    "prompt": PromptConfig(length=3),
    "fusion": FusionConfig(runs={"a": "a", "b": "b"}),
    "full": FullConfig(),
}


def _gradients(architecture, config, precision, checkpointing):
    """Return logits, gradients, and how many bytes the forward pass kept for the backward pass."""
    model = tiny_model(architecture)
    model.requires_grad_(False)
    sites = find_sites(model)
    torch.manual_seed(1)
    method = build(config, sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    reads_first_token_only = head_reads_first_token(sites)
    model.train()
    kept = []
    with economical(sites, method, reads_first_token_only, precision, checkpointing=checkpointing):
        torch.manual_seed(2)
        counting = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t)
        with counting, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(**tiny_batch()).logits.float()
        (logits**2).sum().backward()
    assert list(model.state_dict()) == list(tiny_model(architecture).state_dict())
    return logits.detach(), {n: p.grad for n, p in method.named_parameters() if p.grad is not None}, sum(kept)


@pytest.mark.parametrize(
    ("architecture", "name", "precision"),
    [*product(ARCHITECTURES, METHODS, ["fp32"]), *product(["bert"], METHODS, ["bf16"])],
)
def test_gradients_are_the_same_with_less_kept(architecture, name, precision):
    logits, gradients, kept = _gradients(architecture, METHODS[name], precision, False)
    logits_again, gradients_again, kept_less = _gradients(architecture, METHODS[name], precision, True)
    assert torch.equal(logits, logits_again)
    assert gradients.keys() == gradients_again.keys() and gradients
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[parameter], gradient, rtol=0, atol=0, msg=parameter)
    assert kept_less < kept
