"""AdapterHub's folders: our layout against what the library saved, what it makes of ours, and we of its."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from exchanged import answers, backbone_of, drawn, read_back
from safetensors.torch import load_file, save_file
from tiny import headed, tiny_batch, tiny_model
from transformers import BertConfig, BertForSequenceClassification

from peftbench.errors import UserError
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.mam import MamConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig
from peftbench.serving.exchange import adapterhub_folder
from peftbench.serving.exchange.bring_in import read_folder, read_method
from peftbench.serving.targets import ADAPTERS_PYTHON, attention_needed

ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "electra", "deberta-v2", "distilbert")
METHODS = {
    "adapter": AdapterConfig(bottleneck=8),
    "adapter in one layer": AdapterConfig(
        bottleneck=7, position="attention", layers="1-", train_layer_norm=False, activation="swish"
    ),
    "wide adapter": AdapterConfig(bottleneck=40, position="ffn", activation="gelu_new"),
    "pfeiffer": PfeifferConfig(bottleneck=5),
    "parallel": ParallelConfig(bottleneck=6),
    "parallel, scale learned": ParallelConfig(bottleneck=6, scale=1.0, learn_scale=True, layers="0"),
    "compacter": CompacterConfig(bottleneck=8, rank=2),
    "compacter++": CompacterConfig(bottleneck=8, position="ffn", train_layer_norm=False),
    "lora": LoraConfig(rank=4, alpha=6, targets=["query", "key", "value", "up", "down"]),
    "ia3": Ia3Config(targets=["key", "value", "up"]),
    "prefix": PrefixConfig(length=5),
    "prompt": PromptConfig(length=5, init="uniform"),
    "mam": MamConfig(bottleneck=5, length=5, reparametrize=False, mid_dim=512),
}
REFUSED = {
    *(("deberta-v2", name) for name in ("prefix", "prompt", "mam")),
    *(("distilbert", "prompt"), ("electra", "prompt")),  # the latter has narrower embeddings
}
CASES = [(kind, name) for kind in ARCHITECTURES for name in METHODS if (kind, name) not in REFUSED]


def made(folder, architecture, config):
    backbone = backbone_of(architecture)
    method = drawn(config, backbone)
    adapterhub_folder.write(folder, method, backbone, "mine", ["a", "b", "c"])
    return answers(method, backbone)


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_there_and_back_every_number_is_the_same(tmp_path, architecture, name):
    expected = made(tmp_path, architecture, METHODS[name])
    method, found = read_back(tmp_path, architecture)
    assert method.config == METHODS[name]
    assert torch.equal(found, expected)


LOAD = """
import json, sys, adapters, torch
from transformers import AutoModelForSequenceClassification
given = json.load(open(sys.argv[1]))
found = {}
for name, (base, folder, attention) in given["folders"].items():
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, **attention)
    adapters.init(model)
    model.load_adapter(folder, set_active=True, use_safetensors=True)
    with torch.no_grad():
        found[name] = model.eval()(**torch.load(given["batch"])).logits
