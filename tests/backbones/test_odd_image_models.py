"""Models of images that look like a known architecture, and are not: refused in one line; bare towers of two."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, ViTImageProcessorPil

from peftbench.backbones.heads import add_head
from peftbench.backbones.load import blank_backbone, load_backbone
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
