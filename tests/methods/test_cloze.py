"""Cloze prompts against transformers' own masked-language models, and as runs that train nothing or soft vectors."""

from types import SimpleNamespace

import pytest
import torch
from tiny import ARCHITECTURES
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

import peftbench
from peftbench.backbones.load import load_backbone
from peftbench.backbones.template import TemplateTokenizer, parse_template
from peftbench.config.fill import fill
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.cloze import Cloze, ClozeConfig
from peftbench.methods.guard import check_method
from peftbench.runs.adapter import load_adapter, save_adapter
from peftbench.serving.evaluate import score_run
from peftbench.tasks.classification import Classification
from peftbench.tasks.text.batching import encode
from peftbench.tasks.text.task import TextSplit, TextTask
from peftbench.terminal import working

LABELS = ("bad", "good")
TEXTS = [("the plot was dull",), ("fine",), ("a good film and a fine plot but dull",)]
PAIRS = [("the film was good", "a fine film"), ("a plot", "the plot is bad and dull"), ("a", "fine")]


@pytest.fixture(scope="module")
def masked_lm_dir(tmp_path_factory, tiny_model_dir):
    """Makes a folder with a tiny random model of an architecture under its masked-language-model head."""

    def make(architecture):
        folder = tmp_path_factory.mktemp("masked") / architecture
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **{**ARCHITECTURES[architecture], "pad_token_id": 0})
        model = AutoModelForMaskedLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.uniform_(-0.5, 0.5)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
        return folder

    return make


def prepared(folder, texts=1, **settings):
    config = ClozeConfig(**settings)
    backbone = Cloze.put_head(config, load_backbone(folder, answers_through="masked_lm"), LABELS, texts)
    torch.manual_seed(3)
    return backbone, build(config, backbone.sites)


def encoded(backbone, texts, max_length=32):
    data = encode(texts, None, backbone.sites.processor, max_length)
    return {k: v for k, v in data.batch(range(len(texts))).items() if k != "token_type_ids"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_zero_shot_is_what_the_language_model_says_at_the_mask(architecture, masked_lm_dir):
    folder = masked_lm_dir(architecture)
    own, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    words = tokenizer.convert_tokens_to_ids(list(LABELS))

    @torch.no_grad()
    def at_the_mask(sentence):
        batch = tokenizer(sentence, return_tensors="pt", return_token_type_ids=False)
        place = int((batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[-1])
        return own(input_ids=batch["input_ids"]).logits[0, place, words]

    backbone, method = prepared(folder, calibrate=False)
    sentences = [f"{text} it was [MASK] ." for (text,) in TEXTS]
    expected = torch.stack([at_the_mask(sentence.replace("it", "It")) for sentence in sentences])
    assert check_method(method, backbone, 32) == []
    with method.on(backbone.sites), torch.no_grad():
        found = backbone.model(**encoded(backbone, TEXTS)).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    backbone, method = prepared(folder, texts=2, template="{text_b} ? {mask} , {text_a}", words=["dull", "fine"])
    words = tokenizer.convert_tokens_to_ids(["dull", "fine"])
    empty = [at_the_mask(f"{text} ? [MASK] , {text}").softmax(-1) for text in ("N/A", "[UNK]", "")]
    expected = torch.stack([at_the_mask(f"{b} ? [MASK] , {a}") for a, b in PAIRS]).softmax(-1) / sum(empty)
    with method.on(backbone.sites), torch.no_grad():
        found = backbone.model(**encoded(backbone, PAIRS)).logits.softmax(-1)
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True), rtol=1e-3, atol=1e-4)
    assert not list(method.parameters())
    assert not backbone.head


