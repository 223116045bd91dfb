"""What a layout says: the module paths of one family of architectures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Module paths of one architecture family; those in `sites` are relative to one layer."""

    name: str
    encoder: str
    layers: str
    self_attention: str
    sites: dict[str, str]


# what BERT's descendants have in common behind the attention
BERT_FFN = {
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn.residual": "output.dropout",
    "ffn.norm": "output.LayerNorm",
}
BERT_OUTPUT = {
    "attention.output": "attention.output.dense",
    "attention.residual": "attention.output.dropout",
    "attention.norm": "attention.output.LayerNorm",
}
