"""The guard: what is silently wrong on a recognised architecture is refused in one line, before training."""

import pytest
import torch
from foreign_tiny import RECOGNISED, recognised_model
from tiny import ARCHITECTURES, IMAGE_ARCHITECTURES, headed, method_configs, tiny_model
from transformers import AutoTokenizer, CanineConfig, CanineForSequenceClassification

from peftbench.backbones.economy.first_token import head_reads_first_token
from peftbench.errors import UserError
from peftbench.methods import METHODS, Method, build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.adaptformer import AdaptformerConfig
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.convpass import ConvpassConfig
from peftbench.methods.fact import FactConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.guard import check_method
from peftbench.methods.head import HeadConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.mam import MamConfig
from peftbench.methods.norms import NormsConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig
from peftbench.methods.ssf import SsfConfig
from peftbench.methods.vpt import VptConfig

CONFIGS = {
    "full": FullConfig(),
    "head": HeadConfig(),
    "adapter": AdapterConfig(bottleneck=4, position="every"),
    "adapter-output": AdapterConfig(bottleneck=4, position="output"),
    "pfeiffer": PfeifferConfig(bottleneck=4),
    "parallel": ParallelConfig(bottleneck=4, learn_scale=True),
    "compacter": CompacterConfig(bottleneck=4),
    "ia3": Ia3Config(targets=["all"]),
    "lora": LoraConfig(rank=2, targets=["all"]),
    "dora": LoraConfig(rank=2, dora=True),
    "mam": MamConfig(bottleneck=4, length=3, mid_dim=6),
    "prefix": PrefixConfig(length=3),
    "prefix-network": PrefixConfig(length=3, reparametrize=True, mid_dim=6),
    "prompt": PromptConfig(length=3),
    "prompt-front": PromptConfig(length=3, insert="front"),
}


def _class_of(config) -> type[Method]:
    return next(cls for cls in METHODS.values() if cls.config_class is type(config))


def refusal(config, backbone, longest=32) -> str:
    with pytest.raises(UserError) as caught:
        check_method(build(config, backbone.sites), backbone, longest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BEYOND_TEXTS = [
    AdaptformerConfig(bottleneck=4),
    ConvpassConfig(bottleneck=4),
    FactConfig(rank=4),
    FactConfig(rank=4, form="tk"),
    NormsConfig(),
    SsfConfig(),
    VptConfig(length=3),
    VptConfig(length=3, deep=False, projection=5),
]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *IMAGE_ARCHITECTURES])
def test_supported_architectures_pass_and_nothing_is_disturbed(architecture):
    backbone = headed(tiny_model(architecture))
    backbone.backbone.encoder.requires_grad_(False)
    kind = "texts" if architecture in ARCHITECTURES else "images"
    for config in (*CONFIGS.values(), *BEYOND_TEXTS):
        if kind not in _class_of(config).modalities:
            continue
        if architecture == "data2vec-vision" and isinstance(config, PrefixConfig | MamConfig):
            continue  # a prefix cannot reach its attention
        method = build(config, backbone.sites)
        before = [p.detach().clone() for p in method.parameters()]
        weights = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
        torch.manual_seed(5)
        check_method(method, backbone, 32 if kind == "texts" else None)
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(torch.rand(1), drawn), "torch's random state stays"
        assert all(torch.equal(p, old) for p, old in zip(method.parameters(), before, strict=True))
        assert all(torch.equal(tensor, weights[n]) for n, tensor in backbone.model.state_dict().items())
        assert not method.attached and not backbone.model.training
        assert all(p.grad is None for p in (*method.parameters(), *backbone.model.parameters()))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.model.modules())


def test_a_run_is_refused_before_anything_is_written(train_tiny, tiny_model_dir, tmp_path):
    recognised_model("xmod").save_pretrained(tmp_path / "xmod")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "xmod")
    overrides = (f"model.path={tmp_path / 'xmod'}", "method=adapter", "method.bottleneck=4", f"output_dir={tmp_path}")
    with pytest.raises(UserError, match="method=adapter does not fit XmodModel"):
        train_tiny("opinions", *overrides)
    assert [path.name for path in tmp_path.iterdir()] == ["xmod"]


def test_a_site_that_is_run_twice_is_refused():
    assert "runs ffn.residual 2 times" in refusal(AdapterConfig(bottleneck=4), headed(recognised_model("xmod")))
    assert "ffn.residual runs twice" in refusal(ParallelConfig(bottleneck=4), headed(recognised_model("xmod")))
    check_method(build(LoraConfig(rank=2), (b := headed(recognised_model("xmod"))).sites), b, 32)


@pytest.mark.parametrize("config", [PrefixConfig(length=3), PromptConfig(length=3)])
def test_a_causal_model_under_prefix_or_prompt_is_refused(config):
    causal = headed(recognised_model("bert", is_decoder=True))
    assert "padding" in refusal(config, causal) and "causal" in refusal(config, causal)


def test_a_causal_model_under_other_methods_answers_alike_beside_padding():
    """Of its head's row, the first, the query does not matter: it sees nothing but itself."""
    causal = headed(recognised_model("bert", is_decoder=True))
    check_method(build(LoraConfig(rank=2, targets=["value"]), causal.sites), causal, 32)
    assert "updates.query.0 would never train" in refusal(LoraConfig(rank=2), causal)


def test_what_would_never_train_is_refused():
    longformer = headed(recognised_model("longformer"))
    line = refusal(LoraConfig(rank=2), longformer)
    assert "updates.query.1 would never train" in line and "Longformer" in line
    check_method(build(LoraConfig(rank=2, targets=["output", "up"]), longformer.sites), longformer, 32)
    assert "factors.key.1 would never train" in refusal(Ia3Config(), longformer)  # one of many in a list


