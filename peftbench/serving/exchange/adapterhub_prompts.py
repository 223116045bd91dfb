"""Prefix and prompt tuning as AdapterHub saves them; both leave the text's positions where they are, as ours do."""

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig
from peftbench.serving.exchange.adapterhub_places import base_name, prefix_key
from peftbench.serving.exchange.converter import Converter, Settings, check_settings, required
from peftbench.serving.exchange.tie import Tensors, Tie

# models in which the library does with them what its paper and ours do
_PREFIX_MODELS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
_PROMPT_MODELS = ("bert", "roberta", "xlm-roberta", "electra")
_PREFIX_READ = (
    *("architecture", "prefix_length", "cross_prefix", "encoder_prefix", "dropout", "init_weights_seed"),
    *("bottleneck_size", "flat", "shared_gating"),
)
_PROMPT_READ = ("architecture", "prompt_length", "prompt_init", "prompt_init_text", "init_weights_seed")


def _prefix_settings(config: PrefixConfig, sites: Sites) -> Settings:
    _check_model("prefix", sites, _PREFIX_MODELS)
    return {
        "architecture": "prefix_tuning",
        "prefix_length": config.length,
        "flat": True,
        "encoder_prefix": True,
        "cross_prefix": True,
        "leave_out": [],
        "dropout": 0.0,
        "bottleneck_size": config.mid_dim,
        "non_linearity": "tanh",
        "use_gating": False,
        "shared_gating": True,
    }


def _prefix_ties(config: PrefixConfig, sites: Sites, name: str) -> list[Tie]:
    layers, width, key = len(sites.layers), sites.key_width, prefix_key(sites, name)
    if config.reparametrize:
        network = [(f"network.{i}.{leaf}", f"control_trans.{i}.{leaf}") for i in (0, 2) for leaf in ("weight", "bias")]
        return [
            Tie(f"{key}{adapterhub_leaf}", state_key)
            for state_key, adapterhub_leaf in (("embedding", "wte.weight"), *network)
        ]
    return [
        Tie(  # AdapterHub's: one row of numbers, for each key layer by layer key and value
            f"{key}control_trans",
            "direct",
            forth=lambda direct: direct.permute(2, 0, 1, 3).flatten(),
            back=lambda saved: saved.view(config.length, layers, 2, width).permute(1, 2, 0, 3),
        )
    ]


def _prefix_config(settings: Settings, tensors: Tensors, sites: Sites) -> PrefixConfig:
    _check_model("prefix", sites, _PREFIX_MODELS)
    check_settings(settings, _PREFIX_READ, {"encoder_prefix": (True,), "non_linearity": ("tanh",)})
    length = required(settings, "prefix_length", int)
    if settings.get("flat"):
        return PrefixConfig(length=length)
    return PrefixConfig(length=length, reparametrize=True, mid_dim=required(settings, "bottleneck_size", int))


def without_shares(tensors: Tensors) -> Tensors:
    """Return the tensors without those that every layer holds again of the model's one pool of prefixes."""
    pooled = ".prefix_tuning.pool."
    return {key: tensor for key, tensor in tensors.items() if pooled not in key}


def _prompt_settings(config: PromptConfig, sites: Sites) -> Settings:
    _check_prompt_model(sites)
    if config.insert != "after_first":
        raise UserError(
            f"method.insert={config.insert}: behind such a prompt AdapterHub's head reads the prompt, not the model's"
            " own first token; insert=after_first can be exported"
        )
    return {
        "architecture": "prompt_tuning",
        "prompt_length": config.length,
        "combine": "prefix_after_bos",
        "prompt_init": "random_uniform",
        "prompt_init_text": None,
    }


def _prompt_ties(config: PromptConfig, sites: Sites, name: str) -> list[Tie]:
    return [Tie(f"{base_name(sites)}.prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight", "vectors")]


def _prompt_config(settings: Settings, tensors: Tensors, sites: Sites) -> PromptConfig:
    _check_prompt_model(sites)
    check_settings(settings, _PROMPT_READ, {"combine": ("prefix_after_bos",)})
    return PromptConfig(length=required(settings, "prompt_length", int), init="uniform")


def _check_prompt_model(sites: Sites) -> None:
    _check_model("prompt", sites, _PROMPT_MODELS)
    if sites.base.get_input_embeddings().embedding_dim != sites.entry_width:
        raise UserError(
            "method=prompt: AdapterHub puts a prompt in before the embeddings are widened, ours is behind that"
        )


def _check_model(method: str, sites: Sites, known: tuple[str, ...]) -> None:
    kind = sites.base.config.model_type
    if kind not in known:
        raise UserError(
            f"method={method}: in {kind} models AdapterHub's {method} tuning computes something else; it can be"
            f" expressed for {', '.join(known)}"
        )


PREFIX_TUNING = Converter(_prefix_settings, _prefix_ties, _prefix_config)
PROMPT_TUNING = Converter(_prompt_settings, _prompt_ties, _prompt_config)
