"""The layers of Hugging Face peft: made in a copy of an encoder, taken out of it, and merged by peft itself."""

import copy
import io
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from peftbench.backbones.probe import explained
from peftbench.backbones.sites import NORM_SITES, Sites
from peftbench.errors import UserError, nearest

_ADAPTER = "default"
_PROMPTS = "it learns a prompt or a prefix: take method=prompt or method=prefix"
# types that need more than their layers: a loop, a loss or inputs of their own
_UNFIT = {
    "adalora": "its ranks are set anew by calls from a training loop of its own",
    "adaption_prompt": _PROMPTS,
    "lily": "its router averages over a whole batch: an answer would depend on the other texts",
    "poly": "its router takes task ids, and a run is of one task",
    "shadow": "it runs a second network beside the encoder",
    "trainable_tokens": "it trains new tokens, and a task's texts have none",
    "xlora": "it mixes adapters that were trained before",
}
# settings that a training loop of peft's own acts on: key, value, and what is missing
_UNFIT_SETTINGS = {
    ("init_lora_weights", "eva"): "a pass over the data",
    ("use_asa", True): "calls from the training loop",
}
# of peft's configs, what says how peft itself saves and loads, not what the tuner is; megatron_core names a module to
# import, which a record from anyone must not
_NOT_SETTINGS = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}


def tuner_settings(kind: str, config: Mapping[str, Any] | None) -> Any:
    """Return peft's own config of a type with these arguments.

    Raises UserError where peft is missing, has no such type or setting, or the type does not work here.
    """
    if find_spec("peft") is None:
        raise UserError("method=peft needs Hugging Face peft: pip install 'peftbench[peft]'")
    from peft.config import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {peft_type.value.lower(): cls for peft_type, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    unfit = {name: _PROMPTS for name, cls in classes.items() if issubclass(cls, PromptLearningConfig)} | _UNFIT
    if kind not in classes:
        fit = [name for name in classes if name not in unfit]
        raise UserError(f"method.type={kind}: peft has no such tuner. {nearest(kind.lower(), fit)}")
    if kind in unfit:
        raise UserError(f"method.type={kind} does not work here: {unfit[kind]}")
    known = {field.name for field in fields(classes[kind]) if field.init} - _NOT_SETTINGS
    for key, value in (config or {}).items():
        if key not in known:
            raise UserError(f"method.config: {kind} has no setting {key!r} here. {nearest(key, known)}")
        for (name, unfit_value), lacking in _UNFIT_SETTINGS.items():
            if (key, value) == (name, unfit_value):
                raise UserError(f"method.config: {key}={value} needs {lacking}, which it does not get here")
    with _quiet(), explained(f"method.config of {kind}"):
        return classes[kind](**copy.deepcopy(dict(config or {})))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep peft's warnings and progress bars off the terminal."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def inject(
    kind: str, config: Mapping[str, Any] | None, sites: Sites, shapes_only: bool = False
) -> dict[str, nn.Module]:
    """Return the layers that peft puts into a copy of the encoder, by the path of the module that each wraps.

    Args:
        kind: peft's name of the tuner. config: arguments of its config class.
        sites: of the encoder, which stays as it is.
        shapes_only: what is in the layers does not matter.

    Raises UserError where peft refuses, or where it makes more of the encoder than the encoder with such layers.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: nn.Module = sites.base

    def make(encoder: nn.Module) -> nn.Module:
        settings = tuner_settings(kind, config)
        PEFT_TYPE_TO_TUNER_MAPPING[settings.peft_type](encoder, settings, _ADAPTER)
        return encoder

    shapes_only = shapes_only or sites.device.type == "meta"
    with _quiet(), explained(f"method.type={kind} on {type(base).__name__}"):
        try:
            encoder = _make_from_shapes(base, make) if shapes_only else make(copy.deepcopy(base))
        except ValueError as error:
            if "specify `target_modules`" in str(error):
                raise UserError(_no_targets(kind, sites)) from error
            raise
    tuners: dict[str, Any] = {}
    for path, module in encoder.named_modules():
        if isinstance(module, BaseTunerLayer) and not any(path.startswith(f"{outer}.") for outer in tuners):
            tuners[path] = module
    inside = {id(p) for tuner in tuners.values() for p in tuner.parameters()}
    inside -= {id(p) for tuner in tuners.values() for p in tuner.get_base_layer().parameters()}
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad and id(parameter) not in inside:
            raise UserError(
                f"method.config trains {name.replace('base_layer.', '')} of the backbone: leave bias at none"
            )
    for path, tuner in tuners.items():
        _check_unchanged(kind, path, tuner.get_base_layer(), base, weights_too=not shapes_only)
    # what the head trains is no part of the backbone
    heads = {name.rpartition(".")[0] for name in sites.fresh}
    return {path: tuner for path, tuner in tuners.items() if path not in heads}


def _make_from_shapes(base: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Call `make` with a copy of the encoder on the meta device or, where the tuner cannot begin there, at random."""

    def copied(device: str) -> nn.Module:
        memo: dict[int, Any] = {id(b): torch.zeros_like(b, device=device) for b in base.buffers()}
        for parameter in base.parameters():
            random = torch.randn(parameter.shape, device=device)
            memo[id(parameter)] = nn.Parameter(random, requires_grad=False)
        return copy.deepcopy(base, memo)

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make(copied("meta"))
        except RuntimeError:
            with torch.device("cpu"):
                return make(copied("cpu"))


