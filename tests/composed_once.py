"""Hydra composes the same dozen files for each of thousands of configs: in tests it does so once a choice of them."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.defaults_list import DefaultsList, Overrides

from peftbench.config.folder import CONFIG_PATH


@contextmanager
def each_choice_composed_once() -> Iterator[None]:
    """Keep what is composed of the project's own groups; of folders that a test brings along nothing is kept."""
    loader = config_loader_impl.ConfigLoaderImpl
    list_defaults, compose = config_loader_impl.create_defaults_list, loader._compose_config_from_defaults_list
    lists: dict[Any, tuple[bytes, dict]] = {}
    composed: dict[str, bytes] = {}

    def kept_defaults(repo: Any, config_name: Any, overrides_list: Any, **settings: Any) -> Any:
        chosen = [override.input_line for override in overrides_list if repo.group_exists(override.key_or_group)]
        key = (config_name, *chosen, *settings.items())
        if key in lists and _are_the_projects(repo):
            overrides = Overrides(repo=repo, overrides_list=overrides_list)
            overrides.known_choices = dict(lists[key][1])
            return DefaultsList(pickle.loads(lists[key][0]), None, overrides.config_overrides, overrides)
        found = list_defaults(repo=repo, config_name=config_name, overrides_list=overrides_list, **settings)
        if _are_the_projects(repo):
            lists[key] = pickle.dumps(found.defaults), dict(found.overrides.known_choices)
        return found

    def kept_config(self: Any, defaults: Any, repo: Any) -> Any:
        if not _are_the_projects(repo):
            return compose(self, defaults, repo)
        if (key := repr(defaults)) not in composed:
            composed[key] = pickle.dumps(compose(self, defaults, repo))
        return pickle.loads(composed[key])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(config_loader_impl, "create_defaults_list", kept_defaults)
        patched.setattr(loader, "_compose_config_from_defaults_list", kept_config)
        yield


def _are_the_projects(repo: Any) -> bool:
    return {source.path for source in repo.get_sources() if source.scheme() == "file"} == {str(CONFIG_PATH)}
