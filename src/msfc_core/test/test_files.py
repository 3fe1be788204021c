"""Image files: their size, their end, where they are put, and the list of what is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from msfc.data.files import image_size, is_cut_off, place_image, write_list

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def jpeg(*options: int) -> bytes:
    return cv2.imencode('.jpg', PICTURE, options)[1].tobytes()


def with_preview(data: bytes) -> bytes:
    """Return a JPEG that has another one in its header, as cameras write it."""
    preview = cv2.imencode('.jpg', PICTURE[:8, :8])[1].tobytes()
    return data[:2] + b'\xff\xe1' + (len(preview) + 2).to_bytes(2, 'big') + preview + data[2:]


WHOLE = {
    'jpeg': jpeg(),
    'progressive': jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'restarts': jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    'preview': with_preview(jpeg()),
    'png': cv2.imencode('.png', PICTURE)[1].tobytes(),
}


@pytest.mark.parametrize('kind', WHOLE)
def test_a_cut_is_found_wherever_it_is(kind: str, tmp_path: Path) -> None:
    data, path, opened = WHOLE[kind], tmp_path / 'image', 0
    path.write_bytes(data)
    assert image_size(path) == (20, 30)
    assert not is_cut_off(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            image_size(path)
        except OSError:
            continue
        opened += 1
        assert is_cut_off(path), length
    assert opened > 100


@pytest.mark.parametrize('kind', WHOLE)
def test_more_behind_the_end_is_no_cut(kind: str, tmp_path: Path) -> None:
    path = tmp_path / 'image'
    for more in (b'\0', b'\xff', b'a film \xff\xda of frames \xff\xd8\xff\xe0'):
        path.write_bytes(WHOLE[kind] + more)
        assert not is_cut_off(path)


def test_opencv_says_nothing_of_a_cut(tmp_path: Path) -> None:
    """Why it is looked for: the picture is there, its lower part is not."""
    path = tmp_path / 'half.jpg'
    path.write_bytes(WHOLE['jpeg'][: len(WHOLE['jpeg']) * 2 // 3])
    read = cv2.imread(str(path))
    assert read is not None
    assert read.shape == PICTURE.shape
    assert is_cut_off(path)


def test_other_files_have_no_end_that_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / 'a'
    for data in (b'', b'\xff', b'BM anything'):
        path.write_bytes(data)
        assert not is_cut_off(path)
    with pytest.raises(FileNotFoundError):
        is_cut_off(tmp_path / 'none')


def test_size_is_as_opencv_reads_it(tmp_path: Path) -> None:
    picture = Image.fromarray(PICTURE)
    for orientation in range(12):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f'{orientation}.jpg'
        picture.save(path, exif=exif)
        read = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert read is not None
        assert image_size(path) == read.shape[:2]
    for broken in (b'Exif\0\0nothing', b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12'):
        picture.save(tmp_path / 'broken.jpg', exif=broken)
        assert image_size(tmp_path / 'broken.jpg') == (20, 30)


def test_what_is_no_image_has_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'a.png'
    path.write_bytes(b'no picture')
    with pytest.raises(OSError, match=r'a\.png'):
        image_size(path)
    path.write_bytes(WHOLE['png'])
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20 * 30 // 3)
    with pytest.raises(OSError, match=r'a\.png.*exceeds limit'):
        image_size(path)


def test_images_are_put_in_their_place(tmp_path: Path) -> None:
    one, other, place = tmp_path / 'one', tmp_path / 'other', tmp_path / 'set' / 'image'
    one.write_bytes(b'one')
    other.write_bytes(b'another')
    place_image(one, place, copy=False)
    assert place.readlink() == one
    # Another source, such as the images at another size, is another image.
    place_image(other, place, copy=False)
    assert place.readlink() == other
    place_image(other, place, copy=True)
    assert not place.is_symlink()
    assert place.read_bytes() == b'another'
    before = place.stat().st_mtime_ns
    place_image(other, place, copy=True)
    place_image(other, place, copy=False)  # a copy will do
    assert place.stat().st_mtime_ns == before
    place_image(one, place, copy=True)
    assert place.read_bytes() == b'one'
    place.unlink()
    place.symlink_to(tmp_path / 'gone')
    place_image(one, place, copy=False)
    assert place.read_bytes() == b'one'
    place_image(one, one, copy=True)
    assert one.read_bytes() == b'one'
    assert list(place.parent.iterdir()) == [place]


def test_lists_are_csv_whatever_the_names(tmp_path: Path) -> None:
    path, rows = tmp_path / 'list.csv', [['image', 'a, "b".jpg', 'no file'], ['image', 'c', '']]
    assert write_list(path, ('kind', 'name', 'reason'), rows) == 'list.csv'
    with path.open(newline='') as file:
        assert list(csv.reader(file)) == [['kind', 'name', 'reason'], *rows]
    assert write_list(path, ('kind', 'name', 'reason'), []) is None
    assert not path.exists()
