"""Where the labels of a plot's points go."""

from collections.abc import Sequence

Box = tuple[float, float, float, float]  # left, bottom, right, top


def place_labels(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], taken: Sequence[Box], bounds: Box
) -> list[tuple[float, float]]:
    """Choose each label's lower left corner near its anchor, where it covers least; all in one unit of length.

    Args:
        anchors: (x, y) of the points. sizes: (width, height) of their labels.
        taken: what labels should not cover. bounds: where they should stay inside.
    """
    occupied, corners = list(taken), []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        choices = []
        for distance in (13, 30, 55, 85):
            for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
                left = x + right * distance - width * (1 - right) / 2
                bottom = y + up * distance - height * (1 - up) / 2
                box = (left, bottom, left + width, bottom + height)
                outside = width * height - _overlap(box, bounds)
                choices.append((sum(_overlap(box, other) for other in occupied) + 4 * outside + distance, box))
        best = min(choices)[1]
        occupied.append(best)
        corners.append(best[:2])
    return corners


def _overlap(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    return max(0.0, width) * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
