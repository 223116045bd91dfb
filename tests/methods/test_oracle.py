"""A prefix of real tokens' keys and values, or a prompt of their embeddings, gives what these tokens give."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.lora import LoraConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

LENGTH = 3
REGISTRY = [name for name in ARCHITECTURES if name not in ("mpnet", "deberta-v2")]
ROTARY = ["modernbert"]


def tokens(size=6, batch=2):
    return torch.randint(5, 120, (batch, size), generator=torch.Generator().manual_seed(3))


def wide(architecture):
    """A model whose windows span the whole text: what a window leaves out, real tokens cannot give either."""
    settings = {"local_attention": 64} if architecture in ROTARY else {}
    return tiny_model(architecture, **settings)


@torch.no_grad()
def keys_and_values(model, ids):
    """Return each layer's keys and values as its attention function gets them, (layers, 2, sequence, d), of one row."""
    found = []

    def watch(module, query, key, value, mask, **kwargs):
        found.append(torch.stack([states.transpose(1, 2).flatten(2)[0] for states in (key, value)]))
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("watched", watch)
    before, model.config._attn_implementation = model.config._attn_implementation, "watched"
    AttentionMaskInterface.register("watched", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    try:
        model(input_ids=ids)
    finally:
        model.config._attn_implementation = before
    return torch.stack(found)


@pytest.mark.parametrize("architecture", [name for name in REGISTRY if name != "distilbert"])
def test_a_prefix_of_real_keys_and_values(architecture):
    """The text stands behind the real tokens, so it is given the positions it has there."""
    model = wide(architecture).base_model
    whole, first = tokens(batch=1), 2 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    sites = find_sites(model)
    method = build(PrefixConfig(length=LENGTH), sites)
    with torch.no_grad():
        expected = model(input_ids=whole).last_hidden_state[:, LENGTH:]
        method.direct.copy_(keys_and_values(model, whole)[:, :, :LENGTH])
        positions = torch.arange(LENGTH, whole.shape[1])[None] + first
        with method.on(sites):
            found = model(input_ids=whole[:, LENGTH:], position_ids=positions).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def embedded(model, ids, **kwargs):
    """Return what enters the first layer, (sequence, d), of one row."""
    entered = []
    handle = find_sites(model).at("embeddings")[0].watch(entered.append)
    model(input_ids=ids, **kwargs)
    handle.remove()
    return entered[0][0]


@pytest.mark.parametrize("insert", ["front", "after_first"])
@pytest.mark.parametrize("architecture", ROTARY)
def test_a_prompt_of_real_embeddings_where_positions_are_rotary(architecture, insert):
    """The prompt's vectors count as tokens: the whole is the text with these tokens in it, its windows too."""
    for model in (wide(architecture), tiny_model(architecture)):
        sites = find_sites(model)
        whole = tokens(20)
        at = 0 if insert == "front" else 1
        whole[:, at : at + LENGTH] = whole[0, at : at + LENGTH]
        text = torch.cat([whole[:, :at], whole[:, at + LENGTH :]], dim=1)
        method = build(PromptConfig(length=LENGTH, insert=insert, init="uniform"), sites)
        with torch.no_grad():
            method.vectors.copy_(embedded(model.base_model, whole)[at : at + LENGTH])
            expected = model.base_model(input_ids=whole).last_hidden_state
            with method.on(sites):
                found = model.base_model(input_ids=text).last_hidden_state
                padded = F.pad(text, (0, 4), value=1)
                mask = (torch.arange(padded.shape[1]) < text.shape[1]).long().expand(2, -1)
                masked = model.base_model(input_ids=padded, attention_mask=mask).last_hidden_state
        expected = torch.cat([expected[:, :at], expected[:, at + LENGTH :]], dim=1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(masked[:, : text.shape[1]], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "electra", "distilbert", "roberta"])
def test_a_prompt_of_real_embeddings_where_positions_are_in_them(architecture):
    """In front: the text keeps the positions it has behind the real tokens, which carry theirs in their embeddings."""
    model = tiny_model(architecture).base_model
    sites = find_sites(model)
    whole = tokens()
    whole[:, :LENGTH] = whole[0, :LENGTH]
    method = build(PromptConfig(length=LENGTH, insert="front", init="uniform"), sites)
    with torch.no_grad():
        expected = model(input_ids=whole).last_hidden_state[:, LENGTH:]
        method.vectors.copy_(embedded(model, whole)[:LENGTH])
        text = sites.base.embeddings(whole)[:, LENGTH:]
        handle = sites.base.embeddings.register_forward_hook(lambda *_: text)
        with method.on(sites):
            found = model(input_ids=whole[:, LENGTH:]).last_hidden_state
        handle.remove()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def by_hand(model, ids, lora=None, adapters=None):
    """ModernBERT written out for one unpadded row, with LoRA's updates in the fused map and adapters in place."""
    base, config = model.base_model, model.config
    x = base.embeddings(ids)
    n, d, heads = ids.shape[1], config.hidden_size, config.num_attention_heads
    positions = torch.arange(n)[None]
    apart = (positions.T - positions).abs()
    for index, layer in enumerate(base.layers):
        h = layer.attn_norm(x)
        weight = layer.attn.Wqkv.weight.clone()
        for name, part in (("query", 0), ("key", 1), ("value", 2)):
            if lora is not None:
                update = lora.updates[name][index]
                weight[part * d : (part + 1) * d] += lora.config.scale * update.b @ update.a
        q, k, v = (h @ weight.T).view(1, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
        cos, sin = base.rotary_emb(x, positions, layer.attention_type)

        def turned(t, cos=cos, sin=sin):
            left, right = t.chunk(2, dim=-1)
            return t * cos + torch.cat([-right, left], dim=-1) * sin

        scores = turned(q) @ turned(k).transpose(-1, -2) * (d // heads) ** -0.5
        if layer.attention_type == "sliding_attention":
            scores = scores.masked_fill(apart > config.local_attention // 2, float("-inf"))
        attended = layer.attn.Wo((scores.softmax(-1) @ v).transpose(1, 2).reshape(1, n, d))
        x = x + (adapters("attention_residual", index, attended) if adapters else attended)
        gated, gate = layer.mlp.Wi(layer.mlp_norm(x)).chunk(2, dim=-1)
        down = layer.mlp.Wo(F.gelu(gated) * gate)
        x = x + (adapters("ffn_residual", index, down) if adapters else down)
    return base.final_norm(x)


@torch.no_grad()
def shaken(config, sites):
    method = build(config, sites)
    for parameter in method.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return method


def test_modernbert_by_hand():
    model = tiny_model("modernbert")
    sites, ids = find_sites(model), tokens(20, batch=1)
    lora = shaken(LoraConfig(rank=2, targets=["query", "key", "value"]), sites)
    houlsby = shaken(AdapterConfig(bottleneck=4, train_layer_norm=False), sites)

    def adapters(place, layer, x):
        block = houlsby.bottlenecks[place][layer]
        down = F.gelu(F.linear(x, block.down_weight, block.down_bias))
        return x + F.linear(down, block.up_weight, block.up_bias)

    with torch.no_grad():
        torch.testing.assert_close(model.base_model(input_ids=ids)[0], by_hand(model, ids), rtol=1e-4, atol=1e-5)
        with lora.on(sites), houlsby.on(sites):
            found = model.base_model(input_ids=ids)[0]
            lora.merge()
            merged = model.base_model(input_ids=ids)[0]
    expected = by_hand(model, ids, lora, adapters)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
