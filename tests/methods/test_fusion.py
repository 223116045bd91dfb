"""AdapterFusion's mathematics: against the library's tensors, its start, its penalty, what it observes."""

from dataclasses import replace

import pytest
import torch
from test_golden import Golden
from tiny import headed, tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.fusion import FusionConfig
from peftbench.methods.pfeiffer import PfeifferConfig

TENSORS = {
    "down_weight": "adapter_down.0.weight",
    "down_bias": "adapter_down.0.bias",
    "up_weight": "adapter_up.weight",
    "up_bias": "adapter_up.bias",
}
TRAINED = ("query.weight", "query.bias", "key.weight", "key.bias", "value.weight")
SMALL = {"name": "pfeiffer", "bottleneck": 4}


def fusion_of(*names, **settings):
    return FusionConfig(runs={name: name for name in names}, adapter_method=SMALL, **settings)


@pytest.mark.parametrize("kind", ["float32-sdpa", "float32-eager", "float64-eager"])
@pytest.mark.parametrize("loss", ["sumsq", "maskedR"])
def test_the_library_s_fusion_of_three(golden_dir, kind, loss):
    dtype, attention = kind.split("-")
    g = Golden(golden_dir, "ad_fusion_dynamic3", attention, getattr(torch, dtype))
    parts = {
        name: {
            f"bottlenecks.{layer}.{ours}": g.adapter[f"encoder.layer.{layer}.output.adapters.{name}.{theirs}"]
            for layer in range(2)
            for ours, theirs in TENSORS.items()
        }
        for name in "abc"
    }
    config = FusionConfig(runs={name: name for name in "abc"}, adapter_method={"name": "pfeiffer", "bottleneck": 8})
    method = build(config, g.sites, parts).to(g.dtype)
    names = {
        f"adapters.bottlenecks.{layer}.{name}": f"encoder.layer.{layer}.output.adapter_fusion_layer.a,b,c.{name}"
        for layer in range(2)
        for name in TRAINED
    }
    own = dict(method.named_parameters())
    assert set(own) == set(names), "Q, K and V train, the adapters do not"
    with torch.no_grad():
        for ours, theirs in names.items():
            own[ours].copy_(g.adapter[theirs])
    before = g.model(**g.inputs).last_hidden_state
    with method.on(g.sites):
        hidden = g.model(**g.inputs).last_hidden_state
        g.close(hidden, g.hidden)
        if loss == "sumsq":
            (hidden**2).sum().backward()
        else:
            (hidden * g.tensors["R"].to(g.dtype) * g.inputs["attention_mask"][..., None]).sum().backward()
    expected = g.gradients(loss)
    largest = max(gradient.abs().max() for gradient in expected.values())
    tolerance = 1e-10 if g.dtype == torch.float64 else 1e-5
    for ours, theirs in names.items():
        # the last layer's scores hardly change sum(h²): its gradients of 1e-2 are what is left of terms of 1e2
        assert (own[ours].grad - expected[theirs]).abs().max() <= tolerance * largest
    assert torch.equal(before, g.model(**g.inputs).last_hidden_state), "detach leaves no trace"


def test_it_starts_with_values_as_they_are():
    method = build(fusion_of("a", "b"), find_sites(tiny_model("bert")))
    for block in method.adapters.bottlenecks:
        off_diagonal = block.value.weight - torch.eye(32)
        assert torch.equal(block.value.weight.diagonal(), torch.ones(32))
        assert off_diagonal[~torch.eye(32, dtype=torch.bool)].unique().tolist() == pytest.approx([1e-6])
        assert not block.query.bias.any() and not block.key.bias.any()
        assert 0.017 < block.query.weight.std() < 0.023


def test_of_equal_adapters_it_is_each_of_them():
    """Their weights sum to 1, and V passes them on."""
    model = tiny_model("bert")
    sites = find_sites(model)
    single = build(PfeifferConfig(bottleneck=4), sites)
    method = build(fusion_of("a", "b", "c"), sites, dict.fromkeys("abc", single.state_dict()))
    with torch.no_grad():
        with single.on(sites):
            expected = model(**tiny_batch()).logits
        with method.on(sites):
            torch.testing.assert_close(model(**tiny_batch()).logits, expected, rtol=1e-3, atol=1e-4)


