"""ViT-Adapter against the original's tensors: outputs and gradients of the whole and of its parts."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ViTConfig, ViTModel

from peftbench.methods import build, find_sites
from peftbench.methods.deformable_attention import DeformableAttention, centres
from peftbench.methods.interaction import Grids, Injector, Sizes
from peftbench.methods.spatial_prior import SpatialPrior
from peftbench.methods.vit_adapter import VitAdapterConfig

Tensors = dict[str, torch.Tensor]

# the original's names and ours
NAMES = [
    (r"spm\.", "prior."),
    (r"\bfc(\d)\.(?=\w+$)", lambda found: f"projections.{int(found[1]) - 1}."),
    (r"\bconv(\d)\.", lambda found: f"stages.{int(found[1]) - 2}."),
    (r"level_embed", "levels"),
    (r"extra_extractors\.(\d)", lambda found: f"extractors.{int(found[1]) + 1}"),
    (r"extractor\.", "extractors.0."),
    (r"feat_norm", "feature_norm"),
    (r"attn\.", "attention."),
    (r"value_proj", "value"),
    (r"output_proj", "output"),
    (r"sampling_offsets", "offsets"),
    (r"attention_weights", "weights"),
    (r"ffn\.projections\.0", "ffn.up"),
    (r"ffn\.projections\.1", "ffn.down"),
    (r"dwconv\.dwconv", "convolution"),
    (r"^norm(\d)\.", lambda found: f"output.norms.{int(found[1]) - 1}."),
    (r"^up\.", "output.up."),
]


def ours(name: str) -> str:
    for theirs, own in NAMES:
        name = re.sub(theirs, own, name)
    return name


class Golden:
    """One reference: tensors by kind, in one precision."""

    def __init__(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        self.tensors = load_file(folder / "vision" / f"{name}.safetensors")
        self.described = json.loads((folder / "vision" / f"{name}.json").read_text())
        self.dtype = dtype

    def part(self, prefix: str) -> Tensors:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def input(self, name: str) -> torch.Tensor:
        return self.tensors[name].to(self.dtype)

    def fill(self, module: nn.Module) -> None:
        """Give the module the original's tensors, every one of them."""
        given = {ours(k): v for k, v in (self.part("adapter.") | self.part("extra.")).items()}
        own = {k: v for k, v in module.state_dict().items() if not k.startswith("replaced.")}
        assert own.keys() - given.keys() <= {k for k in own if k.endswith("num_batches_tracked")}
        module.load_state_dict({k: v for k, v in given.items() if k in own}, strict=False)
        module.to(self.dtype).eval()

    def check(self, module: nn.Module, outputs: list[torch.Tensor], names: list[str]) -> None:
        """Hold outputs and both gradients against the original's."""
        wide = self.dtype == torch.float64
        for output, name in zip(outputs, names, strict=True):
            self.close(output, self.tensors[f"{name}_f64" if wide else name])
        weights = [self.input(f"R.{i}" if len(outputs) > 1 else "R") for i in range(len(outputs))]
        losses = {
            "sumsq": sum(output.square().sum() for output in outputs),
            "R": sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)),
        }
        parameters = dict(module.named_parameters())
        for loss, value in losses.items():
            expected = self.part(f"{'grad64' if wide else 'grad'}_{loss}.")
            assert expected
            for parameter in parameters.values():
                parameter.grad = None
            value.backward(retain_graph=True)
            largest = max(float(tensor.abs().max()) for tensor in expected.values())
            for name, tensor in expected.items():
                # what float32 rounds away of a small gradient, float64 shows
                scale = max(float(tensor.abs().max()), 1e-3 * largest) if wide else largest
                assert (parameters[ours(name)].grad - tensor).abs().max() <= self.tolerance * scale

    @property
    def tolerance(self) -> float:
        return 1e-10 if self.dtype == torch.float64 else 1e-5

    def close(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= self.tolerance * expected.abs().max()


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request) -> torch.dtype:
    return request.param


def test_spatial_prior(golden_dir, dtype):
    golden = Golden(golden_dir, "vitadapter_spm", dtype)
    prior = SpatialPrior(3, 8, 32)
    golden.fill(prior)
    finest, *maps = prior(golden.input("pixel_values"))
    outputs = [finest, *(each.flatten(2).transpose(1, 2) for each in maps)]
    golden.check(prior, outputs, [f"output.{i}" for i in range(4)])


def test_deformable_attention(golden_dir, dtype):
    golden = Golden(golden_dir, "vitadapter_msdeformattn", dtype)
    attention = DeformableAttention(32, 4, 3, 4, 1.0)
    golden.fill(attention)
    query, features = golden.input("extra.query"), golden.input("extra.feat")
    output = attention(query, centres([(4, 4)], query), features, [(8, 8), (4, 4), (2, 2)])
    golden.check(attention, [output], ["output"])


def test_injector(golden_dir, dtype):
    golden = Golden(golden_dir, "vitadapter_injector", dtype)
    injector = Injector(Sizes(32, 4, 4, 1.0, 8, 0.0))
    golden.fill(injector)
    output = injector(golden.input("extra.query"), golden.input("extra.feat"), Grids(4, 4))
    golden.check(injector, [output], ["output"])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("vitadapter_det_64", VitAdapterConfig(interactions=2, heads=4, ratio=1.0, prior_width=8)),
        ("vitadapter_seg_64x96", VitAdapterConfig(form="segmentation", heads=4, ratio=0.5, prior_width=8)),
    ],
)
def test_the_whole(golden_dir, dtype, name, config):
    golden = Golden(golden_dir, name, dtype)
    model = ViTModel(ViTConfig(**golden.described["model_config"], attn_implementation="sdpa"), add_pooling_layer=False)
    model.load_state_dict(golden.part("base."))
    model.to(dtype).eval()
    sites = find_sites(model)
    method = build(config, sites)
    golden.fill(method)
    added = sum(p.numel() for p in method.parameters()) - sum(p.numel() for p in method.replaced.parameters())
    assert added == golden.described["n_adapter_params"]
    with method.on(sites):
        model(pixel_values=golden.input("pixel_values"), interpolate_pos_encoding=True)
        golden.check(method, list(method.pyramid()), [f"pyramid.{i}" for i in range(4)])
