"""Zero-shot classification against transformers' own CLIP and processor, and what it refuses."""

import pytest
import torch
from tiny_clip import IMAGES, save_tiny_clip
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from peftbench.backbones.load import load_backbone
from peftbench.config.fill import fill
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.guard import check_method
from peftbench.methods.zero_shot import ZeroShot, ZeroShotConfig

LABELS = ("cat", "long_eared_owl", "picture")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def headed(folder, labels=LABELS, **settings):
    return ZeroShot.put_head(
        ZeroShotConfig(**settings), load_backbone(folder, answers_through="class_texts"), labels, 0
    )


@torch.no_grad()
def test_it_is_what_clip_says_of_image_and_texts(clip):
    own, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    texts = tokenizer([f"a picture of a {n}" for n in ("cat", "long eared owl", "picture")], padding=True)
    expected = own(**texts.convert_to_tensors("pt"), pixel_values=IMAGES).logits_per_image
    backbone = headed(clip)
    method = build(ZeroShotConfig(), backbone.sites)
    assert check_method(method, backbone, None) == []
    with method.on(backbone.sites):
        found = backbone.model(pixel_values=IMAGES).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not backbone.head and not list(method.parameters())
    assert backbone.size == sum(p.numel() for p in own.parameters())


@torch.no_grad()
def test_several_templates_are_averaged_on_the_sphere(clip):
    own, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    templates, names = ["a {class}.", "this is one more picture of a {class}", "{class}, {class}"], ["cat", "owl", "x"]

    def embedding(text):  # alone, so that nothing is padded
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return F.normalize(own.get_text_features(input_ids=ids).pooler_output[0], dim=0)

    means = [torch.stack([embedding(t.replace("{class}", n)) for t in templates]).mean(0) for n in names]
    classes = F.normalize(torch.stack(means), dim=-1)
    images = F.normalize(own.get_image_features(pixel_values=IMAGES).pooler_output, dim=-1)
    expected = own.logit_scale.exp() * images @ classes.T
    found = headed(clip, templates=templates, class_names=names).model(pixel_values=IMAGES).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_many_texts_are_computed_in_parts(clip, monkeypatch):
    labels, templates = [f"a{i}" for i in range(5)], ["{class}", "a {class}"]
    whole = headed(clip, labels, templates=templates).model(pixel_values=IMAGES).logits
    monkeypatch.setattr("peftbench.backbones.text_head._AT_ONCE", 4)
    torch.testing.assert_close(headed(clip, labels, templates=templates).model(pixel_values=IMAGES).logits, whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"templates": ["a picture"]}, r"'a picture' has no {class}"),
        ({"templates": []}, "is empty"),
        ({"class_names": ["cat", "dog"]}, "has 2 names for 3 classes: one each, for cat, long_eared_owl, picture"),
        ({"class_names": ["cat", "dog", "dog"]}, "a name of its own"),
        ({"class_names": ["cat", "дог", "owl"]}, "class name 'дог' is unknown"),
        ({"templates": ["{class}" * 9]}, r"the text for class 'long eared owl' has \d+ tokens, and the model reads 40"),
    ],
)
def test_a_mistake_is_one_line(clip, settings, message):
    with pytest.raises(UserError, match=message) as error:
        config = fill(ZeroShotConfig, settings, "method")
        ZeroShot.put_head(config, load_backbone(clip, answers_through="class_texts"), LABELS, 0)
    assert "\n" not in str(error.value)


def test_a_model_without_a_tower_of_texts_is_refused(clip, tiny_model_dir, tmp_path):
    with pytest.raises(UserError, match="of type bert has no tower of texts"):
        load_backbone(tiny_model_dir, answers_through="class_texts")
    CLIPModel.from_pretrained(clip).vision_model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="of type clip_vision_model has no tower of texts"):
        load_backbone(tmp_path, answers_through="class_texts")
