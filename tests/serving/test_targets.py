"""What an exported folder says of the base model that it needs."""

import json
from dataclasses import replace

import pytest
import torch

from peftbench.runs.record import Record
from peftbench.serving.load import load_run_model
from peftbench.serving.targets import TARGETS, loading_lines

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("base", "weights", "revision"),
    [
        ({"id": "its/base", "revision": "main"}, f"commit:{COMMIT}", COMMIT),
        ({"id": "its/base", "revision": "v2"}, "sha256:00", "v2"),
        ({"id": "its/base"}, "sha256:00", None),
        ({"revision": "main"}, "sha256:00", None),  # a folder
    ],
)
@pytest.mark.parametrize("to", ["peft", "adapters"])
def test_the_base_model_s_revision_is_the_one_that_was_trained_on(
    tiny_run: Record, tmp_path, to: str, base: dict, weights: str, revision: str | None
) -> None:
    model = load_run_model(tiny_run, torch.device("cpu"))
    named = {**model.description.model, "id": None, "revision": None, **base}
    model = model._replace(weights=weights, description=replace(model.description, model=named))
    lines = loading_lines(to, "made", model, None)
    assert lines.count("revision=") == (revision is not None)
    assert revision is None or 'from_pretrained("its/base", ' in lines and f'revision="{revision}")' in lines
    if to == "peft":
        TARGETS[to].write("run", model, None, tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["revision"] == revision