torch.save(found, given["answers"])
"""


def test_the_real_library_answers_as_we_do(tmp_path):
    python = os.environ.get(ADAPTERS_PYTHON)
    if not python:
        pytest.skip(f"needs AdapterHub's adapters, which cannot live in this environment: {ADAPTERS_PYTHON}=PYTHON")
    given = {"folders": {}, "batch": str(tmp_path / "batch.pt"), "answers": str(tmp_path / "answers.pt")}
    torch.save(tiny_batch(), given["batch"])
    expected = {}
    for number, (architecture, name) in enumerate(CASES):
        base, folder = tmp_path / architecture, tmp_path / str(number)
        if not base.exists():
            tiny_model(architecture, num_labels=3).save_pretrained(base)
        folder.mkdir()
        expected[str(number)] = made(folder, architecture, METHODS[name])
        needed = attention_needed("adapters", name)
        given["folders"][number] = str(base), str(folder), {"attn_implementation": needed} if needed else {}
    (tmp_path / "given.json").write_text(json.dumps(given))
    subprocess.run([python, "-c", LOAD, str(tmp_path / "given.json")], check=True)
    found = torch.load(given["answers"])
    for number, case in enumerate(CASES):
        torch.testing.assert_close(found[str(number)], expected[str(number)], rtol=1e-5, atol=1e-5, msg=str(case))


# what the library saved of a bare encoder: without the name that the encoder has in a model with a head, without the
# rule that Compacter's layers share, and without a head
SAVED = {
    "ad_double_seq_bn": AdapterConfig(bottleneck=8, activation="swish", train_layer_norm=False),
    "ad_seq_bn": PfeifferConfig(bottleneck=8),
    "ad_par_bn": ParallelConfig(bottleneck=8),
    "ad_compacter_n4": CompacterConfig(bottleneck=8, activation="gelu", train_layer_norm=False),
    "ad_lora_qv": LoraConfig(rank=4, alpha=8),
    "ad_prefix_flat": PrefixConfig(length=5),
}


def golden_backbone(golden_dir: Path, name: str):
    described = json.loads((golden_dir / f"{name}.json").read_text())
    model = BertForSequenceClassification(BertConfig(**described["model_config"], num_labels=3)).eval()
    tensors = load_file(golden_dir / f"{name}.safetensors")
    base = {key.removeprefix("base."): tensor for key, tensor in tensors.items() if key.startswith("base.")}
    model.bert.load_state_dict(base, strict=False)
    return headed(model), tensors


@pytest.mark.parametrize("name", SAVED)
def test_our_layout_is_the_library_s(tmp_path, golden_dir, name):
    saved = golden_dir / "saved_adapters" / name / "a"
    backbone, tensors = golden_backbone(golden_dir, name)
    adapterhub_folder.write(tmp_path, drawn(SAVED[name], backbone), backbone, "a", ["a", "b", "c"])
    ours, theirs = (json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path, saved))
    meaningless = {"init_weights_seed", "phm_c_init", "phm_init_range", "hypercomplex_nonlinearity", "dtype", "vera_b"}
    meaningless |= {"vera_d", "stochastic_depth"}
    for key in set(theirs["config"]) - meaningless:
        assert ours["config"][key] == theirs["config"][key], key
    assert not set(ours["config"]) - set(theirs["config"])
    assert set(ours) == set(theirs) and ours["hidden_size"] == theirs["hidden_size"] == 32
    written = {key.removeprefix("bert."): t.shape for key, t in load_file(tmp_path / "adapter.safetensors").items()}
    if name == "ad_prefix_flat":  # which the library cannot save so: every layer holds it again
        assert written == {"prefix_tuning.prefix_tunings.a.self_prefix.control_trans": torch.Size([5 * 2 * 2 * 32])}
        return
    expected = {key: tensor.shape for key, tensor in load_file(saved / "adapter.safetensors").items()}
    if name == "ad_compacter_n4":
        expected["shared_parameters.a.phm_rule"] = tensors["adapter.shared_parameters.a.phm_rule"].shape
    assert written == expected


@pytest.mark.parametrize("name", SAVED)
def test_what_the_library_saved_computes_as_there(tmp_path, golden_dir, name):
    saved = golden_dir / "saved_adapters" / name / "a"
    backbone, golden = golden_backbone(golden_dir, name)
    # its folder as the library writes it of a model with a head
    (tmp_path / "adapter_config.json").write_text((saved / "adapter_config.json").read_text())
    adapter = {f"bert.{k.removeprefix('adapter.')}": t for k, t in golden.items() if k.startswith("adapter.")}
    layer = "bert.encoder.layer.0.attention.self.prefix_tuning.pool"
    pooled = {key.replace(layer, "bert.prefix_tuning"): tensor for key, tensor in adapter.items()}
    torch.save({**adapter, **pooled} if name == "ad_prefix_flat" else adapter, tmp_path / "pytorch_adapter.bin")
    torch.save({key: tensor.detach() for key, tensor in backbone.head.items()}, tmp_path / "pytorch_model_head.bin")
    method = read_method(read_folder(tmp_path), backbone)
    assert method.config == SAVED[name]
    inputs = {key: golden[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    with method.on(backbone.sites), torch.no_grad():
        hidden = backbone.model.bert(**inputs).last_hidden_state
    assert (hidden - golden["last_hidden_state"]).abs().max() <= 1e-5 * golden["last_hidden_state"].abs().max()


def test_an_adapter_without_a_head_is_refused(golden_dir):
    backbone, _ = golden_backbone(golden_dir, "ad_seq_bn")
    with pytest.raises(UserError, match="lack the head's classifier.weight: save the classifier along"):
        read_method(read_folder(golden_dir / "saved_adapters" / "ad_seq_bn" / "a"), backbone)


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        (
            "bert",
            AdapterConfig(bottleneck=4, position="every"),
            "position=every: .*; position=attention, ffn and",
        ),
        ("bert", LoraConfig(rank=2, dora=True), "method.dora=true: .* dora=false can be exported, and --to peft takes"),
        ("bert", LoraConfig(rank=2, targets=["output"]), "method.targets: .*; query, key, value, up and down can be"),
        ("bert", Ia3Config(), r"method.targets: .* targets=\[key,value,up\] can be exported"),
        ("bert", PromptConfig(length=2, init="uniform", insert="front"), "method.insert=front: .*; insert=after_first"),
        ("deberta-v2", PrefixConfig(length=2), "in deberta-v2 models .* for bert, roberta, xlm-roberta, electra, dist"),
        ("electra", PromptConfig(length=2, init="uniform"), "before the embeddings are widened"),
        ("modernbert", PfeifferConfig(bottleneck=2), "does not know modernbert models, only bert, deberta-v2, distil"),
    ],
)
def test_what_the_library_cannot_express_is_named(tmp_path, architecture, config, message):
    with pytest.raises(UserError, match=message):
        made(tmp_path, architecture, config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ln_before": True}, "ln_before=true is a setting that cannot be expressed here"),
        ({"use_gating": True}, "use_gating=true"),
        ({"residual_before_ln": False}, "residual_before_ln=false cannot be expressed here, only true"),
        (
            {"non_linearity": "leakyrelu"},
            'non_linearity="leakyrelu" cannot be expressed here, only "gelu" or "relu"',
        ),
        ({"scaling": 2.0}, "scaling=2.0 cannot be expressed here, only 1"),
        ({"is_parallel": True, "scaling": "big"}, "mh_adapter=true|scaling"),
        ({"is_parallel": True, "mh_adapter": False, "non_linearity": "relu", "scaling": "big"}, 'scaling="big"'),
        ({"reduction_factor": {"1": 2}}, "reduction_factor=.* is missing or not of the right kind"),
        ({"reduction_factor": 8}, "is of another base model: 8 × 32 where the model has 4 × 32"),
        ({"reduction_factor": 1e-9}, "its settings make it .* parameters, and the weights hold"),
        ({"reduction_factor": float("nan")}, "reduction_factor=NaN is no number"),
        ({"mh_adapter": []}, "mh_adapter and output_adapter say true or false"),
        ({"leave_out": [0, 1]}, "leave_out leaves no layer"),
        ({"leave_out": "0"}, 'leave_out="0" is missing or not of the right kind'),
        ({"scaling": [1]}, "scaling="),
        ({"architecture": "reft"}, "architecture=reft cannot be imported"),
        ({"architecture": ["lora"]}, "architecture=.* cannot be imported"),
    ],
)
def test_settings_that_are_not_ours_are_named(tmp_path, settings, message):
    made(tmp_path, "bert", METHODS["adapter"])
    path = tmp_path / "adapter_config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "config": described["config"] | settings}))
    with pytest.raises(UserError, match=message):
        read_back(tmp_path, "bert")


def test_a_lora_of_the_versions_with_another_scale_is_refused(tmp_path):
    made(tmp_path, "bert", METHODS["lora"])
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace("adapters.1.3.0", "adapters.1.0.1"))
    with pytest.raises(UserError, match="was saved by adapters.1.0, whose LoRA had another scale"):
        read_back(tmp_path, "bert")


def test_a_head_of_the_library_s_own_is_refused(tmp_path):
    made(tmp_path, "bert", METHODS["adapter"])
    path = tmp_path / "head_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": {"head_type": "classification"}}))
    with pytest.raises(UserError, match="AutoAdapterModel"):
        read_back(tmp_path, "bert")


class Harm:
    def __reduce__(self):
        return os.system, ("touch harm",)


def test_a_pickle_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "bert", METHODS["adapter"])
    tensors = load_file("adapter.safetensors")
    Path("adapter.safetensors").unlink()
    torch.save(tensors, "pytorch_adapter.bin")
    read_back(tmp_path, "bert")
    torch.save({**tensors, "harm": Harm()}, "pytorch_adapter.bin")
    with pytest.raises(UserError, match="holds more than tensors, which is never run: save it as safetensors"):
        read_back(tmp_path, "bert")
    assert not Path("harm").exists()
    torch.save([tensors], "pytorch_adapter.bin")
    with pytest.raises(UserError, match="damaged"):
        read_back(tmp_path, "bert")
    save_file(tensors, "adapter.safetensors")
    Path("adapter.safetensors").write_bytes(Path("adapter.safetensors").read_bytes()[:3000])
    with pytest.raises(UserError, match="adapter.safetensors is cut short or damaged"):
        read_back(tmp_path, "bert")
