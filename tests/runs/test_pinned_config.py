"""What a config leaves open: equal ways to name layers make one run."""

import pytest

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.runs.identity import run_id
from peftbench.runs.pinned_config import check_layer_count, pin_config


def config_of(*overrides):
    return pin_config(resolve(compose(["method=pfeiffer", "trainer.precision=fp32", *overrides])))


def test_equal_layers_are_one_run(tiny_model_dir):
    local = ["model=local", f"model.path={tiny_model_dir}"]  # of two layers
    for line, spellings in ((["model=minilm"], ("3-", "3-5", "[3,4,5]")), (local, ("1-", "1", "1-1"))):
        ids = {run_id(config_of(*line, f"method.layers={layers}").plain()) for layers in spellings}
        assert len(ids) == 1
    assert config_of("model=minilm", "method.layers=0-5").plain() == config_of("model=minilm").plain()
    as_ever = config_of("model=minilm", "method.layers=3-").plain()
    assert as_ever["method"]["layers"] == "3-", "ids of common spellings stay"
    assert config_of("model=hub", "model.id=somebody/model", "method.layers=3-5").method.layers == "3-5"


def test_a_config_that_is_wrong_about_the_layers():
    config = config_of("model=minilm", "method.layers=3-5")
    check_layer_count(config, 6)
    with pytest.raises(UserError, match="minilm has 12 layers, and model.architecture says 6: correct it there"):
        check_layer_count(config, 12)
