"""What is made of frozen tensors is made once, and anew when they change; of tensors that train, in each pass."""

import pytest
import torch
from tiny import tiny_batch, tiny_model

from peftbench.methods import build, find_sites
from peftbench.methods.mam import MamConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.unchanged import WhileUnchanged


def test_made_anew_when_a_tensor_or_a_setting_changes():
    weight, made = torch.ones(2, 2), []
    kept = WhileUnchanged[torch.Tensor]()

    def product(*settings):
        return kept.get([weight], lambda: made.append(1) or weight @ weight, *settings)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product().dtype == torch.float32 and product() is product() and len(made) == 1
    weight.add_(1)
    assert product()[0, 0] == 8 and len(made) == 2
    assert product([0]) is product([0]) and len(made) == 3
    weight.requires_grad_(True)
    assert product().requires_grad and product() is not product()
    weight.data.numpy().fill(3)  # as a fused optimizer changes it, without a trace
    assert product([0])[0, 0] == 18 and not weight.requires_grad_(False).requires_grad and product([0])[0, 0] == 18


@pytest.mark.parametrize("config", [PrefixConfig(length=3, reparametrize=True, mid_dim=6), MamConfig(length=3)])
def test_the_network_of_a_frozen_prefix_runs_once(config):
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(config, sites)
    prefix, runs = getattr(method, "prefix", method), []
    prefix.network.register_forward_hook(lambda *_: runs.append(1))

    def answer():
        with torch.inference_mode():
            return model(**tiny_batch()).logits.clone()

    with method.on(sites):
        trained = answer()
        method.requires_grad_(False)
        runs.clear()
        assert torch.equal(answer(), trained) and torch.equal(answer(), trained) and len(runs) == 1
        method.load_state_dict({name: tensor + 0.1 for name, tensor in method.state_dict().items()})
        assert not torch.allclose(answer(), trained) and len(runs) == 2


def test_tensors_of_inference_mode_have_no_versions():
    with torch.inference_mode():
        weight = torch.ones(2, 2)
        kept = WhileUnchanged[torch.Tensor]()
        assert kept.get([weight], lambda: weight @ weight)[0, 0] == 2
