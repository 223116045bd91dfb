"""Tuners of Hugging Face peft: each acts as in peft's own model, trains what peft trains, merges, is saved whole."""

import contextlib
import copy
import io
import warnings

import pytest
import torch
from tiny import headed, tiny_batch, tiny_model

pytest.importorskip("peft", reason="needs the extra peft")

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

from peftbench.backbones.economy.attach import economical
from peftbench.config.fill import fill
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.guard import check_method
from peftbench.methods.lora import LoraConfig
from peftbench.methods.peft import PeftConfig
from peftbench.methods.peft_layers import tuner_settings
from peftbench.runs.adapter import load_adapter, save_adapter
from peftbench.training import checkpoint

# what peft's defaults are too large for in a model of width 32
SETTINGS = {
    "adamss": {},
    "beft": {},
    "boft": {},
    "c3a": {"block_size": 8},
    "deft": {},
    "delora": {},
    "fourierft": {"n_frequency": 64},
    "frod": {},
    "glora": {},
    "gralora": {},
    "hira": {},
    "hra": {},
    "ia3": {},
    "ln_tuning": {"target_modules": ["LayerNorm"]},
    "loha": {},
    "lokr": {},
    "lora": {"lora_dropout": 0.1},
    "miss": {"r": 8},
    "oft": {},
    "osf": {},
    "peanut": {},
    "psoft": {},
    "pvera": {},
    "randlora": {},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "supertuning": {},
    "tinylora": {},
    "unilora": {},
    "vblora": {"vector_length": 8, "num_vectors": 16},
    "vera": {},
    "waveft": {"n_frequency": 64},
}


def biased_backbone(architecture="bert"):
    """Biases away from zero, which GLoRA scales."""
    model = tiny_model(architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    return headed(model)


def shaken(config, backbone):
    torch.manual_seed(5)
    method = build(config, backbone.sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


def peft_s_own(config, method, base):
    """The encoder as peft itself makes it, with the method's tensors in it."""
    encoder, settings = copy.deepcopy(base), tuner_settings(config.type, config.config)
    torch.manual_seed(5)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        PEFT_TYPE_TO_TUNER_MAPPING[settings.peft_type](encoder, settings, "default")
    ours = {n.removeprefix("tuners.").replace("/", "."): p for n, p in method.named_parameters()}
    theirs = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    assert set(theirs) == set(ours), "what peft trains is what we train"
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    return encoder.eval(), theirs


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_tuner_is_the_one_of_peft(kind, tmp_path):
    backbone = biased_backbone()
    model, base, config = backbone.model, backbone.sites.base, PeftConfig(kind, SETTINGS[kind])
    before, names = model(**tiny_batch()).logits, list(model.state_dict())
    method = shaken(config, backbone)
    assert check_method(method, backbone, 12) == []
    assert method.count(config, backbone.sites) == sum(p.numel() for p in method.parameters())

    encoder, theirs = peft_s_own(config, method, base)
    expected = encoder(**tiny_batch()).last_hidden_state
    expected.square().sum().backward()
    with method.on(backbone.sites):
        assert list(model.state_dict()) == names
        hidden = base(**tiny_batch()).last_hidden_state
        hidden.square().sum().backward()
        logits = model(**tiny_batch()).logits
        with torch.no_grad():
            method.merge()
            torch.testing.assert_close(model(**tiny_batch()).logits, logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-6)
    for name, parameter in method.named_parameters():
        other = theirs[name.removeprefix("tuners.").replace("/", ".")]
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)

    assert torch.equal(model(**tiny_batch()).logits, before), "detached, merged or not, the backbone is as it was"
    save_adapter(tmp_path / "adapter", method, backbone, {}, {}, [])
    torch.manual_seed(99)  # what is drawn at the start is saved
    again = load_adapter(tmp_path / "adapter", backbone)
    assert torch.equal(model(**tiny_batch()).logits, logits)
    again.detach()


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_tuner_trains_in_bf16(kind):
    backbone = biased_backbone()
    method, model = shaken(PeftConfig(kind, SETTINGS[kind]), backbone), backbone.model
    buffers = {name: tensor.clone() for name, tensor in method.named_buffers()}
    with method.on(backbone.sites), torch.no_grad():
        exact = model.eval()(**tiny_batch()).logits
    with economical(backbone.sites, method, True, "bf16"):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.train()(**tiny_batch()).logits.float().square().sum()
        loss.backward()
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            logits = model.eval()(**tiny_batch()).logits.float()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()
    # a checkpoint holds what trains alone
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in method.named_buffers())


