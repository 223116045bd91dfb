"""Checks of single values: each raises UserError, naming the setting, where its value is out of range."""

from peftbench.errors import UserError


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a smaller value."""
    if value < least:
        raise UserError(f"{name}={value:g} must be {least:g} or more")


def between(name: str, value: float, least: float, most: float) -> None:
    """Refuse a value outside the range, whose ends belong to it."""
    if not least <= value <= most:
        raise UserError(f"{name}={value:g} must lie in {least:g} … {most:g}")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        raise UserError(f"{name}={value} is unknown: choose from {', '.join(choices)}")
