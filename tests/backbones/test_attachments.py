"""Several methods on one backbone: in any order, through errors, it is given back bit for bit."""

import itertools

import pytest
import torch
from tiny import tiny_batch, tiny_model

from peftbench.backbones.economy.first_token import FirstTokenOnly
from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig


class Backbone:
    def __init__(self, architecture="bert"):
        self.model = tiny_model(architecture)
        self.sites = find_sites(self.model)
        self.parameters = dict(self.model.named_parameters())
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.answer = self.logits()

    def logits(self):
        with torch.no_grad():
            return self.model(**tiny_batch()).logits

    def shaken(self, config):
        method = build(config, self.sites)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        return method

    def check_as_before(self):
        found = dict(self.model.named_parameters())
        assert found.keys() == self.parameters.keys()
        assert all(found[name] is p and torch.equal(p, self.values[name]) for name, p in self.parameters.items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in self.model.modules())
        assert torch.equal(self.logits(), self.answer)


PAIRS = {
    "the same parameters": (FullConfig(), BitfitConfig()),
    "two prefixes": (PrefixConfig(length=3), PrefixConfig(length=2)),
    "two updates": (LoraConfig(rank=2), LoraConfig(rank=3, targets=["all"])),
    "norms and an update": (AdapterConfig(bottleneck=4), LoraConfig(rank=2)),
    "beside and behind": (ParallelConfig(bottleneck=4), PfeifferConfig(bottleneck=4)),
    "an update and factors": (LoraConfig(rank=2, targets=["all"]), Ia3Config(targets=["all"])),
    "prompt and prefix": (PromptConfig(length=3), PrefixConfig(length=2)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "mpnet"])
def test_two_methods_come_and_go_in_any_order(pair, architecture):
    backbone = Backbone(architecture)
    methods = [backbone.shaken(config) for config in PAIRS[pair]]
    alone = []
    for method in methods:
        with method.on(backbone.sites):
            alone.append(backbone.logits())
    for leaves_first in (0, 1):
        for method in methods:
            method.attach(backbone.sites)
        both = backbone.logits()
        if pair != "the same parameters":
            assert not any(torch.equal(both, one) for one in alone)
        methods[leaves_first].detach()
        assert torch.equal(backbone.logits(), alone[1 - leaves_first])
        methods[1 - leaves_first].detach()
        backbone.check_as_before()


def test_two_prefixes_are_one_of_both_their_keys():
    backbone = Backbone()
    parts = [backbone.shaken(PrefixConfig(length=length)) for length in (3, 2)]
    whole = build(PrefixConfig(length=5), backbone.sites)
    with torch.no_grad():
        whole.direct.copy_(torch.cat([part.direct for part in parts], dim=2))
    with whole.on(backbone.sites):
        expected = backbone.logits()
    with parts[0].on(backbone.sites), parts[1].on(backbone.sites):
        torch.testing.assert_close(backbone.logits(), expected)


@pytest.mark.parametrize("order", itertools.permutations(["unmerge 0", "unmerge 1", "detach 0", "detach 1"]))
def test_merged_methods_leave_in_any_order(order):
    backbone = Backbone()
    methods = [backbone.shaken(LoraConfig(rank=2, targets=["all"])), backbone.shaken(LoraConfig(rank=2, dora=True))]
    for method in methods:
        method.attach(backbone.sites)
        method.merge()
    for step in order:
        action, which = step.split()
        if step == "unmerge 0" and methods[0].merged and methods[1].attached:
            with pytest.raises(UserError, match="in another order" if methods[1].merged else "would lose what another"):
                methods[0].unmerge()
        else:
            getattr(methods[int(which)], action)()
    backbone.check_as_before()


def test_dora_behind_an_update_is_right_or_refused():
    """It computes its maps anew: what is added to their output before it would be lost, what is merged is not."""
    backbone = Backbone()
    update, dora = backbone.shaken(LoraConfig(rank=2)), backbone.shaken(LoraConfig(rank=2, dora=True))
    elsewhere = backbone.shaken(LoraConfig(rank=2, targets=["output"]))
    with update.on(backbone.sites), elsewhere.on(backbone.sites):
        alone = backbone.logits()
        with pytest.raises(UserError, match="dora=true computes attention.query anew and would lose") as error:
            dora.attach(backbone.sites)
        assert "\n" not in str(error.value)
        assert torch.equal(backbone.logits(), alone) and not dora.attached
        update.merge()
        with dora.on(backbone.sites):
            behind = backbone.logits()
            dora.merge()
            torch.testing.assert_close(backbone.logits(), behind, rtol=1e-3, atol=1e-4)
    with elsewhere.on(backbone.sites), dora.on(backbone.sites), update.on(backbone.sites):
        backbone.logits()  # in this order nothing is lost
    backbone.check_as_before()