def _no_targets(kind: str, sites: Sites) -> str:
    names = NORM_SITES if kind == "ln_tuning" else ("attention.query", "attention.value")
    paths = dict.fromkeys(sites.layout.place(name).path for name in names)
    return (
        f"method.type={kind}: peft does not know what to adapt in {type(sites.base).__name__}: name modules, e.g."
        f" 'method.config={{target_modules: [{', '.join(paths)}]}}'"
    )


def _check_unchanged(kind: str, path: str, wrapped: nn.Module, base: nn.Module, weights_too: bool) -> None:
    """Refuse settings that change the encoder's modules, or its weights before training (PiSSA's start)."""
    try:
        original = base.get_submodule(path)
    except AttributeError:
        raise UserError(
            f"method.config makes modules that the encoder lacks ({path}): leave layer_replication and"
            " trainable_token_indices alone"
        ) from None
    if not weights_too:
        return
    for name, weight in wrapped.named_parameters(recurse=False):
        if not torch.equal(weight, original.get_parameter(name)):
            raise UserError(
                f"method.config: so set, {kind} rewrites the backbone's own weights ({path}.{name}) before training:"
                " choose another start"
            )


def point(tuner: nn.Module, module: nn.Module) -> None:
    """Let a tuner wrap this module: its parameters, whatever stands in their place, without the hooks on it."""
    bare = copy.copy(module)
    for name, value in vars(bare).items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and isinstance(value, Mapping):
            vars(bare)[name] = OrderedDict()
    vars(bare).pop("forward", None)
    tuner._modules.pop("base_layer", None)
    vars(tuner)["base_layer"] = bare  # no submodule: the backbone's parameters are not the method's


def keep_all_tensors(tuner: nn.Module) -> None:
    """Make buffers of all that a tuner holds and does not train, so that it is moved and saved."""
    from peft.tuners._buffer_dict import BufferDict

    for module in tuner.modules():
        module._non_persistent_buffers_set.clear()
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not parameter.requires_grad:
                del module._parameters[name]
                module.register_buffer(name, parameter.data)
        for name, value in list(vars(module).items()):
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            if isinstance(value, torch.Tensor):
                delattr(module, name)
                module.register_buffer(name, value)
            elif isinstance(value, dict) and value and all(isinstance(v, torch.Tensor) for v in value.values()):
                delattr(module, name)
                setattr(module, name, BufferDict(value, persistent=True))


def merged(
    tuner: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a module's weight and bias with the tuner merged into them, in whatever layout the module has."""
    wrapped = vars(tuner)["base_layer"]
    given = {"weight": weight, "bias": bias}
    parameters = {name: None if t is None else nn.Parameter(t.detach().clone()) for name, t in given.items()}
    bare = copy.copy(wrapped)
    vars(bare)["_parameters"] = {name: parameters[name] for name in wrapped._parameters}
    copied: Any = copy.deepcopy(tuner, {id(wrapped): bare})
    with _quiet(), torch.no_grad():
        copied.merge()
    base = copied.get_base_layer()
    return base.weight.detach(), None if bias is None else base.bias.detach()
