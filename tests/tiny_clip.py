"""A folder with a tiny random CLIP: both towers, an image processor and a tokenizer of letters."""

import string
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

_START, _END = "<|startoftext|>", "<|endoftext|>"


def save_tiny_clip(folder: Path) -> Path:
    """Write it and return the folder; a token is a letter, a digit, a mark or the word 'picture'."""
    letters = [*string.ascii_lowercase, *string.digits, ".", ",", "-"]
    merges = [("p", "i"), ("pi", "c"), ("pic", "t"), ("pict", "u"), ("pictu", "r"), ("pictur", "e</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), _START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    numbers = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "projection_dim": 20}
    text = {"vocab_size": len(tokens), "hidden_size": 24, "max_position_embeddings": 40}
    ends = {"bos_token_id": vocabulary[_START], "eos_token_id": vocabulary[_END], "pad_token_id": vocabulary[_END]}
    vision = {"hidden_size": 32, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=numbers | text | ends, vision_config=numbers | vision, projection_dim=20))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and name != "logit_scale":
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
