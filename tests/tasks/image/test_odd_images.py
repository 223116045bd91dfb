"""Images as cameras, scanners and broken disks leave them: read as they are meant, or refused in one line."""

import errno
import io
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import DPTImageProcessorPil, ViTImageProcessorPil

from peftbench.errors import UserError
from peftbench.serving.image_inputs import read_images
from peftbench.serving.picture_outputs import write_boxes, write_masks
from peftbench.tasks.detection.coco import read_annotations
from peftbench.tasks.detection.read import Box
from peftbench.tasks.image.dense import padded, picture_size
from peftbench.tasks.image.encoded import encode_images
from peftbench.tasks.image.files import images_below, open_image
from peftbench.tasks.image.given import read_given
from peftbench.tasks.image.preprocessing import Preprocessing, preprocessing_of

THREE = torch.full((3, 1, 1), 0.5)
PIXELS = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)


def written(image, form, **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return written(Image.fromarray(PIXELS), "PNG", exif=exif)


def sixteen_bits():
    return written(Image.fromarray(np.linspace(0, 65535, 54).reshape(6, 9).astype(np.uint16)), "PNG")


@pytest.mark.parametrize("content", [turned, sixteen_bits])
def test_an_opened_image_is_seen_as_its_file_is(content):
    data = content()
    (image,) = read_given([Image.open(io.BytesIO(data))]).images
    assert np.array_equal(image, np.asarray(open_image(data, "a")))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])  # 9 is none
@pytest.mark.parametrize(("name", "bits"), [("a.tif", 8), ("a.png", 8), ("a.tif", 16), ("a.png", 16)])
def test_a_picture_is_turned_as_its_camera_says_and_its_size_with_it(name, bits, orientation, tmp_path):
    grey = PIXELS[..., 0]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(grey if bits == 8 else grey.astype(np.uint16) << 8).save(tmp_path / name, exif=exif)
    image = open_image(tmp_path / name, name)
    assert np.array_equal(np.asarray(image)[..., 0], np.rot90(grey, {3: 2, 6: 3, 8: 1}.get(orientation, 0)))
    assert picture_size(tmp_path / name) == (image.height, image.width)


