"""The command ``msfc evaluate``: models at several bit depths beside the uncompressed detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import check_device, print_lines, report_errors
from msfc.cli.measuring import (
    QUICK_IMAGES,
    QUICK_WARNING,
    DataFolder,
    Device,
    Images,
    Quick,
    Replicates,
    Split,
    describe_run,
    measure_with_progress,
    print_differences,
    print_measurements,
)

# The heavy imports are in the command, so that --help answers at once.


def evaluate(
    model: Annotated[
        list[str], typer.Argument(help="Model folders, or names of shipped models: one for each "
                                       "C', or for each training step.")
    ],
    data: DataFolder,
    split: Split = 'test',
    bits: Annotated[
        list[int] | None,
        typer.Option(help="Bit depth n; repeatable. The models' own by default."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help='Model whose detector is measured uncompressed; the first one by '
                          'default. Give the one before the codec was trained.'),
    ] = None,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    output: Annotated[
        Path | None,
        typer.Option('--json', help='Write figures here, and as .csv beside it; with it, the '
                                    'same command goes on after a break.'),
    ] = None,
    quick: Quick = False,
) -> None:
    """Measure box and mask average precision and bits, by COCO's rules.

    All on the same images in one run with the uncompressed detector, with bootstrap intervals
    over images.
    """
    with report_errors():
        from msfc.data import CocoDataset
        from msfc.evaluation.model_set import (
            NamedModel,
            make_labels,
            share_detectors,
            uncompressed_variant,
        )
        from msfc.evaluation.report import check_report_path, data_digest, write_measurements
        from msfc.evaluation.variants import Variant
        from msfc.model import SplitModel
        from msfc.model_file import load_model
        from msfc.wire.quantizer import check_bit_depth

        if quick:
            limit = limit or QUICK_IMAGES
            print_lines([QUICK_WARNING])
        check_device(device)
        if output:
            check_report_path(output)
        depths = [check_bit_depth(depth) for depth in bits or ()]
        models = [load_model(name, device) for name in model]
        compared = load_model(reference, device) if reference else models[0]
        dataset = CocoDataset(data, split)
        share_detectors([compared, *models])
        named = [
            NamedModel.of(label, loaded)
            for label, loaded in zip(make_labels(models, model), models, strict=True)
        ]
        plain = uncompressed_variant(compared)
        variants: list[Variant] = [plain]
        for entry in named:
            # A first model without codec is the uncompressed detector itself.
            if entry.model is not compared or entry.model.msfc is not None:
                variants += entry.variants(depths)
        image_ids = dataset.image_ids[:limit]
        measured = measure_with_progress(
            dataset, variants, image_ids,
            output.with_name(f'{output.stem}_journal') if output else None,
            {'data': data_digest(data, split)}, replicates,
        )
        uncompressed, *_ = measured
        print_measurements(f'{", ".join(model)} on {data / split}', measured)
        if len(measured) > 1:
            print_differences(measured, uncompressed)
        notes = [QUICK_WARNING] if quick else []
        if not reference and compared.msfc is not None:
            notes.append(
                f'{uncompressed.variant} is the detector of {model[0]} itself, which may have '
                'been trained behind the codec: --reference takes another'
            )
        print_lines(notes)
        if output:
            write_measurements(
                output, measured, uncompressed,
                {
                    **describe_run(dataset, data, split, len(image_ids), replicates, notes),
                    'models': [entry.describe() for entry in named],
                    'reference_detector': NamedModel.of(
                        Path(reference or model[0]).name, SplitModel(compared.detector)
                    ).describe(),
                },
                {name: row for entry in named for name, row in entry.columns(depths).items()},
            )
