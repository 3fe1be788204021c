"""Rate against precision: how many bytes a method needs for a given average precision.

A method is measured at several settings. A user who wants some precision takes the cheapest
setting that reaches it, so settings that another one beats at fewer bytes are left out (the
others are the *frontier*). Between two settings of the frontier the logarithm of the bytes is
interpolated as a function of precision by monotone cubics, the usual way of comparing image
codecs (ITU-T HSTP-VID-WPOM, the Bjontegaard measures). Outside the settings measured nothing is
extrapolated: the answer is then a bound, or that the precision was never reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msfc.evaluation.bootstrap import CONFIDENCE, Interval, percentile_interval

REACHED = 'reached'
"""Interpolated between two settings, or measured."""
AT_MOST = 'at most'
"""Even the cheapest setting measured is better: it needs these bytes at most."""
NEVER = 'never'
"""No setting measured is that good."""


@dataclass(frozen=True)
class RateCurve:
    """What a method reached at several settings.

    Attributes:
        name: of the method.
        rates: mean bytes per image of each setting, or any other rate; positive.
        precision: average precision of each setting, 0 to 1; a setting with NaN does not count.

    Raises:
        ValueError: no settings, unlike numbers of rates and precisions, or a rate that is not
            positive.
    """

    name: str
    rates: tuple[float, ...]
    precision: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.precision) or not self.rates:
            raise ValueError(
                f'{self.name}: {len(self.rates)} rates and {len(self.precision)} precisions'
            )
        if not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise ValueError(f'{self.name}: rates must be positive numbers: {self.rates}')

    def frontier_places(self) -> list[int]:
        """Return the places of the settings that no cheaper one equals, by rising rate."""
        order = sorted(
            (rate, -value, place)
            for place, (rate, value) in enumerate(zip(self.rates, self.precision, strict=True))
            if math.isfinite(value)
        )
        places: list[int] = []
        for _, negative, place in order:
            if not places or -negative > self.precision[places[-1]]:
                places.append(place)
        return places

    def frontier(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return rates and precisions of the settings that no cheaper one equals, both rising."""
        places = self.frontier_places()
        return (
            np.array([self.rates[place] for place in places], np.float64),
            np.array([self.precision[place] for place in places], np.float64),
        )


@dataclass(frozen=True)
class RateAt:
    """The rate that a method needs for a precision.

    Attributes:
        status: ``REACHED``, ``AT_MOST`` or ``NEVER``.
        rate: the rate, or its upper bound; None if the precision was never reached.
    """

    status: str
    rate: float | None

    def __str__(self) -> str:
        if self.rate is None:
            return 'not reached'
        return f'{"≤ " if self.status == AT_MOST else ""}{self.rate:,.0f}'


def rate_at(curve: RateCurve, precision: float) -> RateAt:
    """Return the rate at which a method has a precision.

    Args:
        curve: the method.
        precision: average precision, 0 to 1.
    """
    rates, values = curve.frontier()
    if not len(values) or not math.isfinite(precision) or precision > values[-1]:
        return RateAt(NEVER, None)
    if precision < values[0]:
        return RateAt(AT_MOST, float(rates[0]))
    if len(values) == 1:
        return RateAt(REACHED, float(rates[0]))
    return RateAt(
        REACHED, float(np.exp(monotone_cubic(values, np.log(rates), np.array([precision]))[0]))
    )


@dataclass(frozen=True)
class RateRatio:
    """How many times the bytes of a reference point a method needs at the same precision.

    Attributes:
        method: name of the method.
        status: as in :class:`RateAt`.
        rate: the method's rate; None if it never gets there.
        ratio: ``rate`` over the reference's rate: above 1, the reference needs fewer bytes.
        interval: bootstrap interval of the ratio; infinite where resampled sets of images never
            let the method get there; where even its cheapest setting is better, that one's rate
            counts, so that its ends too may be upper bounds; None without replicates.
    """

    method: str
    status: str
    rate: float | None
    ratio: float | None
    interval: Interval | None = None


