"""Hydra's errors in one line: which override is wrong, and what it may have been meant to be."""

from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from peftbench.config.folder import CONFIG_NAME
from peftbench.config.hydra_session import combinations, hydra_ready, parse
from peftbench.errors import LostRunError, PeftbenchError, UserError, nearest


class UnknownKeyError(UserError):
    """An override names a key that the config does not have; `override` is the text of it."""

    def __init__(self, message: str, override: str) -> None:
        super().__init__(message)
        self.override = override


def translate(error: Exception, overrides: Sequence[str], name: str = CONFIG_NAME) -> PeftbenchError:
    """Return the one line that says which override is wrong, and what it may have been meant to be.

    Args:
        error: what Hydra or OmegaConf raised; another kind is a bug and raised again.
        overrides: the command line behind the command's name; flags among it are left out.
    """
    if isinstance(error, OverrideParseException):
        return UserError(_unreadable(error.override))
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return UserError(f"{group}={option}: there is no such {group}. {nearest(option, error.options, most=2)}")
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        place = f"{error.problem_mark.name.strip()}, line {error.problem_mark.line + 1}"
        return UserError(f"{place}: {error.problem or error.context}")
    if isinstance(error, YAMLError | UnicodeError):
        return UserError(f"a config file cannot be read: {error_text(error)}")
    if isinstance(error, RecursionError):
        return UserError("a config file refers to itself within what it names (&NAME, *NAME), or is nested too deeply")
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return UserError(_no_option(overrides))
    if isinstance(error, ValueError) and "integer string conversion" in str(error):
        longest = max(overrides, key=len)
        return UserError(f"{longest[:40]}…: a number of {len(longest):,} digits cannot be read")
    if isinstance(error, UserWarning) and "hydra.searchpath" in str(error):
        return UserError(f"hydra.searchpath: there is no folder {str(error).partition('path=')[2].split(' is not')[0]}")
    if isinstance(error, OSError) and error.filename:
        path = Path(error.filename)
        leads_nowhere = path.is_symlink() and not path.exists()
        reason = "it is a link to nothing" if leads_nowhere else error.strerror
        return UserError(f"cannot use {error.filename}: {reason}")
    if failure := _launcher_failure(error):
        return failure
    if not isinstance(error, HydraException | OmegaConfBaseException):
        raise error
    given = [o for o in overrides if not o.startswith("-") and (o.startswith("~") or "=" in o)]
    for override in given:
        if name == CONFIG_NAME and override.partition("=")[0] in _OF_SWEEP:
            return UserError(f"{override}: one run has no such setting; `peftbench sweep {override} …` does that")
    try:
        with hydra_ready() as loader:
            parsed = parse(given, loader)
            if "--multirun" in str(error):
                return UserError(_several_values(parsed, loader))
            for combination in combinations(parsed):
                if found := _unknown_key(parse(combination, loader), loader, name):
                    return found
    except HydraException:  # a second mistake in the same line: the first one's own text must do
        pass
    return UserError(error_text(error))


# settings of a sweep alone
_OF_SWEEP = ("table", "search", "seeds")

# what the class of a launcher starts with → the launcher, which is also the extra that installs it
_EXTRAS = {
    "hydra_plugins.hydra_submitit_launcher": "slurm",
    "hydra_plugins.peftbench_ray": "ray",
}


def _launcher_failure(error: Exception) -> PeftbenchError | None:
    """Return the line for a launcher that is not installed, or has no cluster here, or lost a job's process."""
    text = str(error)
    if isinstance(error, RuntimeError) and "Unknown plugin class" in text:
        for start, extra in _EXTRAS.items():
            if start in text:
                return UserError(f"hydra/launcher={extra} is not installed: pip install 'peftbench[{extra}]'")
    if isinstance(error.__cause__, CalledProcessError):
        return UserError(f"hydra/launcher=slurm: the cluster takes no such job: {error_text(error)}")
    if type(error).__module__.partition(".")[0] == "submitit":
        return LostRunError(f"a run was lost: {error_text(error)}; the same command goes on from its last epoch")
    if isinstance(error, RuntimeError) and "srun" in text:
        return UserError("hydra/launcher=slurm: there is no srun here; give the command on a machine of the cluster")
    return None


def _group_choices(overrides: list[Override], loader: ConfigLoader) -> list[str]:
    """Return the overrides that choose an option of a group, and where Hydra looks for options."""
    search = [o for o in overrides if o.key_or_group == "hydra.searchpath"]
    lines = [str(o.input_line) for o in search]
    chosen = [
        o
        for o in overrides
        if not o.is_sweep_override()
        and not o.is_delete()
        and o.value() in loader.get_group_options(o.key_or_group, config_name=CONFIG_NAME, overrides=lines)
    ]
    return lines + [str(o.input_line) for o in chosen]