def test_scores_drop_out_as_the_model_s_attention_does_while_the_model_trains():
    model = tiny_model("bert", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    sites = find_sites(model)
    method = build(fusion_of("a", "b"), sites)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # what is random now is the fusion's own
    with torch.no_grad(), method.on(sites):
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter))
        assert torch.equal(model(**tiny_batch()).logits, model(**tiny_batch()).logits), "not while it is evaluated"
        model.train()
        assert not torch.equal(model(**tiny_batch()).logits, model(**tiny_batch()).logits)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "adapter", "bottleneck": 4, "position": "both", "train_layer_norm": False, "init_std": 0.3},
        {"name": "adapter", "bottleneck": 4, "position": "every", "train_layer_norm": False, "init_std": 0.3},
        {"name": "adapter", "bottleneck": 4, "position": "output", "train_layer_norm": False, "init_std": 0.3},
        {"name": "parallel", "bottleneck": 4, "scale": 2.0, "layers": "1"},
        {"name": "pfeiffer", "bottleneck": 4, "layers": "1"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_kind_that_can_be_fused(settings):
    """What is counted trains, two equal adapters are each of them, and every place is told of."""
    model = tiny_model("bert")
    sites = find_sites(model)
    config = FusionConfig(runs={"a": "a", "b": "b"}, adapter_method=settings)
    single = build(config.fused, sites)
    with torch.no_grad():
        for parameter in single.parameters():
            parameter.normal_(std=0.2)
    method = build(config, sites, {"a": single.state_dict(), "b": single.state_dict()})
    assert sum(p.numel() for p in method.parameters()) == method.count(config, sites)
    with torch.no_grad(), single.on(sites):
        expected = model(**tiny_batch()).logits
    with torch.no_grad(), method.on(sites), method.observed() as told:
        found = model(**tiny_batch()).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    places = told()["places"]
    assert len(set(places)) == len(places) == method.count(config, sites) // (3 * 32**2 + 2 * 32)
    assert all(weights == pytest.approx([0.5, 0.5]) for weights in told()["weights"])


def test_adapters_before_the_head_are_fused_at_the_width_it_reads():
    settings = {"name": "adapter", "bottleneck": 4, "position": "output", "train_layer_norm": False}
    config = FusionConfig(runs={"a": "a", "b": "b"}, adapter_method=settings)
    for backbone in (headed(tiny_model("bert")), headed(tiny_model("dinov2"))):
        sites = backbone.sites
        single = build(config.fused, sites).state_dict()
        method = build(config, sites, {"a": single, "b": single})
        assert sum(p.numel() for p in method.parameters()) == method.count(config, sites)
        assert method.first_layer(sites) == len(sites.layers)
    with pytest.raises(UserError, match="method.drop=robust: adapters with method.position=output are in no layer"):
        replace(config, drop="robust")


def test_the_penalty_is_the_squared_distance_from_the_identity():
    method = build(fusion_of("a", "b", regularization=0.5), find_sites(tiny_model("bert")))
    with torch.no_grad():
        for block in method.adapters.bottlenecks:
            block.value.weight.copy_(torch.eye(32))
        method.adapters.bottlenecks[1].value.weight[3, 4] += 2
    assert method.penalty().item() == pytest.approx(0.5 * 4)


def test_mean_weights_are_over_the_tokens_that_are_no_padding():
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(fusion_of("a", "b"), sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter))
    batch = tiny_batch()
    with torch.no_grad(), method.on(sites):
        with method.observed() as told:
            model(**batch)
        rows = []
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            with method.observed() as of_row:
                model(input_ids=ids[mask.bool()][None])
            rows.append((int(mask.sum()), torch.tensor(of_row()["weights"])))
    expected = sum(count * weights for count, weights in rows) / sum(count for count, _ in rows)
    torch.testing.assert_close(torch.tensor(told()["weights"]), expected, rtol=1e-4, atol=1e-5)
    assert told()["places"] == ["layer 0", "layer 1"]
    assert not any(block.softmax._forward_hooks for block in method.adapters.bottlenecks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "fusion"}, "a fusion itself"),
        ({"name": "lora"}, "what can be fused is adapter, parallel, pfeiffer"),
        ({"name": "adapter"}, "train_layer_norm=false"),
        ({"name": "parallel", "learn_scale": True}, "learn_scale=false"),
        ({"name": "pfeiffer", "rank": 3}, "not of method pfeiffer"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_fused(settings, message):
    with pytest.raises(UserError, match=message):
        FusionConfig(runs={"a": "a", "b": "b"}, adapter_method=settings)


def test_fewer_than_two_adapters_and_adapters_of_another_size():
    model = tiny_model("bert")
    sites = find_sites(model)
    with pytest.raises(UserError, match="two adapters or more"):
        build(fusion_of("a"), sites).attach(sites)
    other = build(PfeifferConfig(bottleneck=5), sites).state_dict()
    with pytest.raises(UserError, match="adapter a is of another size"):
        build(fusion_of("a", "b"), sites, {"a": other, "b": other})


def test_folded_it_gives_the_same():
    """Without gradients Q, K and V are multiplied into the adapters' matrices, again where one of them changes."""
    model = tiny_model("bert").double()
    sites = find_sites(model)
    method = build(fusion_of("a", "b", "c"), sites).double()
    with torch.no_grad():
        for tensor in (*method.parameters(), *method.buffers()):
            tensor.add_(torch.randn_like(tensor) * 0.3)
    for trains in (True, False):
        method.requires_grad_(trains)
        for changed in ("up_weight", "query.weight", "value.weight", "down_bias"):
            with torch.no_grad():
                method.adapters.bottlenecks[0].state_dict()[changed].add_(0.1)
            with method.on(sites):
                expected = model(**tiny_batch()).logits
                with torch.inference_mode():
                    found = model(**tiny_batch()).logits
            torch.testing.assert_close(found.clone(), expected, rtol=1e-10, atol=1e-10)


def test_layers_are_dropped_as_those_of_its_adapters():
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(fusion_of("a", "b", drop="robust"), sites)
    assert method.varies and list(method.droppable_layers(sites)) == [0, 1]
    with torch.no_grad(), method.on(sites):
        before = model(**tiny_batch(), output_hidden_states=True).hidden_states
        method.drop([0])
        with method.observed() as told:
            found = model(**tiny_batch(), output_hidden_states=True).hidden_states
    bare = model(**tiny_batch(), output_hidden_states=True).hidden_states
    assert torch.equal(found[1], bare[1]) and not torch.equal(found[1], before[1])
    assert not torch.equal(found[2], bare[2])
    assert told()["places"] == ["layer 1"] and len(told()["weights"]) == 1


def test_pruned_to_the_most_used_it_is_a_fusion_of_those_alone():
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(fusion_of("a", "b", "c"), sites)
    with torch.no_grad():
        for tensor in (*method.parameters(), *method.buffers()):
            tensor.add_(torch.randn_like(tensor) * 0.3)
    observed = {"weights": [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]}
    pair = build(fusion_of("first", "second"), sites)
    for block, whole, kept in zip(
        pair.adapters.bottlenecks, method.adapters.bottlenecks, ([1, 2], [0, 2]), strict=True
    ):
        block.load_state_dict(
            {name: t[kept] if name.startswith(("down", "up")) else t for name, t in whole.state_dict().items()}
        )
    with torch.no_grad(), method.on(sites), method.observed() as told:
        whole = model(**tiny_batch()).logits
        method.prune(2, observed)
        pruned = model(**tiny_batch()).logits
        method.prune(None, observed)
        assert torch.equal(model(**tiny_batch()).logits, whole)
        method.prune(2, observed)
    with torch.no_grad(), pair.on(sites):
        torch.testing.assert_close(model(**tiny_batch()).logits, pruned, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(pruned, whole)
    with torch.no_grad(), method.on(sites), method.observed() as told:
        model(**tiny_batch())
    (first, second) = told()["weights"]
    assert first[0] == 0 and second[1] == 0 and sum(first) == pytest.approx(1)