@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra", "distilbert", "deberta-v2", "modernbert"])
def test_soft_vectors_stand_where_the_template_says(architecture, masked_lm_dir, tmp_path):
    folder = masked_lm_dir(architecture)
    own, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    backbone, method = prepared(folder, template="{soft:2} {text} {soft:1} {mask}")
    assert method.count(method.config, backbone.sites) == sum(p.numel() for p in method.parameters())
    assert check_method(method, backbone, 32) == []
    bare = backbone.model(**encoded(backbone, TEXTS)).logits

    ids = tokenizer("[UNK] [UNK] the plot was dull [UNK] [MASK]", return_tensors="pt")["input_ids"]
    vectors = method.vectors.detach().clone().requires_grad_()
    embedded = own.get_input_embeddings()(ids).detach().clone()
    places = [1, 2, 7]
    embedded[0, places] = vectors
    expected = own(inputs_embeds=embedded).logits[0, 8, tokenizer.convert_tokens_to_ids(list(LABELS))]
    expected.square().sum().backward()
    with method.on(backbone.sites):
        found = backbone.model(**encoded(backbone, TEXTS[:1])).logits[0]
        found.square().sum().backward()
        logits = backbone.model(**encoded(backbone, TEXTS)).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(method.vectors.grad, vectors.grad, rtol=1e-3, atol=1e-3)
    assert torch.equal(backbone.model(**encoded(backbone, TEXTS)).logits, bare), "detached"

    save_adapter(tmp_path / "adapter", method, backbone, {}, {}, [])
    again = load_adapter(tmp_path / "adapter", backbone)
    assert torch.equal(backbone.model(**encoded(backbone, TEXTS)).logits, logits)
    again.detach()


def test_a_long_text_is_cut_and_the_template_kept(masked_lm_dir):
    backbone, _ = prepared(masked_lm_dir("bert"), texts=2)
    tokenizer = backbone.sites.processor
    long = [(" ".join(["good"] * 50), "fine plot"), ("a [MASK] film", "bad " * 50)]
    data = encode(long, None, tokenizer, 16)
    assert (data.sizes.tolist(), data.truncated) == ([16, 16], 2)
    for row in data.batch([0, 1])["input_ids"].tolist():
        assert row.count(tokenizer.mask_token_id) == 1, "a mask that a text spells out is none"
    assert data.batch([0])["input_ids"][0].tolist() == tokenizer.inner.convert_tokens_to_ids(
        ["[CLS]", *["good"] * 10, "[MASK]", "[UNK]", "fine", "plot", "[SEP]"]
    )
    with pytest.raises(UserError, match="no room for a text"):
        encode(long, None, tokenizer, 5)


def test_tokens_kept_on_disk_are_the_template_s_own(masked_lm_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("peftbench.tasks.text.task.LEAST_ROWS", 1)
    split = TextSplit(TEXTS, [0, 1, 1])
    task = TextTask("made", Classification(LABELS), LABELS, ("accuracy",), {"train": split}, "here", ("text",), 32)
    folder = masked_lm_dir("bert")
    found = []
    for template in ("{text} {mask}", "{mask} {text}", "{text} {mask}"):
        tokenizer = prepared(folder, template=template)[0].sites.processor
        found.append(task.encode_split("train", SimpleNamespace(processor=tokenizer)).batch([0])["input_ids"].tolist())
        assert found[-1] == task.encode(split, SimpleNamespace(processor=tokenizer)).batch([0])["input_ids"].tolist()
    assert found[0] == found[2] != found[1]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "{text} is good"}, r"has no {mask}"),
        ({"template": "{text} {mask} {mask}"}, r"2 times {mask}"),
        ({"template": "it is {mask}"}, r"has no {text}"),
        ({"template": "{text} {masks}"}, r"there is no {masks} here; an example: "),
        ({"template": "{text} {mask"}, "expected '}'"),
        ({"template": "{text} {soft} {mask}"}, r"e.g. {soft:3}"),
        ({"template": "{text} {soft:0} {mask}"}, r"e.g. {soft:3}"),
        ({"template": "{text} {soft:99999999999999} {mask}"}, "has 99999999999999 vectors, and the model takes 66"),
        ({"template": "{text!r} {mask}"}, "takes nothing behind its name"),
        ({"template": "{text_a} {text_b} {mask}"}, r"there is no {text_a} here"),
        ({"template": "{text} {text_a} {text_b} {mask}"}, "mixes"),
        ({"words": ["good"]}, "names 1 words for 2 classes: one each, for bad, good"),
        ({"words": ["good", "good"]}, "a word of its own"),
        ({"words": ["bad", "goodplot"]}, r"'goodplot' is \d tokens to this model \(good, ##p"),
        ({"words": ["bad", "!"]}, "'!' is unknown to this model"),
        ({"words": ["bad", "[SEP]"]}, r"'\[SEP\]' is a special token of this model and no word"),
        ({"words": ["[MASK]", "good"]}, r"'\[MASK\]' is a special token"),
        ({"words": ["bad", ""]}, "is 0 tokens"),
        ({"template": "{text} {soft:2} {mask}", "calibrate": True}, "for templates without"),
        ({"words": "good"}, "is not of type"),
    ],
)
def test_a_mistake_is_one_line(settings, message, masked_lm_dir, tiny_model_dir):
    with pytest.raises(UserError, match=message) as error:
        config = fill(ClozeConfig, settings, "method")
        Cloze.put_head(config, load_backbone(masked_lm_dir("bert"), answers_through="masked_lm"), LABELS, 1)
    assert "\n" not in str(error.value)