UPDATE, FACTORS = LoraConfig(rank=2, targets=["all"]), Ia3Config(targets=["all"])
STACKS = {
    "an update and factors": (UPDATE, FACTORS),
    "factors and an update": (FACTORS, UPDATE),
    "factors on outputs and an update": (Ia3Config(targets=["key", "value"]), UPDATE),
    "an update and factors on outputs": (UPDATE, Ia3Config(targets=["key", "value"])),
    "two updates": (UPDATE, LoraConfig(rank=3)),
    "two factors": (FACTORS, Ia3Config(targets=["key", "down"])),
    "dora and an update": (LoraConfig(rank=2, dora=True), UPDATE),
    "factors and biases": (FACTORS, BitfitConfig()),
    "an update and all weights": (UPDATE, FullConfig()),
    "an adapter and an update": (AdapterConfig(bottleneck=4, init_std=0.3), UPDATE),
    "an adapter and factors": (AdapterConfig(bottleneck=4, init_std=0.3), FACTORS),
    "an adapter behind a norm and an update": (PfeifferConfig(bottleneck=4), UPDATE),
}


@pytest.mark.parametrize(
    ("stack", "architecture"),
    [(stack, "bert") for stack in STACKS]
    + [(stack, "modernbert") for stack in STACKS if stack != "factors and biases"],  # it has none
)
def test_merging_one_of_two_is_exact_or_refused(stack, architecture):
    backbone = Backbone(architecture)
    methods = [backbone.shaken(config) for config in STACKS[stack]]
    for method in methods:
        method.attach(backbone.sites)
    beside = backbone.logits()
    steps = [(action, method) for action in ("merge", "unmerge") for method in methods if method.mergeable]
    for action, method in itertools.chain(*itertools.permutations(steps)):
        before = method.merged
        try:
            getattr(method, action)()
        except UserError as error:
            assert method.merged == before and len(str(error).splitlines()) == 1
        torch.testing.assert_close(backbone.logits(), beside, rtol=1e-3, atol=1e-4)
    for method in methods:
        method.detach()
    backbone.check_as_before()


def test_what_is_attached_behind_merged_factors_on_inputs_is_refused():
    backbone = Backbone()
    factors, update = backbone.shaken(FACTORS), backbone.shaken(UPDATE)
    with factors.on(backbone.sites):
        factors.merge()
        merged = backbone.logits()
        with pytest.raises(UserError, match="attention.output would act in another order: merge them in the order"):
            update.attach(backbone.sites)
        assert torch.equal(backbone.logits(), merged)
    backbone.check_as_before()


def test_factors_behind_an_update_are_merged_behind_it():
    backbone = Backbone()
    methods = [backbone.shaken(config) for config in PAIRS["an update and factors"]]
    for method in methods:
        method.attach(backbone.sites)
    beside = backbone.logits()
    for method in methods:
        method.merge()
        torch.testing.assert_close(backbone.logits(), beside, rtol=1e-4, atol=1e-5)
    for method in methods:
        method.detach()
    backbone.check_as_before()


def test_a_merged_method_acts_at_its_place_in_the_order():
    """Behind merge and unmerge the first method's hooks still run before the second's."""
    backbone = Backbone()
    first, second = (
        backbone.shaken(AdapterConfig(position="both")),
        backbone.shaken(LoraConfig(rank=2, targets=["down"])),
    )
    with second.on(backbone.sites), first.on(backbone.sites):
        expected = backbone.logits()
        second.merge()
        torch.testing.assert_close(backbone.logits(), expected, rtol=1e-4, atol=1e-5)
        second.unmerge()
        assert torch.equal(backbone.logits(), expected)
    backbone.check_as_before()


def test_replaced_weights_are_what_a_later_method_is_merged_into():
    backbone = Backbone()
    full, lora = backbone.shaken(FullConfig()), backbone.shaken(LoraConfig(rank=2, targets=["all"]))
    trained = {name: p.detach().clone() for name, p in full.named_parameters()}
    full.attach(backbone.sites)
    lora.attach(backbone.sites)
    beside = backbone.logits()
    lora.merge()
    torch.testing.assert_close(backbone.logits(), beside, rtol=1e-4, atol=1e-5)
    full.detach()
    merged = backbone.logits()
    lora.unmerge()
    torch.testing.assert_close(backbone.logits(), merged, rtol=1e-4, atol=1e-5)
    lora.detach()
    assert all(torch.equal(p, trained[name]) for name, p in full.named_parameters()), "its own tensors stay"
    backbone.check_as_before()


