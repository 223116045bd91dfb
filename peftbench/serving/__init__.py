"""Trained adapters: storing them, loading them back onto a backbone, predicting, one task or several at a time."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftbench.serving.multitask import MultiTask

__all__ = ["MultiTask"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for."""
    if name == "MultiTask":
        from peftbench.serving.multitask import MultiTask

        return MultiTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
