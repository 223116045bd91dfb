"""The linear maps that a method acts on, as its setting `targets` names them."""

from collections.abc import Iterable

from peftbench.backbones.sites import LINEAR_SITES
from peftbench.errors import UserError, nearest

_SITE_OF = {site.split(".")[1]: site for site in LINEAR_SITES}
_SHORT_OF = {site: short for short, site in _SITE_OF.items()}


def check_targets(targets: list[str]) -> None:
    """Raise UserError where `targets` is empty or holds what is neither a linear site, nor its short name, nor all."""
    if not targets:
        raise UserError(f"method.targets is empty: choose from {', '.join(_SITE_OF)} or all")
    for target in targets:
        if target != "all" and target not in _SITE_OF and target not in LINEAR_SITES:
            known = [*_SITE_OF, "all"]
            raise UserError(
                f"method.targets: no linear site {target!r}. {nearest(target, known)}"
                f" The sites are {', '.join(LINEAR_SITES)}; short names: {', '.join(known)}."
            )


def target_sites(targets: Iterable[str]) -> list[str]:
    """Return the full names of the targets, in the order of a layer, each once."""
    chosen = {_SITE_OF.get(target, target) for target in targets}
    return [site for site in LINEAR_SITES if site in chosen or "all" in chosen]


def short_name(site: str) -> str:
    """Return the short name of a linear site: query, key, value, output, up, down."""
    return _SHORT_OF[site]
