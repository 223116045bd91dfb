"""What a run imports, for the process that runs are forked from: it imports this module, once."""

import gc

import transformers.modeling_utils
import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto
import transformers.tokenization_utils_tokenizers  # noqa: F401

import peftbench.backbones.economy.attach
import peftbench.measuring.memory
import peftbench.runs.measured
import peftbench.runs.pinned_config
import peftbench.training.inference
import peftbench.training.loop
import peftbench.training.parallel  # noqa: F401

gc.freeze()  # it stays: no collection of a run looks through it, or copies its pages
