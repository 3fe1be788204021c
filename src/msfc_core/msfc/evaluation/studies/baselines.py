"""Other ways to send the same scene, at equal precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfc.evaluation import feature_jpeg
from msfc.evaluation.baselines import (
    PAPER_BASELINE,
    Method,
    envelope,
    equal_precision_table,
    feature_jpeg_method,
    image_methods,
    range_table,
    rate_curve,
    thin_out,
)
from msfc.evaluation.image_codecs import (
    AVIF_SPEED,
    VIDEO_PRESET,
    ImageCodec,
    codec_versions,
    find_codecs,
)
from msfc.evaluation.measurement import Measurement
from msfc.evaluation.model_set import NamedModel, is_untrained
from msfc.evaluation.plots import Series, plot_rates
from msfc.evaluation.report import write_measurements
from msfc.evaluation.studies.common import (
    JOURNALS,
    PANELS,
    PLOT_SUFFIXES,
    StudyResult,
    StudySettings,
    panel_intervals,
)
from msfc.evaluation.variants import Coded, Uncompressed
from msfc.model import SplitModel
from msfc.model_file import load_model
from msfc.output import check_output_folder
from msfc.progress import StageProgress, no_progress

QUICK_QUALITIES = 3


@dataclass(frozen=True)
class ImageCodecChoice:
    """The image codecs of a study.

    Attributes:
        codecs: those to measure.
        missing: why others are not here, by name.
        avif_speed: of AVIF's encoder.
        preset: of the encoders of H.264 and H.265.
    """

    codecs: tuple[ImageCodec, ...]
    missing: Mapping[str, str]
    avif_speed: int
    preset: str = VIDEO_PRESET

    @classmethod
    def find(
        cls,
        kinds: Sequence[str] = (),
        avif_speed: int = AVIF_SPEED,
        preset: str = VIDEO_PRESET,
    ) -> ImageCodecChoice:
        """Return the codecs of some kinds, such as ``JPEG``; all that are here if none.

        Raises:
            ValueError: a kind is unknown, or not here.
        """
        codecs, missing = find_codecs(avif_speed=avif_speed, preset=preset)
        if not kinds:
            return cls(tuple(codecs), missing, avif_speed, preset)
        here = {codec.name.split()[0] for codec in codecs}
        for name in kinds:
            if name not in here:
                raise ValueError(
                    f'{name}: {missing[name]}' if name in missing
                    else f'no codec {name}: choose from {", ".join(sorted(here))}'
                )
        chosen = tuple(codec for codec in codecs if codec.name.split()[0] in kinds)
        return cls(chosen, {}, avif_speed, preset)

    def describe(self) -> dict[str, Any]:
        """Return versions and settings of the encoders."""
        return {**codec_versions(), 'avif_speed': self.avif_speed, 'preset': self.preset}


@dataclass(frozen=True)
class BaselineOptions:
    """What is compared.

    Attributes:
        reference: detector that gets images and features uncoded; the model's own if None.
        rates: of the codec; the model's own if none.
        features: whether the paper's baseline, the features as JPEG, is measured.
        downscale: whether images are made smaller too.
        qualities: how many per codec and scale; all if None.
        floor: least mAP in the plots.
        grid: whether every quality is measured at every scale, in place of those that were good
            on validation images.
        beside: other models with a codec, drawn beside at all their rates.
    """

    reference: str | None = None
    rates: tuple[int, ...] = ()
    features: bool = True
    downscale: bool = True
    qualities: int | None = None
    floor: float = 0.0
    grid: bool = False
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaselinesResult(StudyResult):
    """What the comparison found.

    Attributes:
        equal_precision: a row per operating point, method and measure, see
            :func:`msfc.evaluation.baselines.equal_precision_table`.
        envelope: the best image codec and setting for its bytes, by mask mAP, see
            :func:`msfc.evaluation.baselines.envelope`.
        over_range: a row per method and measure, see
            :func:`msfc.evaluation.baselines.range_table`.
        not_drawn: what the plots leave out, in words.
    """

    equal_precision: tuple[Mapping[str, Any], ...]
    envelope: tuple[Mapping[str, Any], ...]
    over_range: tuple[Mapping[str, Any], ...]
    not_drawn: tuple[str, ...]


def compare_baselines(
    model: str,
    settings: StudySettings,
    output: Path,
    image_codecs: ImageCodecChoice,
    options: BaselineOptions,
    progress: StageProgress = no_progress,
) -> BaselinesResult:
    """Measure a codec beside JPEG of the features and image codecs; resumes an interrupted run.

    Args:
        model: model folder, or name of a shipped model.
        settings: of the study.
        output: folder for tables, plots and journals.
        image_codecs: to compare with.
        options: what is compared.
        progress: shows how far it is.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: something given is not what it should be, such as a codec that was never
            trained.
    """
    output = check_output_folder(settings.folder(output))
    data = settings.load()
    coded, plain = _load_models(model, options.reference, settings.device)
    points = [
        Coded(coded.model, rate, identity=coded.identity)
        for rate in (options.rates or [coded.model.rate])
    ]
    others = [_load_coded(name, settings.device) for name in options.beside]
    beside = {
        other.label: other.variants(other.model.require_codec().coder().rates) for other in others
    }
    methods = _methods(plain.model, image_codecs, options, settings.quick)
    encoders = image_codecs.describe()
    measured = data.measure(
        [
            Uncompressed(plain.model.detector, identity=plain.identity), *points,
            *(variant for variants in beside.values() for variant in variants),
            *(variant for method in methods for variant in method.variants),
        ],
        output / JOURNALS, progress,
        # Not the codec: what it is compared with stays when it is another one.
        reference=plain.identity, encoders=codec_versions(),
    )
    comparison = _Comparison(
        methods, measured, len(points),
        {name: [variant.name for variant in variants] for name, variants in beside.items()},
    )
    found = comparison.found()
    about = {
        **data.describe(settings.notes),
        'models': [entry.describe() for entry in (coded, *others)],
        'reference_detector': plain.describe(),
        'encoders': encoders,
        **found,
        'not_measured': dict(image_codecs.missing),
    }
    write_measurements(output / 'baselines.json', measured, measured[0], about)
    not_drawn = comparison.plot(output, _series_name(coded), options.floor)
    return BaselinesResult(
        f'{model} on {settings.data.name}/{settings.split}', tuple(measured[: 1 + len(points)]),
        tuple(settings.notes), output, tuple(found['equal_precision']),
        tuple(found['envelope']['mask_map']), tuple(found['over_range']), tuple(not_drawn),
    )


def _load_models(
    name: str, reference: str | None, device: str
) -> tuple[NamedModel, NamedModel]:
    """Return the model with the codec, and the detector that gets what is not coded."""
    coded = _load_coded(name, device)
    plain = load_model(reference, device) if reference else coded.model
    return coded, NamedModel.of(Path(reference or name).name, SplitModel(plain.detector))


def _load_coded(name: str, device: str) -> NamedModel:
    coded = load_model(name, device)
    if is_untrained(coded):
        raise ValueError(f'the codec of {name} was never trained: it cannot be compared')
    return NamedModel.of(Path(name).name, coded)


def _series_name(named: NamedModel) -> str:
    codec = named.model.require_codec()
    if codec.kind == 'msfc':
        return f"MSFC, C'={codec.code_channels}"
    return f'{codec.kind} codec'


def _methods(
    model: SplitModel, image_codecs: ImageCodecChoice, options: BaselineOptions, quick: bool
) -> list[Method]:
    count = options.qualities or (QUICK_QUALITIES if quick else None)
    methods = image_methods(
        model.detector, image_codecs.codecs, options.downscale, count, options.grid
    )
    if options.features:
        qualities = thin_out(feature_jpeg.QUALITIES, count)
        methods.insert(0, feature_jpeg_method(model.detector, qualities))
    return methods


class _Comparison:
    """The measurements: the uncompressed detector, the codec's operating points, the methods.

    Args:
        methods: what the codec is compared with.
        measured: of the uncompressed detector, the codec and the methods, in this order.
        points: how many operating points the codec has.
        beside: names of the variants of other codecs, by their series' names.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        measured: Sequence[Measurement],
        points: int,
        beside: Mapping[str, Sequence[str]],
    ) -> None:
        self._methods, self._beside = methods, beside
        self._by_name = {entry.variant: entry for entry in measured}
        self._uncompressed, *rest = measured
        self._points = rest[:points]

    def found(self) -> dict[str, Any]:
        """Return what the measurements say, by box and by mask mAP; JSON-serialisable.

        ``equal_precision``: the bytes at equal precision; ``over_range``: the ratio of bytes over
        all precisions in common with the codec; ``envelope``: by measure, the best image codec
        and setting for its bytes.
        """
        compared = (self._methods, self._points, self._by_name)
        images = [method for method in self._methods if method.name != PAPER_BASELINE]
        return {
            'equal_precision': [
                row for name in PANELS for row in equal_precision_table(*compared, name)
            ],
            'over_range': [row for name in PANELS for row in range_table(*compared, name)],
            'envelope': {name: envelope(images, self._by_name, name) for name in PANELS},
        }

    def plot(self, output: Path, label: str, floor: float) -> list[str]:
        """Draw precision over BPFE and over bytes; return what is left out, in words.

        Of each method, the settings that no other beats are drawn.
        """
        left_out: list[str] = []
        for attribute, axis, name in (
            ('payload_bpfe', 'bits per feature element (BPFE)', 'bpfe'),
            ('payload_bytes', 'bytes per image', 'bytes'),
        ):
            panels = {
                panel: [
                    _series(label, self._points, measure, attribute, False),
                    *(
                        _series(
                            title, [self._by_name[name] for name in names], measure, attribute,
                            False,
                        )
                        for title, names in self._beside.items()
                    ),
                    *(
                        _series(k.name, self._best(k, measure), measure, attribute, True)
                        for k in self._methods
                    ),
                ]
                for measure, panel in PANELS.items()
            }
            for suffix in PLOT_SUFFIXES:
                left_out = plot_rates(
                    panels, panel_intervals(self._uncompressed),
                    output / f'baselines-{name}{suffix}', axis, floor,
                )
        return left_out

    def _best(self, method: Method, measure: str) -> list[Measurement]:
        curve, own = rate_curve(method, self._by_name, measure)
        return [own[place] for place in curve.frontier_places()]


def _series(
    title: str, entries: Sequence[Measurement], measure: str, attribute: str, baseline: bool
) -> Series:
    return Series(
        title,
        tuple(getattr(entry, attribute) for entry in entries),
        tuple(entry.interval(measure) for entry in entries),
        baseline,
    )
