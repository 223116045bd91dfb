"""One pass for a batch in which rows have methods and heads of their own: the answers of a pass of each."""

import gc
import itertools

import pytest
import torch
from methods.test_architectures import CONFIGS
from tiny import ARCHITECTURES, headed, tiny_model

from peftbench.backbones.rows import Rows
from peftbench.methods import Method, build
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.stacking import stacked
from peftbench.serving.batch_mode import BatchMode, probe_batch_mode, shares_layers
from peftbench.serving.mixing import Mixer, mixer

LENGTH = 12
FOUR_LAYERS: dict[str, dict] = {"distilbert": {"n_layers": 4}, "modernbert": {}}
# every method on one architecture, and on the others those that reach it by ways of their own
FEW = ("head", "bitfit", "adapter-every", "ia3-all", "lora-all", "mam-flat", "prefix-short", "pfeiffer", "prompt-front")


def shaken(prototype, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in prototype.state_dict().items()
    }


def batch_of(rows: int, vocabulary: int = 120) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, vocabulary, (rows, LENGTH), generator=generator)
    lengths = torch.tensor([LENGTH - 3 * (row % 3) for row in range(rows)])
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return {"input_ids": ids.where(mask.bool(), torch.tensor(1)), "attention_mask": mask}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_of_every_method_in_one_batch(architecture: str) -> None:
    backbone = headed(tiny_model(architecture))
    mixing = mixer(backbone, "fp32")
    head = {name: parameter.detach() for name, parameter in backbone.head.items()}
    prototypes, modes = {}, {}
    for name, config in CONFIGS.items():
        if (architecture == "bert" or name in FEW) and (architecture, name) != ("modernbert", "bitfit"):
            stored = build(config, backbone.sites).exported()[0]
            prototypes[name] = build(stored, backbone.sites)
            modes[name] = probe_batch_mode(prototypes[name], mixing).mode
    mixed = [name for name, mode in modes.items() if mode != BatchMode.ALONE]
    total, methods, heads, apart = 0, [], [], []
    sizes = itertools.cycle([1, 2, 3])
    rows_of = {name: (next(sizes), 2 if modes[name] == BatchMode.STACKED else 1) for name in mixed}
    total = sum(size * groups for size, groups in rows_of.values()) + 2  # two of the bare backbone
    batch, start = batch_of(total), 0
    for name, (size, groups) in rows_of.items():
        trainings = [shaken(prototypes[name], seed) for seed in range(groups)]
        own_heads = [{n: t + 0.1 * torch.randn(t.shape) for n, t in head.items()} for _ in trainings]
        rows = Rows(total, start, size, groups)
        methods.append((stacked(prototypes[name], trainings), rows))
        stack = {n: torch.stack([own[n] for own in own_heads]) for n in head}
        heads.append((stack if groups > 1 else own_heads[0], rows))
        for training, own in zip(trainings, own_heads, strict=True):
            apart.append((name, training, own, slice(start, start + size)))
            start += size
    found = mixing.logits(batch, methods, heads)
    for name, training, own, rows in apart:
        all_rows = Rows(total, 0, total)
        expected = mixing.logits(batch, [(stacked(prototypes[name], [training]), all_rows)], [(own, all_rows)])[rows]
        torch.testing.assert_close(
            found[rows], expected, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name} {modes[name]} {m}"
        )
    torch.testing.assert_close(found[-2:], mixing.logits(batch, [], [])[-2:], rtol=1e-4, atol=1e-5)
    # peft's layers take the place of the backbone's, for all rows
    alone = {name for name, mode in modes.items() if mode == BatchMode.ALONE} - {"peft"}
    assert modes.get("peft", BatchMode.ALONE) == BatchMode.ALONE
    # its relative positions go through the maps of query and key, once for all rows
    assert alone == ({"bitfit", "adapter-every", "ia3-all", "lora-all"} if architecture == "deberta-v2" else set())
    # a fusion's adapters and FacT's blocks are in stacks already
    assert {name for name, mode in modes.items() if mode == BatchMode.SLICED} <= {"fusion", "fact", "fact-tk"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.model.modules())


class Uneven(Method, name=None):
    """A method of another package, that knows nothing of stacked tensors; `whole` acts past the sites."""

    config_class = tuple

    def __init__(self, sites, whole: bool) -> None:
        super().__init__((), sites)
        self.whole = whole
        self.factors = torch.nn.Parameter(torch.ones(sites.hidden))

    def hook(self, sites):
        for site in sites.at("ffn.down"):
            if self.whole:
                yield site.module.register_forward_hook(lambda _, args, output: output * self.factors)
            else:
                yield site.replace(lambda x: x * self.factors.view(-1))

    @staticmethod
    def count(config, sites) -> int:
        return sites.hidden


@pytest.mark.parametrize(("whole", "mode"), [(False, BatchMode.SLICED), (True, BatchMode.ALONE)])
def test_a_foreign_method_shares_as_far_as_it_can(whole: bool, mode: BatchMode) -> None:
    backbone = headed(tiny_model("bert"))
    before = torch.random.get_rng_state()
    assert probe_batch_mode(Uneven(backbone.sites, whole), mixer(backbone, "fp32")).mode == mode
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.model.modules())