def test_tensors_of_the_backbone_that_no_answer_depends_on_are_named():
    luke = headed(recognised_model("luke"))
    (remark,) = check_method(build(FullConfig(), luke.sites), luke, 32)
    assert "entity_embeddings" in remark and "counted as trained" in remark


def test_answers_that_are_no_numbers_are_refused():
    bert = headed(tiny_model("bert"))
    method = build(LoraConfig(rank=2), bert.sites)
    with torch.no_grad():
        method.updates["query"][0].b.fill_(torch.inf)
    with pytest.raises(UserError, match="no finite numbers"):
        check_method(method, bert, 32)


@pytest.mark.parametrize("name", ["CLIPTextModel", "SiglipTextModel"])
def test_a_tower_of_texts_is_not_taken_for_one_of_images(name):
    import transformers

    cls = getattr(transformers, name)
    numbers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    with pytest.raises(UserError, match="no layout"):
        find_sites(cls(cls.config_class(vocab_size=120, **numbers)))


@pytest.mark.parametrize("architecture", ["roformer", "rembert", "tapas", "convbert", "layoutlm", "longformer", "yoso"])
def test_an_attention_that_a_prefix_cannot_reach_is_refused(architecture):
    sites = find_sites(recognised_model(architecture))
    with pytest.raises(UserError, match="a prefix cannot reach the attention of"):
        build(PrefixConfig(length=3), sites)


def test_what_only_fails_when_it_runs_is_refused():
    assert "prompt does not run on LukeModel" in refusal(PromptConfig(length=3), headed(recognised_model("luke")))


@pytest.mark.parametrize("architecture", ["convbert", "nystromformer"])
def test_a_model_that_padding_reaches_by_itself_is_told_of(architecture):
    backbone = headed(recognised_model(architecture))
    (concern,) = check_method(build(LoraConfig(rank=2), backbone.sites), backbone, 32)
    assert "lets padding change its answer by itself" in concern
    bert = headed(recognised_model("ernie"))
    assert check_method(build(LoraConfig(rank=2), bert.sites), bert, 32) == []


def test_big_bird_keeps_its_sparse_attention():
    backbone = headed(recognised_model("big_bird"))
    encoder = backbone.backbone.encoder
    attention = encoder.encoder.layer[0].attention.self
    head_reads_first_token(backbone.sites)
    assert encoder.attention_type == "block_sparse" and encoder.encoder.layer[0].attention.self is attention
    assert "order of the batches" in refusal(LoraConfig(rank=2), backbone, longest=120)
    assert encoder.attention_type == "block_sparse" and encoder.encoder.layer[0].attention.self is attention
    check_method(build(LoraConfig(rank=2), backbone.sites), backbone, 16)  # every row is too short for it
    whole = headed(recognised_model("big_bird", attention_type="original_full"))
    check_method(build(LoraConfig(rank=2), whole.sites), whole, 120)


def test_a_prompt_s_start_leaves_sparse_attention_on():
    backbone = headed(recognised_model("big_bird"))
    assert "order of the batches" in refusal(PromptConfig(length=3), backbone, longest=120)
    assert backbone.backbone.encoder.attention_type == "block_sparse"


def test_a_prompt_s_start_on_a_model_of_more_than_tokens_is_refused():
    lilt = recognised_model("lilt", **RECOGNISED["ernie"], hidden_dropout_prob=0.0)
    lilt.lilt.layout_embeddings.register_forward_pre_hook(lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(UserError, match="LiltModel does not run on token ids alone: ") as caught:
        build(PromptConfig(length=3), headed(lilt).sites)
    assert "\n" not in str(caught.value)


def test_dropout_that_was_asked_away_and_stays_is_refused():
    model = tiny_model("bert")
    model.bert.encoder.layer[0].register_forward_hook(lambda m, args, out: torch.dropout(out, 0.2, m.training))
    backbone = headed(model)
    check_method(build(LoraConfig(rank=2), backbone.sites), backbone, 32)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    object.__setattr__(backbone.backbone, "dropout", 0.0)
    assert "model.dropout=0 does not reach" in refusal(LoraConfig(rank=2), backbone)


@pytest.mark.parametrize("architecture", [*RECOGNISED, "deberta-v2 without share_att_key"])
def test_closed_forms_are_what_trains(architecture):
    name, _, without = architecture.partition(" without ")
    sites = find_sites(recognised_model(name, **({without: False} if without else {})))
    for name, config in (method_configs() | {"lora": LoraConfig(rank=2, targets=["all"])}).items():
        try:
            built = build(config, sites)
        except UserError:  # a prefix that reaches no attention
            assert name in ("prefix", "mam") and not sites.attention_interface
            continue
        assert sum(p.numel() for p in built.parameters()) == built.count(config, sites), name


@pytest.mark.parametrize("architecture", RECOGNISED)
def test_the_position_limit_is_the_longest_row_that_runs(architecture):
    model = recognised_model(architecture)
    longest = find_sites(model).positions
    with torch.no_grad():
        model(input_ids=torch.full((1, longest), 7))
        if architecture != "tapas":  # it counts positions anew in each cell of its table
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, longest + 1), 7))


def test_bitfit_without_biases_is_refused():
    with pytest.raises(UserError, match="has no biases"):
        build(BitfitConfig(), find_sites(tiny_model("modernbert")))


@pytest.mark.parametrize("config", [LoraConfig(rank=2), PromptConfig(length=2)])
def test_a_model_without_a_vocabulary_is_refused(config):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = CanineForSequenceClassification(CanineConfig(**sizes, max_position_embeddings=64, num_hash_buckets=64))
    assert "the config of CanineModel has no vocab_size" in refusal(config, headed(model))
