"""CoOp against transformers' own CLIP given embeddings in the place of words, and as a run."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import IMAGES, save_tiny_clip
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from peftbench.backbones.load import load_backbone
from peftbench.cli import main
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.coop import Coop, CoopConfig
from peftbench.methods.guard import check_method
from peftbench.runs.adapter import load_adapter, save_adapter
from peftbench.runs.record import Record

LABELS = ("owl", "a_picture", "x")
NAMES = ("owl", "a picture", "x")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def prepared(folder, **settings):
    config = CoopConfig(**settings)
    backbone = Coop.put_head(config, load_backbone(folder, answers_through="class_texts"), LABELS, 0)
    torch.manual_seed(3)
    return backbone, build(config, backbone.sites)


def _text_embedding(own, tokenizer, name, vectors, position):
    """The embedding of one text alone, its hidden states made from embeddings by the tower's own modules."""
    tower = own.text_model
    words = tokenizer(name, add_special_tokens=False)["input_ids"]
    start, *_, stop, end = tokenizer(f"{name}.")["input_ids"]
    token = lambda *ids: tower.embeddings.token_embedding(torch.tensor(ids))  # noqa: E731
    half = len(vectors) // 2
    middle = {
        "end": [vectors, token(*words)],
        "middle": [vectors[:half], token(*words), vectors[half:]],
        "front": [token(*words), vectors],
    }[position]
    x = torch.cat([token(start), *middle, token(stop, end)])[None]
    x = tower.embeddings(inputs_embeds=x)
    causal = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)[None, None]
    x = tower.encoder(inputs_embeds=x, attention_mask=causal, is_causal=False).last_hidden_state
    return F.normalize(own.text_projection(tower.final_layer_norm(x)[0, -1]), dim=0)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_it_is_clip_with_vectors_for_words(clip, position, per_class):
    own, tokenizer = (
        CLIPModel.from_pretrained(clip, attn_implementation="eager").eval(),
        AutoTokenizer.from_pretrained(clip),
    )
    backbone, method = prepared(clip, length=5, position=position, per_class=per_class)
    assert method.count(method.config, backbone.sites) == sum(p.numel() for p in method.parameters())
    assert check_method(method, backbone, None) == []

    context = method.context.detach().clone().requires_grad_()
    vectors = context if per_class else [context] * 3
    texts = torch.stack([_text_embedding(own, tokenizer, *at, position) for at in zip(NAMES, vectors, strict=True)])
    images = F.normalize(own.get_image_features(pixel_values=IMAGES).pooler_output, dim=-1)
    expected = own.logit_scale.exp() * images @ texts.T
    F.cross_entropy(expected, torch.tensor([0, 1, 2])).backward()
    with method.on(backbone.sites):
        found = backbone.model(pixel_values=IMAGES).logits
        F.cross_entropy(found, torch.tensor([0, 1, 2])).backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    scale = float(context.grad.abs().max())
    torch.testing.assert_close(method.context.grad, context.grad, rtol=1e-4, atol=1e-4 * scale)
    assert all(p.grad is None for p in backbone.model.parameters())


def test_what_is_kept_follows_the_vectors_and_is_loaded_again(clip, tmp_path):
    backbone, method = prepared(clip, length=3)

    @torch.no_grad()
    def answered():
        return backbone.model(pixel_values=IMAGES).logits

    with method.on(backbone.sites):
        first = answered()
        with torch.no_grad():
            method.context.mul_(-20)
        moved = answered()
        torch.testing.assert_close(moved, backbone.model(pixel_values=IMAGES).logits.detach(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first, moved, atol=1e-2)
    save_adapter(tmp_path / "adapter", method, backbone, {}, {}, [])
    fresh = prepared(clip, length=3)[0]
    load_adapter(tmp_path / "adapter", fresh)
    assert torch.equal(fresh.model(pixel_values=IMAGES).logits, moved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "method.length=0 must be 1 or more"),
        ({"length": 40}, "method.length=40: the model reads 40 tokens"),
        ({"length": 37}, r"the text for class 'owl' has 43 tokens, and the model reads 40: shorten method.length"),
        ({"position": "back"}, "choose from end, middle, front"),
        ({"class_names": ["owl"]}, "has 1 names for 3 classes"),
    ],
)
def test_a_mistake_is_one_line(clip, settings, message):
    with pytest.raises(UserError, match=message) as error:
        prepared(clip, **settings)
    assert "\n" not in str(error.value)


def test_a_run_trains_on_kept_images_answers_and_is_scored_again(clip, tmp_path, capsys):
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4)):
        for label, low in (("dark", 0), ("bright", 180)):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(low, low + 70, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{number}.png")
    line = ["train", "task=image_folder", f"task.dir={tmp_path}", "model=local", f"model.path={clip}", "device=cpu"]
    line += ["method=coop", "method.length=4", "trainer.epochs=8", "trainer.lr=0.05", "trainer.batch_size=8"]
    line += [
        "trainer.cache_frozen=true",
        "task.augment=[]",
        "threads=1",
        f"output_dir={tmp_path / 'runs'}",
        "trainer.precision=bf16",
        "measure.latency=true",
        "measure.seconds=0.01",
        "measure.batches=[1]",
    ]
    assert main(line) == 0
    (folder,) = tmp_path.glob("runs/default/coop-*")
    result = Record(folder).read()
    assert (result.parameters.method, result.parameters.head) == (4 * 24, 0)
    assert result.best["accuracy"] == 1.0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--split", "validation"]) == 0
    assert "100.0 %" in capsys.readouterr().out
    assert main(["predict", str(folder), str(tmp_path / "validation" / "dark"), "--json"]) == 0
    answers = [json.loads(row)["prediction"] for row in capsys.readouterr().out.splitlines()]
    assert answers == ["dark"] * 4