def test_bf16() -> None:
    """Rows answer in bf16 as they do alone, up to its rounding."""
    backbone = headed(tiny_model("bert"))
    mixing, batch = mixer(backbone, "bf16"), batch_of(4)
    prototype = build(CONFIGS["adapter-both"], backbone.sites)
    trainings = [shaken(prototype, seed) for seed in range(2)]
    found = mixing.logits(batch, [(stacked(prototype, trainings), Rows(4, 0, 2, 2))], [])
    for number, training in enumerate(trainings):
        alone = mixing.logits(batch, [(stacked(prototype, [training]), Rows(4, 0, 4))], [])
        rows = slice(2 * number, 2 * number + 2)
        torch.testing.assert_close(found[rows], alone[rows], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "deberta-v2"])  # by the interface, and by layers
def test_a_prefix_in_some_rows_in_bf16(architecture: str) -> None:
    backbone = headed(tiny_model(architecture))
    mixing, batch = mixer(backbone, "bf16"), batch_of(4)
    prototype = build(CONFIGS["prefix-short"], backbone.sites)
    prefix = stacked(prototype, [shaken(prototype, 0)])
    found = mixing.logits(batch, [(prefix, Rows(4, 0, 2))], [])
    alone = mixing.logits(batch, [(prefix, Rows(4, 0, 4))], [])
    torch.testing.assert_close(found[:2], alone[:2], rtol=0.05, atol=0.05)
    torch.testing.assert_close(found[2:], mixing.logits(batch, [], [])[2:], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_rows_pass_the_layers_once_that_nothing_acts_in(architecture: str) -> None:
    backbone = headed(tiny_model(architecture, **FOUR_LAYERS.get(architecture, {"num_hidden_layers": 4})))
    mixing = mixer(backbone, "fp32")
    assert shares_layers(mixing)
    prototype = build(PfeifferConfig(bottleneck=4, layers="2-3"), backbone.sites)
    untouched = prototype.first_layer(backbone.sites)
    assert untouched == 2
    batch, rows = batch_of(3), torch.tensor([0, 1, 2, 0, 1, 2, 1])
    whole = {name: column[rows] for name, column in batch.items()}
    trainings = [shaken(prototype, seed) for seed in range(2)]
    methods = [(stacked(prototype, trainings), Rows(7, 0, 3, 2))]
    counted: list[int] = []
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: counted.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
        )
        for layer in backbone.sites.layers
    ]
    for one in (False, True):  # different rows: three, and one that stands for all
        if one:
            batch, rows = {name: column[:1] for name, column in batch.items()}, torch.zeros(7, dtype=torch.long)
            whole = {name: column[rows] for name, column in batch.items()}
        expected = mixing.logits(whole, methods, [])
        counted.clear()
        found = mixing.logits(batch, methods, [], (untouched, rows))
        assert counted[:2] == [len(batch["input_ids"])] * 2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for handle in handles:
        handle.remove()


def test_what_a_method_makes_of_its_tensors_counts_as_memory() -> None:
    backbone = headed(tiny_model("bert"))
    mixing, prototype = mixer(backbone, "fp32"), build(CONFIGS["compacter++"], backbone.sites)
    memory_factor = probe_batch_mode(prototype, mixing).memory_factor  # the products of its factors are kept
    tensors = sum(tensor.nbytes for tensor in prototype.state_dict().values())
    products = 2 * 2 * 8 * 32 * 4  # of two layers, down and up
    assert memory_factor == pytest.approx((tensors + products) / tensors)
    assert probe_batch_mode(build(CONFIGS["pfeiffer"], backbone.sites), mixing).memory_factor == 1
    fusion = build(build(CONFIGS["fusion"], backbone.sites).exported()[0], backbone.sites)
    (count, size, hidden), places = fusion.state_dict()[next(n for n in fusion.state_dict() if "down_w" in n)].shape, 2
    inner = count * size  # read by the adapters' own maps, and by query and key folded into them
    folded = places * ((2 * inner + count) * (hidden + 1) + (inner + count) * hidden) * 4
    tensors = sum(tensor.nbytes for tensor in fusion.state_dict().values())
    assert probe_batch_mode(fusion, mixing).memory_factor == pytest.approx((tensors + folded) / tensors)


@pytest.mark.parametrize("name", ["full", "bitfit"])
def test_what_tasks_bring_of_their_own_is_not_kept_behind_their_pass(name: str) -> None:
    """Nor are embeddings that they have trained rounded, where the kernels are torch's own."""
    backbone = headed(tiny_model("bert"))
    mixing = mixer(backbone, "bf16")
    kept = []
    for _ in range(3):
        method = build(CONFIGS[name], backbone.sites)
        mixing.logits(batch_of(2), [(method, Rows(2, 0, 2))], [])
        assert not any(parameter in mixing.casts for parameter in method.parameters())
        del method
        gc.collect()
        kept.append(len(mixing.casts))
    assert kept[0] == kept[1] == kept[2]


def test_products_are_exact_while_ways_are_tried(monkeypatch) -> None:
    backbone = headed(tiny_model("bert"))
    used = []
    logits = Mixer.logits

    def noted(self, *args, **kwargs):
        used.append(torch.get_float32_matmul_precision())
        return logits(self, *args, **kwargs)

    monkeypatch.setattr(Mixer, "logits", noted)
    torch.set_float32_matmul_precision("high")
    try:
        probe_batch_mode(build(CONFIGS["bitfit"], backbone.sites), mixer(backbone, "fp32"))
        assert set(used) == {"highest"} and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
