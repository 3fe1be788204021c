"""The command ``msfc baselines``: other ways to send the same scene, at equal precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfc.cli.console import check_device, print_lines, report_errors
from msfc.cli.measuring import (
    PANELS,
    DataFolder,
    Device,
    Images,
    Output,
    Quick,
    Replicates,
    Split,
    describe_run,
    kinds,
    measure_with_progress,
    print_measurements,
    quick_run,
)

if TYPE_CHECKING:
    from msfc.evaluation.baselines import Method
    from msfc.evaluation.measurement import Measurement

# The heavy imports (torch, matplotlib) are in the command, so that --help answers at once.

QUICK_SETTINGS = 3


def baselines(
    model: Annotated[str, typer.Argument(help='Model folder, or name of a shipped model.')],
    data: DataFolder,
    output: Output,
    split: Split = 'test',
    reference: Annotated[
        str | None,
        typer.Option(help="Detector that gets images and features uncoded; the model's own if "
                          'none. Give the one before the codec was trained.'),
    ] = None,
    bits: Annotated[
        list[int] | None, typer.Option(help="Bit depth n; repeatable. The model's own if none.")
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help='JPEG, WebP, AVIF, H.264 or H.265; repeatable. All here if none.'),
    ] = None,
    avif_speed: Annotated[
        int,
        typer.Option(help='4 takes seconds an image, for some 15 % fewer bytes.', min=0, max=10),
    ] = 6,
    features: Annotated[
        bool, typer.Option(help="Measure the paper's baseline, the features as JPEG.")
    ] = True,
    downscale: Annotated[
        bool, typer.Option(help="Also send images made as small as the detector's input.")
    ] = True,
    settings: Annotated[
        int | None, typer.Option(help='Qualities per codec; all by default.', min=2)
    ] = None,
    floor: Annotated[float, typer.Option(help='Least mAP in the plots.', min=0, max=1)] = 0.0,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    quick: Quick = False,
) -> None:
    """Compare the codec with JPEG of the features (the paper's baseline) and with image codecs.

    Same images, same run; bytes at equal mask and box mAP, with bootstrap intervals. Goes on
    where a broken run ended.
    """
    with report_errors():
        from msfc.data import CocoDataset
        from msfc.evaluation import baselines as library
        from msfc.evaluation import feature_jpeg
        from msfc.evaluation.image_codecs import codec_versions, find_codecs
        from msfc.evaluation.model_set import NamedModel
        from msfc.evaluation.report import data_digest, write_measurements
        from msfc.evaluation.variants import Coded, Uncompressed, Variant
        from msfc.model import SplitModel
        from msfc.model_file import load_model

        output, limit, notes = quick_run(quick, output, limit)
        settings = settings or (QUICK_SETTINGS if quick else None)
        check_device(device)
        dataset = CocoDataset(data, split)
        coded_model = load_model(model, device)
        plain_model = load_model(reference, device) if reference else coded_model
        detector = plain_model.detector
        named = NamedModel.of(Path(model).name, coded_model)
        named_plain = NamedModel.of(
            Path(reference or model).name, SplitModel(plain_model.detector)
        )
        codecs, missing = find_codecs(avif_speed=avif_speed)
        codecs = _choose_codecs(codecs, missing, codec or ())
        encoders = {**codec_versions(), 'avif_speed': avif_speed}
        print_lines([f'{name} is not measured: {why}' for name, why in missing.items()])
        methods = library.image_methods(detector, codecs, downscale, settings)
        if features:
            qualities = library.thin_out(feature_jpeg.QUALITIES, settings)
            methods.insert(0, library.feature_jpeg_method(detector, qualities))
        plain = Uncompressed(detector, identity=named_plain.identity)
        coded = [
            Coded(coded_model, depth, identity=named.identity)
            for depth in (bits or [coded_model.bit_depth])
        ]
        variants: list[Variant] = [plain, *coded]
        variants += [variant for method in methods for variant in method.variants]
        image_ids = dataset.image_ids[:limit]
        measured = measure_with_progress(
            dataset, variants, image_ids, output / 'journal',
            {
                # Not the codec: what it is compared with stays when it is another one.
                'data': data_digest(data, split),
                'reference': named_plain.identity,
                'encoders': encoders,
            },
            replicates,
        )
        by_name = {entry.variant: entry for entry in measured}
        points = [by_name[variant.name] for variant in coded]
        tables = [
            row
            for name in PANELS
            for row in library.equal_precision_table(methods, points, by_name, name)
        ]
        write_measurements(
            output / 'baselines.json', measured, by_name[plain.name],
            {
                **describe_run(dataset, data, split, len(image_ids), replicates, notes),
                'models': [named.describe()],
                'reference_detector': named_plain.describe(),
                'encoders': encoders,
                'equal_precision': tables,
                'not_measured': missing,
            },
        )
        print_measurements(f'{model} on {data.name}/{split}', [by_name[plain.name], *points])
        print_lines(['At equal mask mAP:'])
        print_lines([row['sentence'] for row in tables if row['measure'] == 'mask_map'])
        _plot_baselines(output, methods, coded_model, points, by_name, plain.name, floor)
        print_lines([*notes, f'tables and plots: {output}'])


def _choose_codecs(
    codecs: Sequence[Any], missing: dict[str, str], wanted: Sequence[str]
) -> list[Any]:
    """Return the codecs whose kind was asked for; forget what is missing of other kinds."""
    if not wanted:
        return list(codecs)
    kinds = {codec.name.split()[0] for codec in codecs}
    for name in wanted:
        if name not in kinds:
            raise ValueError(
                f'{name}: {missing[name]}' if name in missing
                else f'no codec {name}: choose from {", ".join(sorted(kinds))}'
            )
    missing.clear()
    return [codec for codec in codecs if codec.name.split()[0] in wanted]


def _plot_baselines(
    output: Path,
    methods: Sequence[Method],
    model: Any,
    points: Sequence[Measurement],
    by_name: Mapping[str, Measurement],
    plain: str,
    floor: float,
) -> None:
    """Draw precision over BPFE and over bytes; of each method the settings no other beats."""
    from msfc.evaluation.baselines import rate_curve
    from msfc.evaluation.plots import Series, plot_rates

    def best(method: Method, measure: str) -> list[Measurement]:
        curve, own = rate_curve(method, by_name, measure)
        rates, values = curve.frontier()
        wanted = set(zip(rates.tolist(), values.tolist(), strict=True))
        kept = {
            (entry.payload_bytes or 0.0, entry.precision.values[measure]): entry for entry in own
        }
        return [entry for key, entry in sorted(kept.items()) if key in wanted]

    for attribute, label, name in (
        ('payload_bpfe', 'bits per feature element (BPFE)', 'bpfe'),
        ('payload_bytes', 'bytes per image', 'bytes'),
    ):

        def series(
            title: str, entries: Sequence[Measurement], measure: str, baseline: bool,
            attribute: str = attribute,
        ) -> Series:
            return Series(
                title,
                tuple(getattr(entry, attribute) for entry in entries),
                tuple(entry.interval(measure) for entry in entries),
                baseline,
            )

        code = f"MSFC, C'={model.codec.config.code_channels}"
        panels = {
            panel: [
                series(code, points, measure, False),
                *(series(k.name, best(k, measure), measure, True) for k in methods),
            ]
            for measure, panel in PANELS.items()
        }
        for suffix in ('png', 'pdf'):
            left_out = plot_rates(
                panels, kinds(by_name[plain]), output / f'baselines-{name}.{suffix}', label, floor
            )
    print_lines(left_out)