def test_a_palette_with_transparency_raises_no_warning():
    data = written(Image.fromarray(PIXELS).convert("P"), "PNG", transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(data, "a").mode == "RGB"


def test_fractions_are_refused_not_black():
    data = written(Image.fromarray(np.full((5, 5), 0.5, np.float32)), "TIFF")
    with pytest.raises(UserError, match=r"scan\.tif holds fractions"):
        open_image(data, "scan.tif")


@pytest.mark.parametrize(
    ("values", "known"), [((0, 200), False), ((0, 60_000), True), ((0, 70_000), False), ((-9, 999), False)]
)
def test_32_bits_are_refused_where_they_are_not_16(values, known):
    data = written(Image.fromarray(np.resize(np.array(values, np.int32), (4, 4))), "TIFF")
    if known:
        assert np.asarray(open_image(data, "scan.tif")).max() == 60_000 >> 8
        return
    with pytest.raises(UserError, match=rf"scan\.tif holds values of 32 bits from {values[0]} to {values[1]}, whose"):
        open_image(data, "scan.tif")


@pytest.mark.parametrize(("most", "known"), [(200, False), (4095, False), (60_000, True), (0, True)])
def test_16_bits_of_which_cameras_fill_8_or_12_are_refused(most, known):
    data = written(Image.fromarray(np.resize(np.array([0, most], np.uint16), (4, 4))), "PNG")
    if known:
        assert np.asarray(open_image(data, "scan.png")).max() == most >> 8
        return
    with pytest.raises(UserError, match=rf"scan\.png holds values of 16 bits from 0 to {most}, whose black and white"):
        open_image(data, "scan.png")


def test_a_line_is_refused_before_it_takes_all_memory():
    with pytest.raises(UserError, match=r"a\.png is a line of 2001 × 2 pixels"):
        open_image(written(Image.new("RGB", (2001, 2)), "PNG"), "a.png")


def test_a_folder_is_no_damaged_image(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        open_image(tmp_path, str(tmp_path))


def test_a_pipe_and_a_picture_of_too_many_pixels_are_no_damaged_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"cannot read pipe: it is no regular file"):
        open_image(tmp_path / "pipe.png", "pipe")
    with pytest.raises(UserError, match=r"a\.png has more pixels than are read: Image size \(200000000 pixels\)"):
        open_image(written(Image.new("1", (20_000, 10_000)), "PNG"), "a.png")


def test_a_long_picture_s_padding_is_bounded():
    image = padded(Image.new("RGB", (12_000, 60)), (32, 48))
    assert image.width * image.height < 1.01 * 2**24 and image.width / image.height == pytest.approx(48 / 32, rel=0.01)
    small = padded(Image.new("RGB", (48, 16)), (32, 48))
    assert small.size == (48, 32)


def test_pictures_are_shrunk_one_by_one(monkeypatch):
    together = []
    preprocessing = preprocessing_of(ViTImageProcessorPil(size={"height": 8, "width": 8}), None)
    shrink = Preprocessing.pixels
    monkeypatch.setattr(
        Preprocessing, "pixels", lambda self, images: together.append(len(images)) or shrink(self, images)
    )
    encoded = encode_images(20, lambda index: Image.fromarray(PIXELS + np.uint8(index)), None, preprocessing, ())
    assert set(together) == {1} and len(encoded.pixels) == 20
    assert set(np.diff(encoded.pixels[:, 0, 0, 0])) == {1}  # in their order


def test_boxes_of_pictures_of_one_name_and_narrow_ones_can_be_read_again(tmp_path):
    pictures = [tmp_path / folder / "a.png" for folder in ("one", "two")]
    for path in pictures:
        path.parent.mkdir()
        Image.fromarray(PIXELS).save(path)
    boxes = [Box("x", 0.9, 1.0, 1.0, 0.0004, 2.0)]
    list(write_boxes(tmp_path / "found", [(str(path), boxes) for path in pictures], ["x"]))
    read = read_annotations(tmp_path / "found" / "boxes.json", ["x"])
    assert [picture.file for picture in read] == [str(path) for path in pictures]
    assert all(picture.boxes[0, 3] * 9 == pytest.approx(0.0004) for picture in read)


def test_images_for_which_there_is_no_room_are_one_line():
    with pytest.raises(
        UserError, match=r"16 images of 1,000,000 × 1,000,000 pixels needs 44,703.* GiB in .*image_size"
    ):
        encode_images(16, lambda number: None, None, Preprocessing(None, (10**6, 10**6), {}, THREE, THREE), ())


def test_a_disk_that_is_too_small_for_images_is_one_line(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("peftbench.tasks.image.encoded.IN_MEMORY_BYTES", 100)
    with pytest.raises(UserError, match=r"2 images of 8 × 8 pixels needs .*No space left on device.*TMPDIR"):
        encode_images(2, lambda number: None, None, Preprocessing(None, (8, 8), {}, THREE, THREE), ())


def test_whatever_pillow_raises_is_one_line(monkeypatch):
    def failing(image):
        raise EOFError

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", failing)
    with pytest.raises(UserError, match=r"a\.png is damaged or cut short: EOFError"):
        open_image(sixteen_bits(), "a.png")


@pytest.mark.parametrize("path", ["x" * 300 + ".png", "~nobody-of-this-name/x.png"])
def test_a_path_that_cannot_be_is_one_line(path):
    with pytest.raises(UserError, match="cannot read"):
        list(read_images([path], None).rows)


def test_a_processor_that_leaves_the_size_as_it_is():
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, do_resize=False)
    assert preprocessing_of(processor, None).pixels([Image.fromarray(PIXELS)]).shape == (1, 3, 16, 16)


def test_a_processor_without_a_size_takes_the_task_s():
    processor = ViTImageProcessorPil(size={"longest_edge": 16})
    with pytest.raises(UserError, match=r"does not say how large its images are: set task\.image_size"):
        preprocessing_of(processor, None)
    assert preprocessing_of(processor, 8).size == (8, 8)


def test_a_processor_that_divides_by_nothing():
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, image_std=[0.5, 0, 0.5])
    with pytest.raises(UserError, match="image_std .* must not be 0"):
        preprocessing_of(processor, None)


