"""Drawn pictures of squares and bars with their masks and boxes, and a tiny random DINOv2 to learn them with."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tiny import tiny_model
from transformers import BitImageProcessorPil

CLASSES = ["ground", "square", "bar"]
HEIGHT, WIDTH = 32, 48
SIZES = {"train": 12, "validation": 6, "test": 4}


def drawing(number: int) -> tuple[np.ndarray, np.ndarray, list[list[float]]]:
    """Return pixels (32, 48, 3), mask (32, 48) with a void edge, and boxes: class, x, y, width, height in pixels."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    boxes = []
    for kind, (high, wide), left in ((1, (10, 10), 2), (2, (6, 16), 26)):
        y, x = int(random.integers(2, HEIGHT - high - 2)), left + int(random.integers(0, 5))
        pixels[y : y + high, x : x + wide, kind] = 250
        mask[y : y + high, x : x + wide] = kind
        boxes.append([kind - 1, x, y, wide, high])
    mask[:, :1] = 255
    return pixels, mask, boxes


def write_segmentation(folder: Path) -> Path:
    """Write `SPLIT/images`, `SPLIT/masks` and classes.json."""
    for part, (split, size) in enumerate(SIZES.items()):
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
        for number in range(size):
            pixels, mask, _ = drawing(100 * part + number)
            Image.fromarray(pixels).save(folder / split / "images" / f"{number:02}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{number:02}.png")
    (folder / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return folder


def write_detection(folder: Path) -> Path:
    """Write `SPLIT/images` and `SPLIT/annotations.json`."""
    for part, (split, size) in enumerate(SIZES.items()):
        (folder / split / "images").mkdir(parents=True)
        content: dict = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}],
        }
        for number in range(size):
            pixels, _, boxes = drawing(100 * part + number)
            Image.fromarray(pixels).save(folder / split / "images" / f"{number:02}.png")
            content["images"].append({"id": number, "file_name": f"{number:02}.png", "width": WIDTH, "height": HEIGHT})
            for kind, *box in boxes:
                entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": (3, 7)[kind]}
                content["annotations"].append({**entry, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        (folder / split / "annotations.json").write_text(json.dumps(content))
    return folder


def write_tiny_dinov2(folder: Path) -> Path:
    """Write a tiny random DINOv2 with patches of 8 pixels, and its image processor."""
    tiny_model("dinov2").base_model.save_pretrained(folder)
    processor = BitImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(folder)
    return folder
