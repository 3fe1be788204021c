"""The command ``msfc importance``: what each pyramid level counts (Fig. 3, Table 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfc.cli.console import check_device, print_lines, print_table, report_errors
from msfc.cli.measuring import (
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

# The heavy imports (torch, matplotlib) are in the command, so that --help answers at once.

VARIANCE_IMAGES = 50  # that the scale of the features is taken from


def importance(
    model: Annotated[str, typer.Argument(help='Model folder, or name of a shipped model.')],
    data: DataFolder,
    output: Output,
    split: Split = 'test',
    variance: Annotated[
        float, typer.Option(help="Of the noise; 100 is the paper's, for features of its scale.")
    ] = 100.0,
    relative: Annotated[
        bool,
        typer.Option('--relative', help="Take the variance as multiple of the features' own, the "
                                        "mean of the levels' variances."),
    ] = False,
    limit: Images = None,
    replicates: Replicates = 1000,
    device: Device = 'cpu',
    quick: Quick = False,
) -> None:
    """Add noise to each pyramid level in turn (Fig. 3), and print the sizes (Table 1).

    The detector is measured without its codec. Goes on where a broken run ended.
    """
    with report_errors():
        from msfc.data import CocoDataset
        from msfc.evaluation.importance import importance_variants, level_variances, size_table
        from msfc.evaluation.model_set import NamedModel
        from msfc.evaluation.plots import plot_importance
        from msfc.evaluation.report import data_digest, write_measurements
        from msfc.evaluation.variants import network_size
        from msfc.model_file import load_model

        output, limit, notes = quick_run(quick, output, limit)
        check_device(device)
        dataset = CocoDataset(data, split)
        loaded = load_model(model, device)
        detector = loaded.detector
        image_ids = dataset.image_ids[:limit]
        scale = level_variances(detector, dataset, image_ids[:VARIANCE_IMAGES])
        # The last digits differ from run to run, and a run must find its own journal again.
        used = float(f'{variance * scale.pooled():.4g}') if relative else variance
        named = NamedModel.of(Path(model).name, loaded)
        variants = importance_variants(detector, used)
        measured = measure_with_progress(
            dataset, variants, image_ids, output / 'journal',
            {
                'data': data_digest(data, split),
                'detector': named.identity,
                'variance': used,
            },
            replicates,
        )
        clean, *noisy = measured
        image = dataset.read_image(0)
        size = network_size(detector)((image.shape[0], image.shape[1]))
        sizes = size_table(detector, size, loaded)
        write_measurements(
            output / 'importance.json', measured, clean,
            {
                **describe_run(dataset, data, split, len(image_ids), replicates, notes),
                'models': [named.describe()],
                'variance': used,
                'feature_variances': scale.variances(),
                'sizes': [row.to_dict() for row in sizes],
            },
        )
        print_measurements(f'noise of variance {used:.4g} on each level', measured)
        print_table(
            f'sizes, and ratios to the image, at a network input of {size[0]} x {size[1]}',
            ('', 'shape', 'elements', 'ratio', 'bits', 'ratio'),
            [
                (
                    row.name, 'x'.join(map(str, row.shape or ())), f'{row.elements:,}',
                    f'{row.elements_ratio:.3g}', f'{row.bits:,}', f'{row.bits_ratio:.3g}',
                )
                for row in sizes
            ],
        )
        for suffix in ('png', 'pdf'):
            plot_importance(
                {
                    entry.variant.removeprefix('noise on '): kinds(entry) for entry in noisy
                },
                kinds(clean),
                output / f'importance.{suffix}',
                f'Gaussian noise of variance {used:.4g} on one level',
            )
        print_lines([*notes, f'tables and plots: {output}'])
