"""Hugging Face peft's folders: what the real library makes of ours, and we of its."""

import json

import pytest
import torch
from exchanged import answers, backbone_of, drawn, read_back
from safetensors.torch import load_file, save_file
from tiny import tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.serving.exchange import peft_folder

ARCHITECTURES = ("bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert")
METHODS = {
    "lora": LoraConfig(rank=4, alpha=8),
    "rslora in all maps": LoraConfig(rank=4, rslora=True, targets=["query", "key", "value", "output", "up", "down"]),
    "dora": LoraConfig(rank=3, dora=True, targets=["query", "down"]),
    "ia3": Ia3Config(),
    "ia3 in all maps": Ia3Config(targets=["query", "key", "value", "output", "up", "down"]),
    "prefix": PrefixConfig(length=5),
}
WITH_PAST_KEYS = ("bert", "roberta", "electra")


def made(tmp_path, architecture, config):
    backbone = backbone_of(architecture)
    method = drawn(config, backbone)
    peft_folder.write(tmp_path, method, backbone, "its/base", "main")
    return answers(method, backbone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", METHODS)
def test_there_and_back_every_number_is_the_same(tmp_path, architecture, name):
    if name == "prefix" and architecture not in WITH_PAST_KEYS:
        with pytest.raises(UserError, match="method=prefix: .*Model takes no past keys"):
            made(tmp_path, architecture, METHODS[name])
        return
    expected = made(tmp_path, architecture, METHODS[name])
    method, found = read_back(tmp_path, architecture)
    assert method.config == METHODS[name]
    assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", METHODS)
def test_the_real_library_answers_as_we_do(tmp_path, architecture, name):
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    if name == "prefix" and architecture not in WITH_PAST_KEYS:
        pytest.skip("refused, see above")
    expected = made(tmp_path, architecture, METHODS[name])
    model = peft.PeftModel.from_pretrained(tiny_model(architecture, num_labels=3), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(**tiny_batch()).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (
            "LoraConfig",
            {"r": 2, "lora_alpha": 3, "target_modules": ["query"], "init_lora_weights": False},
            {"alpha": 3},
        ),
        ("LoraConfig", {"r": 2, "use_rslora": True, "target_modules": "all-linear"}, {"rslora": True}),
        ("LoraConfig", {"r": 2, "alpha_pattern": {"query": 4, "value": 4}, "lora_alpha": 9}, {"alpha": 4}),
        ("IA3Config", {"target_modules": ["key", "value"], "feedforward_modules": []}, {"targets": ["key", "value"]}),
    ],
)
def test_what_the_real_library_saved_answers_as_there(tmp_path, kind, settings, expected):
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    model = peft.get_peft_model(tiny_model("bert", num_labels=3), getattr(peft, kind)(task_type="SEQ_CLS", **settings))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "ia3_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        there = model.eval()(**tiny_batch()).logits
    model.save_pretrained(tmp_path)
    if "all-linear" in settings.values():  # the pooler is one to peft, and no linear site here
        with pytest.raises(
            UserError, match="it acts on bert.pooler.dense, which is no linear map of this model's layer"
        ):
            read_back(tmp_path, "bert")
        return
    method, found = read_back(tmp_path, "bert")
    assert {key: getattr(method.config, key) for key in expected} == expected
    torch.testing.assert_close(found, there, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_qalora": True}, "use_qalora=true is a setting that cannot be expressed here"),
        ({"brand_new": {"a": 1}}, r'brand_new=\{"a": 1\} is a setting'),
        ({"bias": "all"}, 'bias="all" cannot be expressed here, only "none"'),
        ({"init_lora_weights": "pissa"}, 'init_lora_weights="pissa" cannot'),
        ({"task_type": "CAUSAL_LM"}, 'task_type="CAUSAL_LM" cannot be expressed here, only "SEQ_CLS" or null'),
        ({"lora_alpha": "much"}, 'lora_alpha="much" is missing or not of the right kind'),
        ({"lora_alpha": 1e308}, r"lora_alpha=1e\+308 is no number that fits into 32 bits"),
        ({"r": 3}, "r or rank_pattern say a rank of 3 for .*query, and its weights have 4"),
        ({"rank_pattern": {"value": 2}}, "r or rank_pattern say a rank of 2 for .*value"),
        (
            {"target_modules": ["query"]},
            "target_modules and exclude_modules leave out .*value, which its weights",
        ),
        ({"target_modules": r".*\.0\..*query|.*value"}, "leave out .*1.attention.self.query"),
        ({"target_modules": "(query"}, r"target_modules=\(query is no pattern for names"),
        ({"target_modules": {"query": 1}}, 'target_modules={"query": 1} is missing or not of the right kind'),
        ({"layers_to_transform": "all"}, 'layers_to_transform="all" is missing or not of the right kind'),
        ({"exclude_modules": ["value"]}, "target_modules and exclude_modules leave out .*value"),
        ({"layers_to_transform": 1}, "layers_to_transform leaves out the layer of .*0.attention"),
        ({"alpha_pattern": {"query": 4}}, "rank_pattern or alpha_pattern give its maps different ranks or scales"),
        ({"lora_dropout": "some"}, 'lora_dropout="some" is missing or not of the right kind'),
        ({"alpha_pattern": {"(a*)*b": 1}}, "is a regular expression, only names of maps"),
        ({"alpha_pattern": [1]}, "alpha_pattern=.* not of the right kind"),
        ({"peft_type": ["LORA"]}, "peft_type=.* cannot be imported"),
        ({"peft_type": "VERA"}, "peft_type=VERA cannot be imported, only LORA, IA3, PREFIX_TUNING"),
    ],
)
def test_settings_that_are_not_ours_are_named(tmp_path, settings, message):
    made(tmp_path, "bert", METHODS["lora"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(UserError, match=message):
        read_back(tmp_path, "bert")


def dropped(key):
    return lambda tensors: tensors.pop(key)


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped(f"{QUERY}.lora_B.weight"), f"the weights lack {QUERY}.lora_B.weight"),
        (lambda tensors: [tensors.pop(f"{QUERY}.lora_{ab}.weight") for ab in "AB"], "some layers and not in layer 0"),
        (dropped("base_model.model.classifier.weight"), "lack the head's .*: save the classifier along"),
        (lambda t: t.update(more=torch.zeros(2)), "the weights hold more, which has no place in peftbench"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.zeros(4, 48)}), "another base model: 4 × 48 where the"),
        (
            lambda t: t.update({"base_model.model.classifier.bias": torch.zeros(5)}),
            "is 5 where task and model make it 3",
        ),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.full((4, 32), torch.nan)}), "no finite floating-point"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.tensor(1.0)}), "lora_A.weight is no matrix, it has 0 dim"),
        (lambda t: t.update({f"{QUERY}.lora_B.weight": torch.zeros(4)}), "lora_B.weight is no matrix, it has 1 dim"),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.zeros(5, 32)}), "say a rank of 4 for .*, and .* have 5"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    made(tmp_path, "bert", METHODS["lora"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(UserError, match=message):
        read_back(tmp_path, "bert")


def test_a_prefix_that_moves_the_text_on_is_refused(tmp_path):
    """As peft itself trains one: its text begins at position 5."""
    made(tmp_path, "bert", METHODS["prefix"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    table = "base_model.bert.embeddings.position_embeddings.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != table}, path)
    with pytest.raises(UserError, match="the text's positions begin at 5, here they stay at 0: only a prefix that"):
        read_back(tmp_path, "bert")
    save_file(tensors | {table: tensors[table].roll(1, 0)}, path)
    with pytest.raises(UserError, match=f"{table} holds values that have no place"):
        read_back(tmp_path, "bert")


def test_one_pair_for_fused_maps_is_refused(tmp_path):
    """peft's own LoRA on ModernBERT: one A for query, key and value together."""
    made(tmp_path, "modernbert", LoraConfig(rank=4))
    path = tmp_path / "adapter_model.safetensors"
    save_file({key: torch.rand_like(tensor) for key, tensor in load_file(path).items()}, path)
    with pytest.raises(UserError, match="one pair A and B serves query, key and value together|no place in peftbench"):
        read_back(tmp_path, "modernbert")


def test_lower_precision_is_read(tmp_path):
    made(tmp_path, "bert", METHODS["lora"])
    path = tmp_path / "adapter_model.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)
    method, _ = read_back(tmp_path, "bert")
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