def _unreadable(override: str) -> str:
    line = f"cannot read {override!r}: "
    if "=" not in override:
        return line + "write key=value"
    key, _, value = override.partition("=")
    quoted = value.replace("'", "").replace('"', "")
    return line + f"write key=value; a value with special characters needs both quotes: {key}='\"{quoted}\"'"


def _no_option(overrides: Sequence[str]) -> str:
    """Describe an override that gives a group a value that is no option's name."""
    with hydra_ready() as loader:
        for override in parse([o for o in overrides if "=" in o and not o.startswith("-")], loader):
            options = loader.get_group_options(override.key_or_group)
            if options and not isinstance(override.value(), str | list):
                group = override.key_or_group
                return f"{override.input_line}: {group} takes the name of an option. {nearest('', options)}"
    return "a group takes the name of one of its options"


def _several_values(overrides: list[Override], loader: ConfigLoader) -> str:
    """Describe a sweep without -m: it is meant as one, or as a list without its brackets."""
    sweep = next(o for o in overrides if o.is_sweep_override())
    text = f"{sweep.input_line}: several values need -m, to run each (peftbench train -m {sweep.input_line} …)"
    config = hydra.compose(CONFIG_NAME, overrides=_group_choices(overrides, loader))
    if isinstance(OmegaConf.select(config, sweep.key_or_group), ListConfig):
        key, _, value = str(sweep.input_line).partition("=")
        text += f"; one list is written {key}=[{value}]"
    return text


def _unknown_key(overrides: list[Override], loader: ConfigLoader, name: str) -> UnknownKeyError | None:
    """Return the error for the first override whose key the config does not have."""
    choices = _group_choices(overrides, loader)
    plain = _plain(choices, name)
    chosen: dict[str, str] = plain["hydra"]["runtime"]["choices"]
    for override in overrides:
        line, path = str(override.input_line), override.key_or_group.split(".")
        if override.is_add() or override.is_force_add() or override.key_or_group in chosen:
            continue
        depth = _depth(plain, path)
        if depth == len(path):
            continue
        node, missing = _at(plain, path[:depth]), path[depth]
        where = ".".join(path[:depth])
        shown = f"{where}={chosen[where]}" if where in chosen else where or "the config"
        if not isinstance(node, dict):
            return UnknownKeyError(f"{line}: {where} is a single value and has no key {missing!r}", line)
        text = f"{line}: {shown} has no key {missing!r}"
        if where in chosen and (owners := _owners(where, path, loader)):
            return UnknownKeyError(f"{text}; it belongs to {where}={f' or {where}='.join(owners)}", line)
        names = [str(key) for key in node if key != "hydra"]
        if len(path) == 1 and (deeper := [f"{key}.{missing}" for key in names if _has(node[key], missing)]):
            return UnknownKeyError(f"{text}. Did you mean {' or '.join(deeper)}?", line)
        return UnknownKeyError(f"{text}. {nearest(missing, names, most=1)}", line)
    return None


def _owners(group: str, path: list[str], loader: ConfigLoader) -> list[str]:
    """Return the options of a group whose config has the key."""
    return [
        option for option in loader.get_group_options(group) if _depth(_plain([f"{group}={option}"]), path) == len(path)
    ]


def _plain(overrides: list[str], name: str = CONFIG_NAME) -> Any:
    """Compose to plain data, Hydra's own settings included; missing values stay `???`."""
    return OmegaConf.to_container(hydra.compose(name, overrides=overrides, return_hydra_config=True), resolve=False)


def _depth(config: Any, path: list[str]) -> int:
    """Return how many parts of a dotted key, from the left, the config has."""
    for depth, name in enumerate(path):
        if not _has(config, name):
            return depth
        config = _at(config, [name])
    return len(path)


def _has(node: Any, name: str) -> bool:
    if isinstance(node, list):
        return name.isdecimal() and int(name) < len(node)
    return isinstance(node, dict) and name in node


def _at(node: Any, path: list[str]) -> Any:
    for name in path:
        node = node[int(name)] if isinstance(node, list) else node[name]
    return node


def error_text(error: BaseException) -> str:
    """Return the first lines of an error's text as one, without Hydra's search path."""
    text = str(error).strip() or str(error.__cause__ or "").strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])
