"""Bytes at equal precision: interpolation, frontier, and no extrapolation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfc.evaluation.rate_curves import (
    AT_MOST,
    NEVER,
    REACHED,
    RateCurve,
    monotone_cubic,
    rate_at,
    ratio_at_equal_precision,
    ratio_over_range,
)

CURVE = RateCurve('jpeg', (1000, 2000, 4000, 8000), (0.2, 0.4, 0.5, 0.55))


@pytest.mark.parametrize(('rate', 'value'), list(zip(CURVE.rates, CURVE.precision, strict=True)))
def test_measured_points_are_met(rate: float, value: float) -> None:
    answer = rate_at(CURVE, value)
    assert answer.status == REACHED
    assert answer.rate == pytest.approx(rate)


def test_between_two_points() -> None:
    line = RateCurve('line', (100, 10000), (0.2, 0.4))
    assert rate_at(line, 0.3).rate == pytest.approx(1000)


def test_nothing_is_extrapolated() -> None:
    below, above = rate_at(CURVE, 0.1), rate_at(CURVE, 0.56)
    assert (below.status, below.rate) == (AT_MOST, 1000)
    assert (above.status, above.rate) == (NEVER, None)
    assert str(below) == '≤ 1,000'
    assert str(above) == 'not reached'
    assert rate_at(CURVE, math.nan).status == NEVER


def test_beaten_settings_are_left_out() -> None:
    curve = RateCurve(
        'noisy', (8000, 1000, 3000, 2000, 1000, 500), (0.5, 0.2, 0.35, 0.4, 0.1, math.nan)
    )
    rates, values = curve.frontier()
    assert rates.tolist() == [1000, 2000, 8000]
    assert values.tolist() == [0.2, 0.4, 0.5]


def test_single_setting() -> None:
    curve = RateCurve('one', (700,), (0.3,))
    assert rate_at(curve, 0.3) == rate_at(CURVE, 0.3).__class__(REACHED, 700)
    assert rate_at(curve, 0.2).status == AT_MOST
    assert rate_at(RateCurve('none', (700,), (math.nan,)), 0.2).status == NEVER


def test_ratio() -> None:
    ratio = ratio_at_equal_precision(CURVE, 500, 0.4)
    assert ratio.ratio == pytest.approx(4)
    assert ratio.interval is None
    assert ratio_at_equal_precision(CURVE, 500, 0.9).ratio is None


def test_ratio_interval() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.01, 300)
    own = rng.normal(0, 0.002, (4, 300))
    replicates = np.array(CURVE.precision)[:, None] + shared + own
    ratio = ratio_at_equal_precision(CURVE, 500, 0.45, replicates, 0.45 + shared)
    assert ratio.interval is not None
    assert ratio.interval.low < ratio.ratio < ratio.interval.high
    assert ratio.interval.high / ratio.interval.low < 1.3
    # At the top of the curve some resampled sets do not reach it: the interval has no end.
    top = ratio_at_equal_precision(CURVE, 500, 0.5499, replicates, 0.5499 + shared)
    assert top.interval is not None
    assert math.isinf(top.interval.high)
    # Sets of images without objects have no precision to compare.
    wanted = 0.45 + shared
    wanted[::10] = math.nan
    some = ratio_at_equal_precision(CURVE, 500, 0.45, replicates, wanted)
    assert some.interval is not None
    assert some.interval.high < 1.3 * some.interval.low
    with pytest.raises(ValueError, match='replicates of shape'):
        ratio_at_equal_precision(CURVE, 500, 0.45, replicates[:2], shared)


def test_wrong_curves_are_refused() -> None:
    with pytest.raises(ValueError, match='1 rates and 2'):
        RateCurve('x', (1,), (0.1, 0.2))
    with pytest.raises(ValueError, match='positive'):
        RateCurve('x', (0,), (0.1,))
    with pytest.raises(ValueError, match='positive'):
        ratio_at_equal_precision(CURVE, 0, 0.3)


def test_known_values() -> None:
    """A worked example: slopes and values by hand."""
    # Secants 1 and 2 of widths 1 and 2: middle slope 9 / (5 / 1 + 4 / 2) = 9 / 7, ends
    # ((2 + 2) 1 - 1 2) / 3 = 2 / 3 and ((4 + 1) 2 - 2 1) / 3 = 8 / 3.
    x, y = [0, 1, 3], [0, 1, 5]
    h = 0.5
    first = 0.5 * (1 * 1) + 0.125 * (2 / 3) - 0.125 * (9 / 7)
    second = 0.5 * (1 + 5) + 2 * 0.125 * (9 / 7) - 2 * 0.125 * (8 / 3)
    got = monotone_cubic(x, y, [0, h, 1, 2, 3])
    np.testing.assert_allclose(got, [0, first, 1, second, 5], atol=1e-12)


def test_interpolation_refuses_outside() -> None:
    with pytest.raises(ValueError, match='only'):
        monotone_cubic([0, 1], [0, 1], [1.1])
    with pytest.raises(ValueError, match='rising'):
        monotone_cubic([0, 0], [0, 1], [0])


@given(
    st.lists(
        st.tuples(st.floats(0.01, 5), st.floats(0, 5)), min_size=1, max_size=8
    )
)
def test_interpolation_keeps_order(steps: list[tuple[float, float]]) -> None:
    x = np.cumsum([0.0, *(step[0] for step in steps)])
    y = np.cumsum([0.0, *(step[1] for step in steps)])
    got = monotone_cubic(x, y, np.linspace(x[0], x[-1], 200))
    assert (np.diff(got) >= -1e-9).all()
    np.testing.assert_allclose(monotone_cubic(x, y, x), y, atol=1e-9)


def test_ratio_over_a_range_is_the_mean_where_both_were_measured() -> None:
    reference = RateCurve('codec', (100, 200, 400, 800), (0.2, 0.3, 0.4, 0.5))
    twice = RateCurve('twice', (400, 800, 1600, 3200), (0.3, 0.4, 0.5, 0.6))
    found = ratio_over_range(twice, reference)
    assert found is not None
    assert (found.low, found.high) == (0.3, 0.5)
    for value in (found.ratio, found.least, found.greatest):
        assert value == pytest.approx(2)
    assert found.interval is None
    back = ratio_over_range(reference, twice)
    assert back is not None
    assert back.ratio == pytest.approx(0.5)
    narrow = ratio_over_range(twice, reference, 0.35, 0.45)
    assert narrow is not None
    assert (narrow.low, narrow.high) == (0.35, 0.45)


def test_ratio_over_a_range_needs_a_range_in_common() -> None:
    low = RateCurve('low', (100, 200), (0.1, 0.2))
    high = RateCurve('high', (100, 200), (0.3, 0.4))
    assert ratio_over_range(low, high) is None
    assert ratio_over_range(low, RateCurve('one', (100,), (0.15,))) is None
    assert ratio_over_range(low, low, 0.25) is None


def test_interval_of_a_ratio_over_a_range() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0.3, 0.4, 0.5])
    reference = RateCurve('codec', (100, 200, 400), tuple(values))
    other = RateCurve('other', (300, 600, 1200), tuple(values))
    noise = rng.normal(0, 0.02, 200)
    paired = values[:, None] + noise
    found = ratio_over_range(
        other, reference, curve_replicates=paired, reference_replicates=paired
    )
    assert found is not None
    assert found.interval is not None
    # What moves both alike does not widen the interval.
    assert (found.interval.low, found.interval.high) == pytest.approx((3, 3))
    alone = ratio_over_range(
        other, reference, curve_replicates=paired,
        reference_replicates=values[:, None] + rng.normal(0, 0.02, 200),
    )
    assert alone is not None
    assert alone.interval is not None
    assert alone.interval.low < 3 < alone.interval.high
    with pytest.raises(ValueError, match='3 settings'):
        ratio_over_range(
            other, reference, curve_replicates=paired[:2], reference_replicates=paired
        )
    with pytest.raises(ValueError, match='same resampled sets'):
        ratio_over_range(
            other, reference, curve_replicates=paired, reference_replicates=paired[:, :7]
        )
    # Where resampled sets mostly leave nothing in common there is no interval.
    apart = ratio_over_range(
        other, reference, curve_replicates=paired, reference_replicates=paired + 0.5
    )
    assert apart is not None
    assert apart.interval is None
