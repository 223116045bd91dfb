"""Convpass against a computation written out, with neighbours of the grid summed one by one."""

import pytest
import torch
from tiny import tiny_inputs, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.convpass import ConvpassConfig

ROWS, COLUMNS, SPECIAL = 3, 5, 4


def bypass(x, block):
    """The update of x, (images, tokens, d), a special token or patch at a time."""

    def gelu(u):
        return u / (1 + torch.exp(-1.702 * u))

    inner = gelu(x @ block.down.weight.T + block.down.bias)
    weight, found = block.convolution.weight, torch.zeros_like(inner)
    for token in range(x.shape[1]):
        if token < SPECIAL:
            found[:, token] = inner[:, token] @ weight[:, :, 1, 1].T
            continue
        row, column = divmod(token - SPECIAL, COLUMNS)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                if 0 <= row + down < ROWS and 0 <= column + right < COLUMNS:
                    neighbour = inner[:, SPECIAL + (row + down) * COLUMNS + column + right]
                    found[:, token] += neighbour @ weight[:, :, 1 + down, 1 + right].T
    return gelu(found + block.convolution.bias) @ block.up.weight.T + block.up.bias


@torch.no_grad()
def test_by_hand():
    """On a grid that is no square, with registers; outside of LayerScale."""
    model = tiny_model("dinov2-registers")
    sites = find_sites(model)
    method = build(ConvpassConfig(bottleneck=6, scale=0.5), sites)
    for parameter in method.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    pixels = torch.randn(2, 3, 8 * ROWS, 8 * COLUMNS)
    with method.on(sites):
        found = model(pixel_values=pixels).logits
    base = model.base_model
    x = base.embeddings(pixels)
    for number, layer in enumerate(base.encoder.layer):
        normed = layer.norm1(x)
        attended = layer.layer_scale1(layer.attention(normed)[0])
        x = x + attended + 0.5 * bypass(normed, method.bypasses["attention"][number])
        normed = layer.norm2(x)
        x = x + layer.layer_scale2(layer.mlp(normed)) + 0.5 * bypass(normed, method.bypasses["ffn"][number])
    x = base.layernorm(x)
    expected = model.classifier(torch.cat([x[:, 0], x[:, SPECIAL:].mean(1)], dim=1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_starts_as_nothing():
    model = tiny_model("vit")
    sites = find_sites(model)
    before = model(**tiny_inputs("vit")).logits
    with build(ConvpassConfig(), sites).on(sites):
        torch.testing.assert_close(model(**tiny_inputs("vit")).logits, before)


@pytest.mark.parametrize(("setting", "value"), [("scale", 0.0), ("dropout", 1.0)])
def test_settings_that_make_no_sense(setting, value):
    with pytest.raises(UserError, match=f"method.{setting}="):
        ConvpassConfig(**{setting: value})
