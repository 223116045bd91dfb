"""trainer.cache_frozen: what the layers below the method give is computed once, and training ends as without it."""

import errno
import json
import os
import tempfile

import numpy as np
import pytest
import torch
from foreign_tiny import recognised_model
from safetensors.torch import load_file
from tiny import ARCHITECTURES, encoded_texts, headed, tiny_batch, tiny_model

from peftbench.backbones.economy.first_token import FirstTokenOnly
from peftbench.backbones.economy.lower_layers import (
    COLUMN,
    beginning_behind,
    check_lower_layers,
    states_behind,
)
from peftbench.errors import UserError
from peftbench.training.kept_states import with_states

CPU = torch.device("cpu")


def without_dropout(model):
    backbone = headed(model)
    for module in backbone.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in vars(module):
            if "dropout" in name and type(vars(module)[name]) is float:
                setattr(module, name, 0.0)
    return backbone


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pass_that_begins_behind_the_lower_layers_gives_the_same(architecture):
    backbone = without_dropout(tiny_model(architecture))
    sites, model = backbone.sites, backbone.model
    batch = tiny_batch()
    modules = list(model.modules())
    with torch.no_grad():
        whole = model(**batch).logits
        for count in range(1, len(sites.layers) + 1):
            check_lower_layers(sites, count)
            states = states_behind(sites, count, batch)
            with beginning_behind(sites, count):
                ran = []
                handles = [
                    layer.register_forward_hook(lambda *_, n=n, ran=ran: ran.append(n))
                    for n, layer in enumerate(sites.layers)
                ]
                assert torch.equal(model(**batch, **{COLUMN: states}).logits, whole)
                assert ran == list(range(count, len(sites.layers))), "the lower layers are not run"
                assert not torch.allclose(model(**batch, **{COLUMN: states + states.flip(-1)}).logits, whole)
                assert torch.equal(model(**batch).logits, whole), "a batch without states goes the whole way"
                for handle in handles:
                    handle.remove()
        assert torch.equal(model(**batch).logits, whole)
    assert list(model.modules()) == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("longformer", "whose layers have other positions than the batch"),
        ("nystromformer", "padding changes what the layers of NystromformerModel give"),
        ("big_bird", "chance of another kind"),
    ],
)
def test_an_architecture_that_it_does_not_fit_is_refused(architecture, message):
    with pytest.raises(UserError, match=message):
        check_lower_layers(without_dropout(recognised_model(architecture)).sites, 1)


def rows(*lengths):
    return encoded_texts(
        [{"input_ids": list(range(5, 5 + n))} for n in lengths], torch.zeros(len(lengths)).long(), {"input_ids": 0}
    )


def test_states_are_those_of_each_example_alone():
    backbone = without_dropout(tiny_model("bert"))
    data = rows(4, 9, 6, 2)
    kept = with_states(data, COLUMN, lambda batch: states_behind(backbone.sites, 1, batch), 2, CPU)
    batch = kept.batch([2, 0])
    assert batch[COLUMN].shape == (2, 6, 32) and not batch[COLUMN][1, 4:].any()
    for row, states in zip((2, 0), batch[COLUMN], strict=True):
        alone = states_behind(backbone.sites, 1, {"input_ids": data.batch([row])["input_ids"]})[0]
        torch.testing.assert_close(states[: len(alone)], alone, rtol=0, atol=1e-5)
    padded = kept.batch([2, 3], multiple=4)
    assert padded["input_ids"].shape == (2, 8) and padded[COLUMN].shape == (2, 8, 32)
    assert torch.equal(batch["labels"], data.batch([2, 0])["labels"])
    assert kept.shuffled(2, 0, 1) == data.shuffled(2, 0, 1) and kept.in_order(3) == data.in_order(3)
    assert len(kept) == 4 and len(kept.subset([1])) == 1


