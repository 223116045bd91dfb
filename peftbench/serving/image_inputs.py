"""The images to answer: files, folders of them, or a file that names one a line."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.errors import UserError
from peftbench.serving.inputs import Input, InputRow, read_input
from peftbench.tasks.image.files import as_text, images_below, images_in

if TYPE_CHECKING:
    from peftbench.serving.predictor import Answer

_COLUMN = "image"
_UNREADABLE_NAMED = 5


def read_images(paths: list[str], listed: Path | None) -> Input:
    """Return a row for each image: those on the command line and in its folders, or those that a file names.

    Args:
        paths: files and folders; one without an image stands for all those in its folders.
        listed: a file with a path a line, or with a column `image`; without both, standard input names them.

    Raises UserError, also while the rows are walked, for a path that is not there and a folder without images.
    """
    if not paths:
        return read_input([], listed, [_COLUMN], as_glue=False)
    if listed is not None:
        raise UserError("give images on the line or with --file, not both")
    return Input([_COLUMN], _rows(paths))


def _rows(paths: list[str]) -> Iterator[InputRow]:
    number = 0
    for given in paths:
        if not given:
            raise UserError("no such image: ''")
        try:
            path = Path(given).expanduser()
            there = path.exists()
            # a folder of class folders, or of splits, is answered whole
            found = (images_in(path) or images_below(path)) if path.is_dir() else [path]
        except (OSError, RuntimeError) as error:  # a name too long, a folder that may not be read, an unknown ~user
            raise UserError(f"cannot read {given}: {getattr(error, 'strerror', None) or error}") from error
        if not there:
            raise UserError(f"no such image: {path}")
        if not found:
            raise UserError(f"{path} holds no image, nor do its folders")
        for image in found:
            number += 1
            yield InputRow(number, (str(image),), [as_text(image)])


def answer_readable(
    predict: Callable[[Sequence[Any]], "list[Answer]"], images: Sequence[Any], unreadable: list[str]
) -> "list[Answer]":
    """Answer images; one that cannot be read has no answer, and `unreadable` gets what is wrong with it."""
    from peftbench.serving.predictor import NO_ANSWER

    try:
        return predict(images)
    except UserError as error:
        if len(images) == 1:
            unreadable.append(str(error))
            return [NO_ANSWER]
    half = len(images) // 2
    return [
        *answer_readable(predict, images[:half], unreadable),
        *answer_readable(predict, images[half:], unreadable),
    ]


def report_unreadable(unreadable: Sequence[str]) -> None:
    """Raise UserError, behind the answers of the others, where images could not be read."""
    if unreadable:
        more = len(unreadable) - _UNREADABLE_NAMED
        named = "; ".join(unreadable[:_UNREADABLE_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
        raise UserError(f"no answer for {len(unreadable):,} image{'s' if len(unreadable) > 1 else ''}: {named}")