def test_scores_have_no_words(masked_lm_dir):
    with pytest.raises(UserError, match="this task's labels are scores"):
        Cloze.put_head(ClozeConfig(), load_backbone(masked_lm_dir("bert"), answers_through="masked_lm"), (), 2)


def test_a_model_without_the_head_of_its_pretraining_is_refused(tiny_model_dir):
    with pytest.raises(UserError, match="has no masked-language-model head") as error:
        load_backbone(tiny_model_dir, answers_through="masked_lm")
    assert "\n" not in str(error.value)


def test_white_space_before_a_piece_is_the_tokenizer_s_to_see():
    class Spelling:
        """A tokenizer of letters, white space among them."""

        mask_token_id, unk_token_id = 0, None

        def __call__(self, texts, add_special_tokens=True):
            if isinstance(texts, str):
                return {"input_ids": [1, *map(ord, texts), 2] if add_special_tokens else list(map(ord, texts))}
            return {"input_ids": [list(map(ord, text)) for text in texts]}

    def spelled(template, *texts):
        rows = TemplateTokenizer(Spelling(), parse_template(template))(*([text] for text in texts), max_length=99)
        return "".join({0: "_", 1: "<", 2: ">"}.get(i, "#" if i < 0 else chr(i)) for i in rows["input_ids"][0])

    assert spelled("{text} It was {mask} .", "fine") == "<fine It was_ .>"
    assert spelled("{text}: {soft:2}{mask}", "fine") == "<fine:##_>"
    assert spelled("  {text_b}? {mask}, {text_a}", "one", "two") == "< two?_, one>"


def test_zero_shot_is_a_finished_run(masked_lm_dir, train_tiny):
    model = f"model.path={masked_lm_dir('bert')}"
    record = train_tiny("opinions", model, "method=cloze", "measure.latency=true", "measure.seconds=0.01")
    result = record.read()
    assert (result.status, result.parameters.method, result.parameters.head) == ("finished", 0, 0)
    assert result.time.per_epoch == []
    assert {evaluation.split for evaluation in result.evaluations} == {"validation", "test"}
    assert result.best == result.evaluations[0].metrics
    assert not record.checkpoint_path.exists()
    predicted = peftbench.load(str(record.folder)).predict(["good, a fine film", "the plot was dull"])
    assert {answer.prediction for answer in predicted} <= {"bad", "good"}


def test_soft_vectors_train_and_predict_as_recorded(masked_lm_dir, train_tiny):
    model = f"model.path={masked_lm_dir('bert')}"
    template = 'method.template="{soft:3} {text_a} {mask} {text_b}"'
    record = train_tiny("pairs", model, "method=cloze", template, "method.words=[bad,good]", "trainer.precision=bf16")
    result = record.read()
    assert (result.parameters.method, result.parameters.closed_form, result.parameters.head) == (96, 96, 0)
    assert len(result.time.per_epoch) == 2
    options = {"task_dir": None, "batch_size": None, "merged": False, "latency": False, "labels_needed": True}
    (again,) = score_run(record, "validation", device="cpu", working=working, **options)
    assert again.evaluation.metrics == result.evaluations[0].metrics