def test_behind_the_last_layer_the_first_token_is_enough():
    backbone = without_dropout(tiny_model("bert"))
    first = FirstTokenOnly(backbone.sites)
    kept = with_states(rows(4, 9, 6), COLUMN, lambda batch: states_behind(backbone.sites, 2, batch), 2, CPU)
    first.remove()
    assert kept.states.shape == (3, 32) and kept.batch([0, 1])[COLUMN].shape == (2, 1, 32)


def test_the_file_is_gone_and_keeps_bf16(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = with_states(rows(3, 5), COLUMN, lambda batch: torch.ones(*batch["input_ids"].shape, 4).bfloat16(), 2, CPU)
    assert kept.states.dtype == torch.bfloat16 and kept.states.shape == (8, 4) and bool((kept.states == 1).all())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_one_line(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"trainer.cache_frozen=true: .* GiB in .*No space left.*TMPDIR"):
        with_states(rows(3, 5), COLUMN, lambda batch: torch.ones(2, 5, 4), 2, CPU)
    assert list(tmp_path.iterdir()) == []


CASES = [
    ("method=adapter", "method.bottleneck=4", "method.layers=1"),
    ("method=pfeiffer", "method.bottleneck=4", "method.layers=1-", "trainer.checkpointing=true"),
    ("method=compacter", "method.bottleneck=4", "method.layers=1", "trainer.accumulate=2"),
    ("method=head",),
    ("method=adapter", "method.position=output", "method.train_layer_norm=false"),
]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_training_ends_as_without_it(case, train_tiny, tmp_path):
    lines = (*case, "model.dropout=0.0", "trainer.lr=0.01")
    plain = train_tiny("opinions", *lines, f"output_dir={tmp_path / 'plain'}")
    kept = train_tiny("opinions", *lines, "trainer.cache_frozen=true", f"output_dir={tmp_path / 'kept'}")
    plain, kept = (next((tmp_path / name).glob("*/*")) for name in ("plain", "kept"))
    assert plain.name == kept.name, "it is the same run"
    tensors, others = (load_file(folder / "adapter" / "adapter.safetensors") for folder in (plain, kept))
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=2e-6)
    losses = [
        [json.loads(line).get("loss") for line in (f / "history.jsonl").read_text().splitlines()] for f in (plain, kept)
    ]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6)


def test_in_bf16_it_is_the_same_but_for_rounding(train_tiny):
    lines = ("method=pfeiffer", "method.bottleneck=4", "method.layers=1", "model.dropout=0.0", "trainer.precision=bf16")
    runs = [
        train_tiny("opinions", *lines, f"trainer.cache_frozen={kept}", f"experiment=kept-{kept}")
        for kept in ("false", "true")
    ]
    losses = [run.read().evaluation("validation").metrics["loss"] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("method=adapter",), "method=adapter changes the model from the first layer on"),
        (("method=adapter", "method.drop=robust"), "method=adapter changes the model from the first layer on"),
        (("method=lora",), "method=lora changes the model from the first layer on"),
        (("method=mam", "method.layers=1"), "method=mam changes the model from the first layer on"),
        (
            ("method=adapter", "method.layers=1", "model.dropout=null"),
            "dropout, or chance of another kind, changes what the frozen layers give",
        ),
        (("method=adapter", "method.layers=1", "trainer.compile=true"), "do not go together"),
    ],
)
def test_where_it_cannot_apply_one_line_says_why(lines, message, train_tiny, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        train_tiny("opinions", "model.dropout=0.0", *lines, "trainer.cache_frozen=true", f"output_dir={tmp_path}")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("trainer.cache_frozen=true")
    assert not any(tmp_path.iterdir())


def test_what_is_compiled_keeps_all_activations(train_tiny, tmp_path):
    lines = ("method=lora", "trainer.compile=true", "trainer.checkpointing=true", f"output_dir={tmp_path}")
    with pytest.raises(UserError, match="trainer.compile=true and trainer.checkpointing=true do not go together"):
        train_tiny("opinions", *lines)
    assert not any(tmp_path.iterdir())
