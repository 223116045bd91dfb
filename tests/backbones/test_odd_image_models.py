"""Models of images that look like a known architecture, and are not: refused in one line; bare towers of two."""

import json
from pathlib import Path

import pytest
import torch
from tiny import IMAGE_ARCHITECTURES, tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    DeiTForImageClassificationWithTeacher,
    ViTImageProcessorPil,
    YolosForObjectDetection,
)

from peftbench.backbones.heads import add_head
from peftbench.backbones.inputs import small_size
from peftbench.backbones.load import blank_backbone, encoder_name, load_backbone
from peftbench.backbones.sites import find_sites
from peftbench.errors import UserError

_TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_CUT = {**_TINY, "image_size": 16, "patch_size": 8}


@pytest.mark.parametrize(
    ("kind", "numbers", "said"),
    [
        ("vit_mae", _CUT, "ViTMAEModel hides and shuffles patches at random"),
        ("vit", {**_CUT, "num_channels": 1}, "ViTModel does not take RGB images as they are"),
        ("siglip2_vision_model", {**_TINY, "patch_size": 8, "num_patches": 4}, "does not take RGB images as they are"),
        ("vivit", {**_TINY, "image_size": 16, "num_frames": 2}, "VivitModel does not take RGB images as they are"),
    ],
)
def test_what_does_not_take_whole_rgb_images(kind, numbers, said):
    with pytest.raises(UserError, match=said) as caught:
        find_sites(AutoModel.from_config(AutoConfig.for_model(kind, **numbers)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"model_type": "dinov3_convnext"}, "model.architecture does not describe a model"),
        ({"model_type": "swinv2", "mlp_ratio": "wide"}, "model.architecture does not describe a model"),
        ({"model_type": "hgnet_v2"}, "it holds no encoder"),
    ],
)
def test_numbers_of_no_encoder(numbers, said):
    with pytest.raises(UserError, match=said) as caught:
        blank_backbone(numbers)
    assert "\n" not in str(caught.value)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "special", "behind", "numbers"),
    [
        ("siglip_vision_model", 0, 0, {}),
        ("clip_vision_model", 1, 0, {}),
        ("yolos", 1, 5, {"num_detection_tokens": 5, "image_size": [16, 16]}),
    ],
)
def test_a_classifier_reads_a_class_token_where_there_is_one_and_the_patches_alone(
    kind, special, behind, numbers, tmp_path
):
    torch.manual_seed(0)
    own = AutoModel.from_config(AutoConfig.for_model(kind, **(_CUT | numbers))).eval()
    own.save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    model = add_head(load_backbone(tmp_path), 2).model
    images = torch.randn(3, 3, 16, 16)
    states = own(images).last_hidden_state
    assert states.shape[1] == special + 4 + behind
    read = torch.cat([states[:, :special].flatten(1), states[:, special : special + 4].mean(1)], dim=-1)
    torch.testing.assert_close(model(pixel_values=images).logits, model.classifier(read))


@torch.no_grad()
@pytest.mark.parametrize("size", [[128, 72], [32, 64]])  # the first has a square number of patches
def test_an_oblong_grid_of_positions_is_taken_as_it_is_and_at_no_other_size(size, tmp_path):
    own = AutoModel.from_config(AutoConfig.for_model("vit", **{**_CUT, "image_size": size})).eval()
    own.save_pretrained(tmp_path)
    _write_processor(tmp_path)
    backbone = load_backbone(tmp_path)
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(backbone.encoder(images).last_hidden_state, own(images).last_hidden_state)
    assert small_size(backbone.sites, 4) == tuple(size)
    with pytest.raises(UserError, match=f"64 x 128 pixels .* oblong grid.* choose {size[0]} x {size[1]}$"):
        backbone.sites.image.grid(64, 128)


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_what_is_loaded_is_what_was_saved(architecture, tmp_path):
    model = tiny_model(architecture)
    encoder = model.get_submodule(encoder_name(model))
    encoder.save_pretrained(tmp_path)
    _write_processor(tmp_path)
    _same_weights(load_backbone(tmp_path).encoder, encoder)


@pytest.mark.parametrize("architectures", [["DeiTForImageClassificationWithTeacher"], None])
def test_a_distilled_model_gets_one_classifier(architectures, tmp_path):
    own = DeiTForImageClassificationWithTeacher(AutoConfig.for_model("deit", **_CUT))
    own.save_pretrained(tmp_path)
    _write_processor(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
    backbone = load_backbone(tmp_path)
    _same_weights(backbone.encoder, own.deit)
    assert {name: p.shape for name, p in add_head(backbone, 3).head.items()} == {
        "classifier.weight": (3, 16),
        "classifier.bias": (3,),
    }


def test_a_detector_lends_its_encoder(tmp_path):
    torch.manual_seed(0)
    settings = {**_CUT, "num_hidden_layers": 4, "num_detection_tokens": 5, "image_size": [16, 16]}
    detector = YolosForObjectDetection(AutoConfig.for_model("yolos", **settings))
    detector.save_pretrained(tmp_path)
    _write_processor(tmp_path)
    backbone = load_backbone(tmp_path)
    _same_weights(backbone.encoder, detector.vit)
    assert set(backbone.sites.fresh) == {"pooler.dense.weight", "pooler.dense.bias"}


def test_a_checkpoint_without_some_of_the_encoder_is_refused(tmp_path):
    model = tiny_model("vit").base_model
    kept = {name: tensor for name, tensor in model.state_dict().items() if "position_embeddings" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    _write_processor(tmp_path)
    with pytest.raises(UserError, match="lacks 1 of the encoder's tensors \\(embeddings.position_embeddings"):
        load_backbone(tmp_path)


def _write_processor(folder: Path) -> None:
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)


def _same_weights(loaded: torch.nn.Module, saved: torch.nn.Module) -> None:
    tensors, there = saved.state_dict(), loaded.state_dict()
    names = [name for name in there if "pooler" not in name]
    assert names == [name for name in tensors if "pooler" not in name]
    for name in names:
        torch.testing.assert_close(there[name], tensors[name], rtol=0, atol=0, msg=name)
