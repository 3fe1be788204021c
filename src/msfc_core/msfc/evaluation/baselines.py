"""The codec against what else there is: the paper's baseline and the codecs for camera images.

All methods are measured on the same images in the same run, each over a range of settings that
makes a curve of average precision over bytes. The comparison is of bytes at equal precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from msfc.detectors.base import SplitDetector
from msfc.evaluation import feature_jpeg
from msfc.evaluation.feature_jpeg import FeatureJpeg
from msfc.evaluation.image_codecs import DownscalingCodec, ImageCodec
from msfc.evaluation.image_settings import CAMERA_SIZE, all_ways, chosen_ways
from msfc.evaluation.measurement import Measurement, json_interval, replicates_of
from msfc.evaluation.rate_curves import (
    AT_MOST,
    RateCurve,
    RateRatio,
    ratio_at_equal_precision,
    ratio_over_range,
)
from msfc.evaluation.variants import FeaturesAsJpeg, ImageSent, Variant, network_size

PAPER_BASELINE = 'feature JPEG'
"""Name of the paper's baseline."""


@dataclass(frozen=True)
class Method:
    """A method with its settings.

    Attributes:
        name: of the method, such as ``JPEG``; all ways of using it are one method, since a user
            takes the one that is best.
        variants: its settings.
    """

    name: str
    variants: tuple[Variant, ...]


def feature_jpeg_method(
    detector: SplitDetector, qualities: Sequence[int] = feature_jpeg.QUALITIES
) -> Method:
    """Return the paper's baseline, with one range per level or per channel."""
    return Method(
        PAPER_BASELINE,
        tuple(
            FeaturesAsJpeg(detector, FeatureJpeg(quality, scope))
            for scope in feature_jpeg.SCOPES
            for quality in qualities
        ),
    )


def image_methods(
    detector: SplitDetector,
    codecs: Sequence[ImageCodec],
    downscale: bool = True,
    settings: int | None = None,
    grid: bool = False,
) -> list[Method]:
    """Return a method for each kind of codec, all its subsamplings and scales together.

    Args:
        detector: which gets the decoded image.
        codecs: the codecs.
        downscale: also with the image made smaller; of the camera's own size only if not.
        settings: how many qualities of each codec and scale, evenly chosen; all by default.
        grid: every quality at every scale, to find the best; by default those that are known to
            be good, see :mod:`msfc.evaluation.image_settings`.
    """
    scaled = network_size(detector)
    methods: dict[str, list[Variant]] = {}
    for codec in codecs:
        kind = codec.name.split(' 4:')[0]
        ways = all_ways(codec) if grid else chosen_ways(codec)
        if not downscale:
            ways = {CAMERA_SIZE: codec.qualities}
        methods.setdefault(kind, [])
        for scale, qualities in ways.items():
            way = codec if scale is CAMERA_SIZE else DownscalingCodec(codec, scaled, scale)
            methods[kind].extend(
                ImageSent(detector, way, quality) for quality in thin_out(qualities, settings)
            )
    return [Method(name, tuple(variants)) for name, variants in methods.items() if variants]


def thin_out(values: Sequence[int], count: int | None) -> list[int]:
    """Return ``count`` of the values, first and last among them, evenly by place."""
    if count is None or count >= len(values):
        return list(values)
    if count < 2:
        raise ValueError(f'a curve needs two settings at least, not {count}')
    places = [round(k * (len(values) - 1) / (count - 1)) for k in range(count)]
    return [values[place] for place in places]


def rate_curve(
    method: Method, measurements: Mapping[str, Measurement], measure: str
) -> tuple[RateCurve, list[Measurement]]:
    """Return a method's curve of precision over payload bytes, and what it is made of.

    Args:
        method: the method.
        measurements: by name of the variant.
        measure: one of :data:`msfc.evaluation.bootstrap.MEASURES`.

    Raises:
        ValueError: a setting of the method sends nothing.
    """
    own = [measurements[variant.name] for variant in method.variants]
    return _curve_through(method.name, own, measure), own


def _curve_through(name: str, points: Sequence[Measurement], measure: str) -> RateCurve:
    rates = [point.payload_bytes for point in points if point.payload_bytes is not None]
    if len(rates) < len(points):
        raise ValueError(f'{name} sends nothing: it has no rate')
    return RateCurve(
        name,
        tuple(map(float, rates)),
        tuple(point.precision.values[measure] for point in points),
    )


