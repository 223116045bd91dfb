"""What a layout says: the module paths of one family of architectures."""

from dataclasses import dataclass, replace

_POOLER = "pooler"


@dataclass(frozen=True)
class FusedSlice:
    """One of the equal parts of a module's output, where several maps are fused into one (query, key, value).

    Attributes:
        path: of the module, from the layer.
        index: 0 for the first part. of: how many there are.
    """

    path: str
    index: int
    of: int


@dataclass(frozen=True)
class Layout:
    """Module paths of one architecture family; those in `sites` are relative to one layer.

    Attributes:
        name: of the family.
        layers: the list of layers.
        self_attention: of a layer.
        sites: the module of each site, or the slice of its output that is the site.
        encoder: the module that takes the hidden states and their mask and runs the layers; None where the base
            model runs them itself, or needs nothing but the hidden states that `embeddings` returns.
        embeddings: without `encoder`, the module whose output enters the first layer.
        encoder_input: a linear map inside the encoder and before the first layer, where the family has one.
        pre_norm: whether a sub-layer is normed before it, not behind its residual addition.
        rows_prepended: whether self-attention without an interface takes a prefix as more rows of its input.
        multiplicative_mask: whether its mask then holds 1 for keys that are seen and 0 for others, and is not added to
            the attention scores.
        special_tokens: of a model of images, the parameters of `embeddings` that stand before the patches, in order,
            those of them that a model has; None for a model of text.
        tokens_behind: likewise, those that stand behind the patches.
        patches: the convolution that makes tokens of an image's patches.
        final_norms: the norm behind the last layer that a head reads through, the first of these that a model has.
        unread: modules of the encoder that no head's answer depends on, such as what pooled it in pretraining.
        position_biases: names of modules that give a bias to attention, (1, heads, tokens, tokens).
        positions_between: gives what is added between layers, (layers - 1, 1, tokens, d), where a model has it.
        inside: of transformers' classifier, the encoder, where the class does not say it.
    """

    name: str
    layers: str
    self_attention: str
    sites: dict[str, str | FusedSlice]
    encoder: str | None = None
    encoder_input: str | None = None
    pre_norm: bool = False
    rows_prepended: bool = False
    multiplicative_mask: bool = False
    embeddings: str = "embeddings"
    special_tokens: tuple[str, ...] | None = None
    tokens_behind: tuple[str, ...] = ()
    patches: str = ""
    final_norms: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    position_biases: tuple[str, ...] = ()
    positions_between: str = ""
    inside: str = ""

    def place(self, site: str) -> FusedSlice:
        """Return where a site lies, a whole module as its only slice."""
        found = self.sites[site]
        return FusedSlice(found, 0, 1) if isinstance(found, str) else found

    def reads(self, parameter: str) -> bool:
        """Tell whether answers depend on a parameter of the encoder, by its name, as far as its module tells."""
        return not any(parameter.startswith(f"{path}.") for path in self.unread)

    def below_pooler(self) -> "Layout":
        """Return it for heads that read the tokens themselves, whatever the pooler would make of them."""
        norms = tuple(path for path in self.final_norms if not path.startswith(f"{_POOLER}."))
        return replace(self, final_norms=norms, unread=(*self.unread, _POOLER))

    @property
    def paths(self) -> set[str]:
        """Every module path of a layer that the layout names."""
        return {self.self_attention, *(self.place(site).path for site in self.sites)}


# what BERT's descendants have in common behind the attention
BERT_FFN: dict[str, str | FusedSlice] = {
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn.residual": "output.dropout",
    "ffn.norm": "output.LayerNorm",
}
BERT_OUTPUT: dict[str, str | FusedSlice] = {
    "attention.output": "attention.output.dense",
    "attention.residual": "attention.output.dropout",
    "attention.norm": "attention.output.LayerNorm",
}
# what the vision transformers have in common in the attention
PROJECTIONS: dict[str, str | FusedSlice] = {
    "attention.query": "attention.q_proj",
    "attention.key": "attention.k_proj",
    "attention.value": "attention.v_proj",
    "attention.output": "attention.o_proj",
}
LAYER_SCALED: dict[str, str | FusedSlice] = {
    "attention.norm": "norm1",
    "attention.residual": "layer_scale1",
    "ffn.residual": "layer_scale2",
    "ffn.norm": "norm2",
}
GATED: dict[str, str | FusedSlice] = {"ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj"}
