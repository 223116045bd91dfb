"""What frozen layers give of images is kept as of texts: all positions, and the same training."""

import numpy as np
import torch

from peftbench.tasks.image.encoded import EncodedImages
from peftbench.tasks.image.preprocessing import Preprocessing
from peftbench.training.kept_states import with_states


def test_all_positions_of_an_image_are_kept():
    pixels = np.arange(5, dtype=np.uint8).repeat(12).reshape(5, 3, 2, 2)
    preprocessing = Preprocessing(None, (2, 2), {}, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    images = EncodedImages(pixels, np.arange(5), None, preprocessing)

    def compute(batch):  # a model that makes seven positions of an image
        return batch["pixel_values"][:, 0, 0, :1, None] * 100 + torch.arange(7.0).view(1, 7, 1)

    kept = with_states(images, "states", compute, batch_size=2, device=torch.device("cpu"))
    states = kept.batch([3, 0])["states"]
    assert states[..., 0].tolist() == [[300.0 + i for i in range(7)], [float(i) for i in range(7)]]
