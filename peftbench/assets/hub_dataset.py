"""Data sets from the Hugging Face hub."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from peftbench.assets.hub import HUB_TIMEOUT_SECONDS, hub_reason
from peftbench.errors import UserError

if TYPE_CHECKING:
    import datasets


def load_from_hub(
    name: str, subset: str | None, revision: str | None, other_ways: str
) -> Mapping[str, "datasets.Dataset"]:
    """Return the splits of a data set on the hub by name, from the hub's cache where nothing has changed.

    Raises UserError where it cannot be had, which names the `other_ways`.
    """
    import datasets
    import huggingface_hub

    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        if not offline:
            # One question with a time limit first: `datasets` repeats its own for half a minute.
            timeout = HUB_TIMEOUT_SECONDS
            huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=timeout)
        return datasets.load_dataset(name, subset, revision=revision)
    except Exception as error:  # the hub's client raises errors of several libraries
        what = f"{name} {subset}" if subset else name
        cached = "" if offline else "; a copy fetched before is used with HF_HUB_OFFLINE=1"
        raise UserError(
            f"cannot fetch {what} from the hub: {hub_reason(error)}. Other ways: {other_ways}{cached}"
        ) from error
