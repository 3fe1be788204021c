import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from msfc.mask_runs import MOST_PIXELS, pack_mask, unpack_mask

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60)


@st.composite
def blobs(draw):
    """Return a mask of a few discs: long runs, as objects have them."""
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 3))):
        y, x, radius = (draw(st.integers(0, 300)) for _ in range(3))
        mask ^= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return mask


def by_pycocotools(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))['counts']


@settings(deadline=None)
@given(arrays(bool, SHAPES) | blobs())
def test_the_bytes_are_those_of_pycocotools(mask):
    data = bytes(pack_mask(mask))
    assert data == by_pycocotools(mask)
    assert np.array_equal(unpack_mask(data, *mask.shape), mask)
    decoded = coco_mask.decode({'size': list(mask.shape), 'counts': data})
    assert np.array_equal(decoded, mask)


def test_long_runs():
    mask = np.zeros((4096, 2304), bool)
    mask[:, 1152:] = True
    mask[7, 9] = True
    data = bytes(pack_mask(mask))
    assert data == by_pycocotools(mask)
    assert np.array_equal(unpack_mask(data, *mask.shape), mask)


@pytest.mark.parametrize('shape', [(0, 0), (0, 5), (5, 0)])
def test_no_pixels_are_no_bytes(shape):
    assert bytes(pack_mask(np.zeros(shape, bool))) == b''
    assert unpack_mask(b'', *shape).shape == shape


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 40))
def test_any_bytes_give_a_mask_of_the_size_or_an_error(data, height, width):
    with contextlib.suppress(ValueError):
        assert unpack_mask(data, height, width).shape == (height, width)


@settings(deadline=None)
@given(blobs(), st.data())
def test_a_broken_byte(mask, data):
    packed = pack_mask(mask)
    packed[data.draw(st.integers(0, packed.size - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert unpack_mask(packed, *mask.shape).shape == mask.shape


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', 'have 0 pixels, but its box has 4 x 3'),
        (b'13', 'have 4 pixels, but its box has 4 x 3'),
        (b'1', 'have 1 pixels'),
        (b'\\O', 'no counts'),  # 12 and -1
        (b'P', 'no run lengths'),  # more follows, but nothing does
        (b'\x00', 'no run lengths'),
        (b'\xff', 'no run lengths'),
        (b'PPPPPPPPPPPP0', 'too many bytes'),
    ],
)
def test_bytes_that_are_none(data, words):
    with pytest.raises(ValueError, match=words):
        unpack_mask(data, 3, 4)


def test_a_few_bytes_that_claim_a_huge_mask():
    side = 2**16
    with pytest.raises(ValueError, match=f'a mask of {side} x {side} pixels is not accepted'):
        unpack_mask(b'0', side, side)
    with pytest.raises(ValueError, match=f'{MOST_PIXELS} are the most'):
        pack_mask(np.broadcast_to(np.zeros(1, bool), (side, side)))
