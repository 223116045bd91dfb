"""Overlays: the colour of a class where it is, nothing where no class is; frames around boxes."""

import numpy as np
from PIL import Image

from peftbench.tasks.image.overlay import class_colours, with_boxes, with_mask


def test_a_mask_colours_its_pixels_half_and_leaves_those_without_a_class():
    image = Image.fromarray(np.full((4, 6, 3), 100, np.uint8))
    mask = np.full((4, 6), 255, np.uint8)
    mask[1, 2], mask[2, 3] = 0, 1
    drawn = np.asarray(with_mask(image, mask, ["a", "b"])).astype(int)
    colours = class_colours(2).astype(int)
    assert abs(drawn[1, 2] - (100 + colours[0]) / 2).max() <= 1 and abs(drawn[2, 3] - (100 + colours[1]) / 2).max() <= 1
    assert (drawn[mask == 255] == 100).all()


def test_colours_of_many_classes_differ():
    colours = class_colours(30).astype(int)
    distances = abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(30, dtype=int)
    assert distances.min() > 10


def test_a_frame_lies_around_the_box():
    image = Image.fromarray(np.zeros((60, 80, 3), np.uint8))
    drawn = np.asarray(with_boxes(image, np.array([[1, 0.5, 0.5, 0.5, 0.5]]), ["a", "b"], [0.87]))
    colour = class_colours(2)[1]
    assert (drawn[45, 25:55] == colour).all() and (drawn[20:40, 60] == colour).all()
    assert (drawn[20:40, 25:55] == 0).all() and drawn[:15].any()  # nothing inside, the name above