def envelope(
    methods: Sequence[Method],
    measurements: Mapping[str, Measurement],
    measure: str = 'mask_map',
) -> list[dict[str, Any]]:
    """Return the best setting of all methods at each number of bytes.

    Args:
        methods: among which to choose.
        measurements: of all their variants, by name.
        measure: what is to be best.

    Returns:
        A JSON-serialisable row per setting that no cheaper one equals, by rising bytes.
    """
    owners = {variant.name: method.name for method in methods for variant in method.variants}
    together = Method('envelope', tuple(v for method in methods for v in method.variants))
    if not together.variants:
        return []
    curve, own = rate_curve(together, measurements, measure)
    return [
        {
            'bytes': own[place].payload_bytes,
            'method': owners[own[place].variant],
            'setting': own[place].variant,
            'box_map': own[place].precision.values['box_map'],
            'mask_map': own[place].precision.values['mask_map'],
            'encode_seconds': own[place].encode_seconds,
        }
        for place in curve.frontier_places()
    ]


def range_table(
    methods: Sequence[Method],
    points: Sequence[Measurement],
    measurements: Mapping[str, Measurement],
    measure: str = 'mask_map',
) -> list[dict[str, Any]]:
    """Return how many times the codec's bytes each method needs, over all precisions in common.

    Args:
        methods: to compare with.
        points: the codec's operating points, which make its curve.
        measurements: of all methods' variants, by name.
        measure: what is to be equal.

    Returns:
        A JSON-serialisable row per method that has a range of precision in common with the codec.
    """
    codec = _curve_through('the codec', points, measure)
    rows = []
    for method in methods:
        curve, own = rate_curve(method, measurements, measure)
        found = ratio_over_range(
            curve, codec,
            curve_replicates=replicates_of(own, measure),
            reference_replicates=replicates_of(points, measure),
        )
        if found is not None:
            row = asdict(found)
            row['interval'] = None if found.interval is None else json_interval(found.interval)
            rows.append({'measure': measure, **row})
    return rows


def equal_precision_table(
    methods: Sequence[Method],
    points: Sequence[Measurement],
    measurements: Mapping[str, Measurement],
    measure: str = 'mask_map',
) -> list[dict[str, Any]]:
    """Return how many times an operating point's bytes each method needs for its precision.

    Args:
        methods: to compare with.
        points: operating points of the codec.
        measurements: of all methods' variants, by name.
        measure: what is to be equal.

    Returns:
        A JSON-serialisable row per operating point and method.
    """
    rows = []
    for point in points:
        if point.payload_bytes is None:
            raise ValueError(f'{point.variant} sends nothing: it cannot be compared')
        for method in methods:
            curve, own = rate_curve(method, measurements, measure)
            ratio = ratio_at_equal_precision(
                curve,
                point.payload_bytes,
                point.precision.values[measure],
                replicates_of(own, measure),
                point.precision.replicates[measure],
            )
            rows.append(
                {
                    'point': point.variant,
                    'measure': measure,
                    'precision': point.precision.values[measure],
                    'bytes': point.payload_bytes,
                    'method': method.name,
                    'status': ratio.status,
                    'method_bytes': ratio.rate,
                    'ratio': ratio.ratio,
                    'ratio_interval': None
                    if ratio.interval is None
                    else json_interval(ratio.interval),
                    'sentence': sentence(point.variant, ratio, point),
                }
            )
    return rows


def sentence(name: str, ratio: RateRatio, point: Measurement) -> str:
    """Return a comparison in words, whoever wins."""
    sent = f'{name} ({point.payload_bytes:,.0f} bytes)'
    if ratio.ratio is None or ratio.rate is None:
        return f'{ratio.method} never reaches the precision of {sent} at any setting measured'
    if ratio.status == AT_MOST:
        better = 'even its least setting measured is better'
        if ratio.ratio > 1:
            return f'{sent}, {ratio.method} at most {ratio.rate:,.0f}: undecided, {better}'
        return (
            f'{sent} needs at least {1 / ratio.ratio:.2f} times the bytes of {ratio.method}: '
            f'{better}'
        )
    if ratio.ratio >= 1:
        return f'{sent} needs 1/{ratio.ratio:.2f} of the bytes of {ratio.method}'
    return f'{sent} needs {1 / ratio.ratio:.2f} times the bytes of {ratio.method}'
