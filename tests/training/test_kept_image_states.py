"""What frozen layers give of images is kept as of texts: all positions, and the same training."""

import numpy as np
import torch

from peftbench.tasks.base import Examples
from peftbench.training.kept_states import with_states


class Pictures(Examples):
    """Five pictures of 2 by 2 pixels, of which a model makes seven positions."""

    labels = None

    @property
    def sizes(self):
        return np.ones(5, np.int64)

    def batch(self, indices, multiple=1):
        return {"pixel_values": torch.tensor(indices).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)}

    def subset(self, indices):
        raise NotImplementedError


def test_all_positions_of_an_image_are_kept():
    def compute(batch):
        return batch["pixel_values"][:, 0, 0, :1, None] * 100 + torch.arange(7.0).view(1, 7, 1)

    kept = with_states(Pictures(), "states", compute, batch_size=2, device=torch.device("cpu"))
    states = kept.batch([3, 0])["states"]
    assert states[..., 0].tolist() == [[300.0 + i for i in range(7)], [float(i) for i in range(7)]]