@pytest.mark.parametrize("shapes", [[(60, 90)], [(60, 90), (200, 100)]])
def test_a_processor_that_keeps_proportions_is_refused(shapes):
    preprocessing = preprocessing_of(DPTImageProcessorPil(keep_aspect_ratio=True, ensure_multiple_of=14), 64)
    with pytest.raises(UserError, match="makes an image of 70 x 98 pixels where it is told 64 x 64") as caught:
        preprocessing.pixels([Image.fromarray(np.zeros((*shape, 3), np.uint8)) for shape in shapes])
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.png")
    path.write_bytes(sixteen_bits())
    (row,) = read_images([str(tmp_path)], None).rows
    assert row.texts == (str(path),) and row.cells[0].encode().endswith(rb"\udcff.png")
    answers = [(str(path), [Box("a", 0.9, 1, 1, 2, 2)])]
    assert len(list(write_boxes(tmp_path / "found", answers, ["a"]))) == 1
    assert "udcff.png" in (tmp_path / "found" / "boxes.json").read_text()


def test_a_folder_that_cannot_be_read_and_a_link_to_nothing_do_not_go_unseen(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / folder / "0.png")
    (tmp_path / "a" / "1.png").symlink_to(tmp_path / "lost.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "a" / "2.png")
    assert [path.name for path in images_below(tmp_path)] == ["0.png", "1.png", "2.png", "0.png"]
    with pytest.raises(UserError, match="no such image: "):
        open_image(tmp_path / "a" / "1.png", "1.png")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=f"cannot read the folder {tmp_path / 'b'}: Permission denied"):
        images_below(tmp_path)


def test_an_empty_name_is_no_folder():
    with pytest.raises(UserError, match="no such image: ''"):
        list(read_images([""], None).rows)


def test_boxes_of_somebody_else_are_not_written_over(tmp_path):
    path = tmp_path / "0.png"
    Image.fromarray(PIXELS).save(path)
    answers, found = [(str(path), [Box("cell", 0.9, 1, 1, 3, 3)])], tmp_path / "found"
    assert not list(write_boxes(found, [], ["cell"])) and not found.exists(), "nothing answered, nothing written"
    for _ in range(2):  # its own are
        list(write_boxes(found, answers, ["cell"]))
    before = (found / "boxes.json").read_bytes()
    assert not list(write_boxes(found, [], ["cell"])) and (found / "boxes.json").read_bytes() == before
    truth = '{"images": [{"id": 1}], "annotations": [{"bbox": [0, 0, 1, 1]}]}'
    for content in ('{"mine": 1}', truth, "[]", "no JSON"):
        (found / "boxes.json").write_text(content)
        with pytest.raises(UserError, match="no answer of an earlier predict: give --output another folder"):
            list(write_boxes(found, answers, ["cell"]))
        assert (found / "boxes.json").read_text() == content


def test_a_picture_under_the_home_folder_is_written_and_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(PIXELS).save(tmp_path / "0.png")
    mask = np.zeros(PIXELS.shape[:2], np.uint8)
    for _ in range(2):
        (masked,) = write_masks(tmp_path / "masks", [("~/0.png", mask)], ["cell"])
        (boxed,) = write_boxes(tmp_path / "boxes", [("~/0.png", [])], ["cell"])
    assert masked.found == {"cell": 1.0} and boxed.picture == "~/0.png"


def test_a_mask_whose_overlay_failed_does_not_stop_the_next_predict(tmp_path):
    path, mask = tmp_path / "0.png", np.zeros(PIXELS.shape[:2], np.uint8)
    with pytest.raises(UserError, match="no such image"):
        list(write_masks(tmp_path / "found", [(str(path), mask)], ["cell"]))
    Image.fromarray(PIXELS).save(path)
    assert len(list(write_masks(tmp_path / "found", [(str(path), mask)], ["cell"]))) == 1