def ratio_at_equal_precision(
    curve: RateCurve,
    reference_rate: float,
    reference_precision: float,
    curve_replicates: NDArray[np.float64] | None = None,
    reference_replicates: NDArray[np.float64] | None = None,
    confidence: float = CONFIDENCE,
) -> RateRatio:
    """Compare a method with one operating point of another.

    Args:
        curve: the method.
        reference_rate: rate of the operating point, in the unit of the curve's rates.
        reference_precision: its average precision.
        curve_replicates: S x B, precision of each setting of the curve on the resampled sets of
            images; with it the ratio has an interval.
        reference_replicates: B, of the operating point, on the same resampled sets.
        confidence: of the interval.

    Raises:
        ValueError: the reference's rate is not positive, or the replicates do not fit.
    """
    if not reference_rate > 0:
        raise ValueError(f'a rate must be positive, not {reference_rate}')
    answer = rate_at(curve, reference_precision)
    ratio = None if answer.rate is None else answer.rate / reference_rate
    interval = None
    if curve_replicates is not None and reference_replicates is not None:
        if curve_replicates.shape != (len(curve.rates), len(reference_replicates)):
            raise ValueError(
                f'replicates of shape {curve_replicates.shape} for {len(curve.rates)} settings '
                f'and {len(reference_replicates)} resampled sets'
            )
        ratios = []
        for values, wanted in zip(curve_replicates.T, reference_replicates, strict=True):
            if math.isnan(wanted):
                continue  # a set of images without objects says nothing
            resampled = RateCurve(curve.name, curve.rates, tuple(values))
            rate = rate_at(resampled, float(wanted)).rate
            ratios.append(math.inf if rate is None else rate / reference_rate)
        interval = _interval_with_infinity(
            math.inf if ratio is None else ratio, np.array(ratios), confidence
        )
    return RateRatio(curve.name, answer.status, answer.rate, ratio, interval)


@dataclass(frozen=True)
class RangeRatio:
    """How many times the bytes of one method another needs, over a range of precision.

    Attributes:
        method: the other method.
        low: least precision of the range, which both methods' settings span.
        high: greatest precision of the range.
        ratio: geometric mean of the ratio over the range: above 1, the first needs fewer bytes.
        least: least ratio in the range.
        greatest: greatest ratio in the range.
        interval: bootstrap interval of the mean; None without replicates, or where fewer than
            nine in ten resampled sets of images leave the methods a range in common.
    """

    method: str
    low: float
    high: float
    ratio: float
    least: float
    greatest: float
    interval: Interval | None = None


RANGE_STEPS = 101
"""Places in a range of precision at which the ratio is taken."""


def ratio_over_range(
    curve: RateCurve,
    reference: RateCurve,
    low: float = 0.0,
    high: float = 1.0,
    curve_replicates: NDArray[np.float64] | None = None,
    reference_replicates: NDArray[np.float64] | None = None,
    confidence: float = CONFIDENCE,
) -> RangeRatio | None:
    """Compare two methods wherever both were measured: Bjontegaard's mean difference of rate.

    Nothing is extrapolated: the range ends where one of the two has no setting.

    Args:
        curve: a method.
        reference: the method that it is compared with.
        low: least precision that is asked for.
        high: greatest precision that is asked for.
        curve_replicates: S x B, precision of the curve's settings on resampled sets of images.
        reference_replicates: the same of the reference, on the same sets.
        confidence: of the interval.

    Returns:
        The ratio, or None where the two have no range in common.

    Raises:
        ValueError: the replicates do not fit.
    """
    ratios = _ratios_in_range(curve, reference, low, high)
    if ratios is None:
        return None
    (start, end), logs = ratios
    mean = float(np.exp(_mean_over_steps(logs)))
    interval = None
    if curve_replicates is not None and reference_replicates is not None:
        _check_replicates(curve, curve_replicates)
        _check_replicates(reference, reference_replicates)
        if curve_replicates.shape[1] != reference_replicates.shape[1]:
            raise ValueError('replicates of two methods must be of the same resampled sets')
        means = []
        for own, other in zip(curve_replicates.T, reference_replicates.T, strict=True):
            resampled = _ratios_in_range(
                RateCurve(curve.name, curve.rates, tuple(own)),
                RateCurve(reference.name, reference.rates, tuple(other)), low, high,
            )
            if resampled is not None:
                means.append(math.exp(_mean_over_steps(resampled[1])))
        if len(means) >= 0.9 * curve_replicates.shape[1] > 0:
            interval = percentile_interval(mean, np.array(means), confidence)
    return RangeRatio(
        curve.name, start, end, mean, float(np.exp(logs.min())), float(np.exp(logs.max())),
        interval,
    )


