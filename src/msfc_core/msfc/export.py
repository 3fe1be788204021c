"""Makes of a trained model what is shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msfc.model import SplitModel
from msfc.model_file import load_model, save_model
from msfc.output import check_output_folder


def export_model(
    source: str,
    destination: Path,
    rate: int | None = None,
    figures: Path | None = None,
    note: str = '',
    detector_only: bool = False,
    detector_from: str | None = None,
) -> str:
    """Write a model in half precision.

    Args:
        source: folder of the model, such as a training step, or name of a shipped one.
        destination: folder to write.
        rate: its default rate; the model's own if None.
        figures: JSON of ``msfc evaluate``, kept with the model.
        note: what the model is and how it was made.
        detector_only: leave the codec out, as after the first step.
        detector_from: leave the detector out: it is that of this model, a shipped one or one in a
            folder beside ``destination``, see :func:`msfc.model_file.save_model`.

    Returns:
        The fingerprint of what was written.

    Raises:
        OSError: a file is missing or cannot be written.
        ValueError: nothing would be left, the source would be overwritten, or something is not
            what it should be.
    """
    if detector_only and detector_from is not None:
        raise ValueError('a detector alone cannot leave its detector out')
    if destination.is_dir() and Path(source).is_dir() and destination.samefile(source):
        raise ValueError(f'{destination} would be overwritten: choose another destination')
    check_output_folder(destination)
    extra: dict[str, Any] = {'note': note} if note else {}
    if figures:
        extra['figures'] = _read_json(figures)
    model = load_model(source)
    if detector_only:
        model = SplitModel(model.detector)
    if rate is not None:
        model.rate = model.require_codec().coder().check_rate(rate)
    return save_model(model, destination, half=True, extra=extra, detector_from=detector_from)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8-sig'))
    except ValueError as error:
        raise ValueError(f'{path} is not JSON: {error}') from error