def test_lora_of_peft_is_ours():
    backbone = biased_backbone()
    theirs = shaken(PeftConfig("lora", {"r": 4, "lora_alpha": 8}), backbone)
    ours = build(LoraConfig(rank=4, alpha=8), backbone.sites)
    pairs = [
        (update, theirs.tuners[f"encoder/layer/{layer}/attention/self/{name}"])
        for name, updates in ours.updates.items()
        for layer, update in enumerate(updates)
    ]
    with torch.no_grad():
        for update, tuner in pairs:
            update.a.copy_(tuner.lora_A["default"].weight)
            update.b.copy_(tuner.lora_B["default"].weight)
    logits = []
    for method in (theirs, ours):
        with method.on(backbone.sites):
            logits.append(backbone.model(**tiny_batch()).logits)
            logits[-1].square().sum().backward()
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-6)
    for update, tuner in pairs:
        torch.testing.assert_close(update.a.grad, tuner.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(update.b.grad, tuner.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-5)


def test_beside_other_methods_in_any_order():
    backbone = biased_backbone()
    model, sites = backbone.model, backbone.sites
    bare = model(**tiny_batch()).logits
    tuner, ours = shaken(PeftConfig("oft"), backbone), shaken(LoraConfig(rank=2), backbone)
    ours.attach(sites)
    alone = model(**tiny_batch()).logits
    tuner.attach(sites)
    both = model(**tiny_batch()).logits
    with pytest.raises(UserError, match="already"):
        shaken(PeftConfig("vera"), backbone).attach(sites)
    with pytest.raises(UserError, match="another order"):
        ours.merge()
    assert torch.equal(model(**tiny_batch()).logits, both)
    tuner.detach()
    assert torch.equal(model(**tiny_batch()).logits, alone)
    tuner.attach(sites)
    ours.detach()
    assert (model(**tiny_batch()).logits - both).abs().max() > 1e-4
    tuner.detach()
    assert torch.equal(model(**tiny_batch()).logits, bare)


def test_dropout_follows_the_backbone_s_mode():
    backbone = biased_backbone()
    method = shaken(PeftConfig("lora", {"lora_dropout": 0.5}), backbone)
    with method.on(backbone.sites), torch.no_grad():
        first, second = (backbone.model.eval()(**tiny_batch()).logits for _ in range(2))
        assert torch.equal(first, second)
        backbone.sites.base.train()
        assert not torch.equal(*(backbone.model(**tiny_batch()).logits for _ in range(2)))


def test_a_pooler_that_the_head_trains_is_not_the_tuner_s():
    model = tiny_model("bert")
    whole = build(PeftConfig("lora", {"target_modules": "all-linear"}), headed(model).sites)
    fresh = frozenset({"pooler.dense.weight", "pooler.dense.bias"})
    without = build(PeftConfig("lora", {"target_modules": "all-linear"}), headed(model, fresh).sites)
    assert set(whole.tuners) - set(without.tuners) == {"pooler/dense"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "veraa"}, "no such tuner. Did you mean vera"),
        ({"type": "adalora"}, "a training loop of its own"),
        ({"type": "lily"}, "depend on the other texts"),
        ({"type": "p_tuning"}, "take method=prompt or method=prefix"),
        ({"type": "vera", "config": {"rank": 3}}, "vera has no setting 'rank' here"),
        ({"config": {"modules_to_save": ["pooler"]}}, "no setting 'modules_to_save' here"),
        ({"config": {"megatron_config": {}, "megatron_core": "this"}}, "no setting 'megatron_config' here"),
        ({"config": {"init_lora_weights": "eva"}}, "needs a pass over the data"),
        ({"config": 3}, "is not of type"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        build(fill(PeftConfig, values, "method"), biased_backbone().sites)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("lora", {"r": 0}, "positive integer"),
        ("c3a", {"block_size": 7}, "factor of the input size"),
        ("lora", {"target_modules": ["nothing"]}, "not found in the base model"),
        ("ln_tuning", {}, r"target_modules: \[attention.output.LayerNorm, output.LayerNorm\]"),
        ("lora", {"init_lora_weights": "pissa"}, "rewrites the backbone's own weights"),
        ("lora", {"bias": "all"}, "leave bias at none"),
        ("lora", {"layer_replication": [[0, 2], [1, 2]]}, "leave layer_replication"),
    ],
)
def test_what_cannot_be_done_to_the_encoder_is_one_line(kind, config, message):
    backbone = biased_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        build(PeftConfig(kind, config), backbone.sites)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


def test_without_peft_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("peftbench.methods.peft_layers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'peftbench\[peft\]'"):
        PeftConfig("vera")


@pytest.mark.parametrize("kind", ["pvera", "randlora", "vera"])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(kind, train_tiny, monkeypatch):
    line = ["opinions", "method=peft", f"method.type={kind}", "trainer.lr=0.01"]
    whole = train_tiny(*line, "experiment=whole")

    def save_and_stop(*args):
        checkpoint.save_checkpoint(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("peftbench.training.progress.save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(*line, "experiment=stopped")
    stopped = train_tiny(*line, "experiment=stopped")
    name = "adapter.safetensors"
    assert (stopped.adapter_dir / name).read_bytes() == (whole.adapter_dir / name).read_bytes()
    assert stopped.read().evaluations[0].metrics == whole.read().evaluations[0].metrics