def _ratios_in_range(
    curve: RateCurve, reference: RateCurve, low: float, high: float
) -> tuple[tuple[float, float], NDArray[np.float64]] | None:
    """Return the range in common, and the logarithms of the ratio at even steps of it."""
    frontiers = [method.frontier() for method in (curve, reference)]
    if any(len(values) < 2 for _, values in frontiers):
        return None
    start = max(low, *(float(values[0]) for _, values in frontiers))
    end = min(high, *(float(values[-1]) for _, values in frontiers))
    if not start < end:
        return None
    at = np.linspace(start, end, RANGE_STEPS)
    own, other = (monotone_cubic(values, np.log(rates), at) for rates, values in frontiers)
    return (start, end), own - other


def _mean_over_steps(values: NDArray[np.float64]) -> float:
    """Return the mean over even steps by the trapezoidal rule."""
    return float((values[1:] + values[:-1]).mean() / 2)


def _check_replicates(curve: RateCurve, replicates: NDArray[np.float64]) -> None:
    if replicates.ndim != 2 or len(replicates) != len(curve.rates):
        raise ValueError(
            f'replicates of shape {replicates.shape} for {len(curve.rates)} settings of '
            f'{curve.name}'
        )


def _interval_with_infinity(
    value: float, replicates: NDArray[np.float64], confidence: float
) -> Interval:
    """Return a percentile interval whose ends may be infinite, by ranks without interpolation."""
    if np.isfinite(replicates).all():
        return percentile_interval(value, replicates, confidence)
    ordered = np.sort(replicates)
    tail = (1 - confidence) / 2
    low = ordered[math.floor(tail * (len(ordered) - 1))]
    high = ordered[math.ceil((1 - tail) * (len(ordered) - 1))]
    return Interval(value, float(low), float(high))


def monotone_cubic(x: ArrayLike, y: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """Interpolate by piecewise cubics that rise and fall only where the points do.

    Slopes are the weighted harmonic means of Fritsch and Butland (SIAM J. Sci. Stat. Comput. 5,
    1984), with one-sided ends limited to keep the shape: the method known as PCHIP.

    Args:
        x: N places, strictly rising, N at least 2.
        y: N values.
        at: places between the first and last of ``x``.

    Raises:
        ValueError: fewer than two points, places that do not rise, or one outside.
    """
    x, y, at = (np.asarray(values, np.float64) for values in (x, y, at))
    width = np.diff(x)
    if len(x) < 2 or len(x) != len(y) or not (width > 0).all():
        raise ValueError('interpolation needs two points or more, at strictly rising places')
    if at.size and (at.min() < x[0] or at.max() > x[-1]):
        raise ValueError(f'interpolation between {x[0]} and {x[-1]} only')
    slope = _slopes(width, np.diff(y) / width)
    piece = np.clip(np.searchsorted(x, at, side='right') - 1, 0, len(x) - 2)
    h, t = width[piece], (at - x[piece]) / width[piece]
    return (
        y[piece] * (1 + 2 * t) * (1 - t) ** 2
        + h * slope[piece] * t * (1 - t) ** 2
        + y[piece + 1] * t**2 * (3 - 2 * t)
        - h * slope[piece + 1] * t**2 * (1 - t)
    )


def _slopes(width: NDArray[np.float64], secant: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(secant) == 1:
        return np.array([secant[0], secant[0]])
    before, after = secant[:-1], secant[1:]
    weight_before = width[:-1] + 2 * width[1:]
    weight_after = 2 * width[:-1] + width[1:]
    same_sign = before * after > 0
    # Where the sign changes the slope is zero and the quotients are not used.
    safe_before, safe_after = np.where(same_sign, before, 1.0), np.where(same_sign, after, 1.0)
    inner = np.where(
        same_sign,
        (weight_before + weight_after) / (weight_before / safe_before + weight_after / safe_after),
        0.0,
    )
    first = _end_slope(width[0], width[1], secant[0], secant[1])
    last = _end_slope(width[-1], width[-2], secant[-1], secant[-2])
    return np.concatenate([[first], inner, [last]])


def _end_slope(near: float, far: float, secant: float, next_secant: float) -> float:
    slope = ((2 * near + far) * secant - near * next_secant) / (near + far)
    if slope * secant <= 0:
        return 0.0
    if secant * next_secant <= 0 and abs(slope) > 3 * abs(secant):
        return 3 * secant
    return slope
