"""Tensors of a folder that may be anybody's: whatever is none is one clear line."""

import pytest
import torch
from safetensors.torch import save_file

from peftbench.errors import UserError
from peftbench.serving.exchange.files import read_weights


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(3).to_sparse(), "a is no plain tensor"),
        (torch.empty(3, device="meta"), "a is no plain tensor"),
        (torch.zeros(1).expand(10**12), "a is no plain tensor"),
        (torch.zeros(3).to(torch.float8_e4m3fn), "finite floating-point number .float32, float16, bfloat16"),
    ],
    ids=["sparse", "meta", "one number said to be many", "float8"],
)
def test_a_pickle_of_what_is_no_plain_tensor(tmp_path, tensor, message):
    torch.save({"a": tensor}, tmp_path / "pickled.bin")
    with pytest.raises(UserError, match=message) as raised:
        read_weights(tmp_path / "none.safetensors", "pickled.bin")
    assert "\n" not in str(raised.value)


def test_safetensors_of_eight_bits(tmp_path):
    save_file({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="finite floating-point number"):
        read_weights(tmp_path / "weights.safetensors", "pickled.bin")


def test_a_transposed_pickle_is_read(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    torch.save({"a": tensor}, tmp_path / "pickled.bin")
    assert torch.equal(read_weights(tmp_path / "none.safetensors", "pickled.bin")["a"], tensor)