@pytest.mark.parametrize("config", [AdapterConfig(bottleneck=4), PrefixConfig(length=2), PromptConfig(length=2)])
def test_an_error_half_way_through_attaching_leaves_nothing(config, monkeypatch):
    backbone = Backbone()
    method = backbone.shaken(config)
    hook = type(method).hook

    def failing(self, sites):
        handles = iter(hook(self, sites))
        yield next(handles)
        raise MemoryError

    monkeypatch.setattr(type(method), "hook", failing)
    with pytest.raises(MemoryError):
        method.attach(backbone.sites)
    assert not method.attached
    backbone.check_as_before()


def test_an_error_half_way_through_merging_leaves_the_method_beside_the_weights(monkeypatch):
    backbone = Backbone()
    method = backbone.shaken(LoraConfig(rank=2, targets=["all"]))
    with method.on(backbone.sites):
        before = backbone.logits()
        calls = iter([False] * 5 + [True])
        merged_weight = type(method)._merged_weight
        monkeypatch.setattr(
            type(method), "_merged_weight", lambda *a: 1 / 0 if next(calls, False) else merged_weight(*a)
        )
        with pytest.raises(ZeroDivisionError):
            method.merge()
        assert not method.merged and torch.equal(backbone.logits(), before)
    backbone.check_as_before()


def test_an_error_in_the_forward_pass_leaves_the_backbone_usable():
    backbone = Backbone("deberta-v2")
    for config in (PrefixConfig(length=2), PromptConfig(length=2), LoraConfig(rank=2)):
        method = backbone.shaken(config)
        with pytest.raises(ZeroDivisionError), method.on(backbone.sites):
            handle = backbone.sites.layers[-1].register_forward_pre_hook(lambda module, args: 1 / 0)
            try:
                backbone.logits()
            finally:
                handle.remove()
        backbone.check_as_before()


def test_sparing_rows_stays_behind_a_method_that_was_merged_and_taken_out():
    backbone = Backbone()
    method = backbone.shaken(LoraConfig(rank=2, targets=["all"]))
    with method.on(backbone.sites):
        first = FirstTokenOnly(backbone.sites)
        spared = backbone.logits()
        method.merge()
        method.unmerge()
        assert torch.equal(backbone.logits(), spared)
        first.remove()
    backbone.check_as_before()


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])  # removed in front of a norm, and behind a layer
@torch.no_grad()
def test_of_two_prompts_the_last_is_taken_out_first(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    ids, base = tiny_batch()["input_ids"], sites.base
    behind, front = build(PromptConfig(length=3), sites), build(PromptConfig(length=2, insert="front"), sites)
    with behind.on(sites), front.on(sites):
        found = base(input_ids=ids).last_hidden_state
    embedded: list[torch.Tensor] = []
    watch = sites.at("embeddings")[0].watch(embedded.append)
    base(input_ids=torch.cat([ids[:, :1].expand(-1, 5), ids], dim=1))
    watch.remove()
    with behind.on(sites), front.on(sites):
        watch = sites.layers[0].register_forward_pre_hook(lambda module, args: embedded.append(args[0]))
        base(input_ids=ids)
        watch.remove()
    put = sites.layers[0].register_forward_pre_hook(lambda module, args: (embedded[1], *args[1:]))
    whole = base(input_ids=torch.cat([ids[:, :1].expand(-1, 5), ids], dim=1)).last_hidden_state
    put.remove()
    torch.testing.assert_close(found, torch.cat([whole[:, 2:3], whole[:, 6:]], dim=1))


def test_bare_layers_are_not_merged():
    sites = find_sites(tiny_model("bert"))
    method = build(LoraConfig(rank=2), sites)
    with method.on(sites):
        method.drop([0])
        with pytest.raises(UserError, match="some are bare"):
            method.merge()
        method.drop([])
        method.merge()


@torch.no_grad()
def test_a_model_that_shares_the_config_stays_as_it_is():
    model = tiny_model("bert")
    other = type(model)(model.config).eval()
    expected = other(**tiny_batch()).logits
    sites = find_sites(model)
    with build(PrefixConfig(length=3), sites).on(sites):
        torch.testing.assert_close(other(**tiny_batch()).logits, expected)


@torch.no_grad()
def test_models_that_share_the_config_may_each_have_a_prefix():
    model = tiny_model("bert")
    other = type(model)(model.config).eval()
    parts = [(each, build(PrefixConfig(length=3), find_sites(each))) for each in (model, other)]
    expected = []
    for each, method in parts:
        with method.on(find_sites(each)):
            expected.append(each(**tiny_batch()).logits)
    before = model.config._attn_implementation
    (_, first), (_, second) = parts
    first.attach(find_sites(model)), second.attach(find_sites(other))
    torch.testing.assert_close(model(**tiny_batch()).logits, expected[0])
    first.detach()
    torch.testing.assert_close(other(**tiny_batch()).logits, expected[1])
    second.detach()
    assert model.config._attn_implementation == before
