"""The counting of bits, with the paper's figures."""

from __future__ import annotations

import pytest

from msfc.wire.accounting import bits_per_pixel, payload_bpfe, pyramid_elements
from msfc.wire.packing import packed_size

SIZES = {'p2': (160, 240), 'p3': (80, 120), 'p4': (40, 60), 'p5': (20, 30), 'p6': (10, 15)}


def test_elements() -> None:
    assert pyramid_elements(SIZES, 256) == 256 * 20 * 30 * (64 + 16 + 4 + 1) + 256 * 10 * 15


@pytest.mark.parametrize(
    ('channels', 'code_channels', 'bits', 'bpfe'),
    [(256, 64, 4, 0.0117), (128, 64, 4, 0.0235), (128, 32, 4, 0.0117), (256, 64, 32, 0.0938)],
)
def test_paper_figures(channels: int, code_channels: int, bits: int, bpfe: float) -> None:
    payload = packed_size(code_channels * 20 * 30, bits)
    assert payload_bpfe(payload, SIZES, channels) == pytest.approx(bpfe, abs=5e-5)


def test_spare_bits_count() -> None:
    sizes = {'p2': (1, 1)}
    assert payload_bpfe(packed_size(1, 2), sizes, 4) == 2.0  # a whole byte for four elements


def test_bits_per_pixel() -> None:
    assert bits_per_pixel(921600, (480, 640)) == 24.0
    assert bits_per_pixel(27200, (480, 640)) == pytest.approx(0.7083, abs=1e-4)
