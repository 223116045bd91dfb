"""What methods train of a model of images is what its answers depend on, under each kind of head."""

import pytest
import torch
from tiny import IMAGE_ARCHITECTURES, tiny_inputs, tiny_model

from peftbench.backbones.dense_heads import add_dense_head
from peftbench.backbones.heads import add_head
from peftbench.backbones.load import Backbone
from peftbench.backbones.sites import find_sites
from peftbench.methods import METHODS, build
from peftbench.methods.guard import check_method


def backbone_of(model, fresh=()):
    encoder = find_sites(model).base
    return Backbone(encoder, type(model), find_sites(encoder, fresh=fresh), config=model.config)


def with_head(backbone, dense):
    torch.manual_seed(0)
    return add_dense_head(backbone, "linear", 3) if dense else add_head(backbone, 3)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_every_parameter_that_trains_is_read(architecture, dense):
    headed = with_head(backbone_of(tiny_model(architecture)), dense)
    for name in ("norms", "bitfit", "full"):
        method = build(METHODS[name].config_class(), headed.sites)
        assert sum(p.numel() for p in method.parameters()) == METHODS[name].count(method.config, headed.sites)
        with method.on(headed.sites):
            headed.model.train()
            headed.model(**tiny_inputs(architecture)).logits.square().sum().backward()
        unread = {path for path, parameter in method.replaced.items() if parameter.grad is None}
        assert unread <= {"embeddings/mask_token"}, name  # which the published counts of DINOv2 hold


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("architecture", ["beit", "data2vec-vision"])
def test_a_norm_in_the_pooler_is_scaled_where_it_is_read(architecture, dense):
    headed = with_head(backbone_of(tiny_model(architecture)), dense)
    method = build(METHODS["ssf"].config_class(), headed.sites)
    check_method(method, headed, None)
    assert ("final.norm" in headed.sites.names) == (not dense)


def test_a_fresh_pooler_that_is_not_read_is_no_part_of_the_head():
    headed = with_head(
        backbone_of(tiny_model("yolos"), fresh=["pooler.dense.weight", "pooler.dense.bias"]), dense=False
    )
    assert {name.partition(".")[0] for name in headed.head} == {"classifier"}
