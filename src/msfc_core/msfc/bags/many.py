"""Many bags of compressed features to a folder of bags of instances.

An interrupted run is resumed: bags that are complete lie in a folder beside the output, named
as it with ``.partial`` behind, and stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msfc.bags.inference import Finder, InferenceReport, find_here, identity, infer_bags
from msfc.bags.reading import FeatureBag
from msfc.journal import Journal
from msfc.pipeline.cloud import CloudPipeline
from msfc.progress import Progress

JOURNAL = 'run.jsonl'
"""What is complete; the first line has what the results depend on."""

_RUN = ''


def infer_many(
    paths: Sequence[Path],
    output: Path,
    pipeline: CloudPipeline,
    topics: Sequence[str] = (),
    score_threshold: float = 0.5,
    find: Finder = find_here,
    progress: Progress = lambda done, total: None,
) -> dict[Path, InferenceReport]:
    """Find the instances in all features of several bags and write a bag for each.

    Args:
        paths: the bags of features; no two have the same name.
        output: folder to make. In it each bag of instances has the name of its bag of features.
        pipeline: of the model that the features were made with.
        topics: topics of the features, in every bag; by default all that there are.
        score_threshold: instances with a lower score are left out, as by the cloud node.
        find: finds the instances.
        progress: told how far it is, all bags together.

    Returns:
        What became of each bag.

    Raises:
        BagError: if a bag has no such features, or none of this model.
        ValueError: if the output exists, or another run's beginning of it, or two bags would
            have the same name.
    """
    if output.exists():
        raise ValueError(f'{output} exists already')
    places = _places(paths)
    identities: dict[str, Any] = {}
    for name, path in places.items():
        with FeatureBag(path, topics) as bag:
            identities[name] = identity(bag, pipeline, score_threshold)
    folder = output.with_name(f'{output.name}.partial')
    with _opened(folder, identities) as journal:
        done = {name for name in places if name in journal and (folder / name).exists()}
        reports = {places[name]: _report(journal[name]) for name in places if name in done}
        pairs = [(path, folder / name) for name, path in places.items() if name not in done]
        before = sum(report.messages for report in reports.values())

        def finished(made: Path, report: InferenceReport) -> None:
            journal.write(made.name, {**vars(report), 'refused': dict(report.refused)})

        made = infer_bags(
            pairs, pipeline, topics, score_threshold, find,
            lambda number, total: progress(before + number, before + total), finished,
        )
    reports |= {path: report for (path, _), report in zip(pairs, made, strict=True)}
    (folder / JOURNAL).unlink()
    folder.rename(output)
    return {path: reports[path] for path in paths}


def _places(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the bags by their names.

    Raises:
        ValueError: two have the same.
    """
    places: dict[str, Path] = {}
    for path in paths:
        name = path.resolve().name
        if name in places:
            raise ValueError(
                f'{places[name]} and {path} have the same name, and so would their bags of '
                'instances: rename one, or take them in two runs'
            )
        places[name] = path
    return places


@contextmanager
def _opened(folder: Path, identities: dict[str, Any]) -> Iterator[Journal]:
    """Open the folder that the bags grow in; give what is complete there.

    Raises:
        ValueError: another run's work is there, or something else.
    """
    there = folder.exists() and any(folder.iterdir())
    if there and not (folder / JOURNAL).is_file():
        raise ValueError(
            f'{folder} is needed for the work and holds something else: move it away, or name '
            'another output'
        )
    with Journal(folder / JOURNAL) as journal:
        if _RUN not in journal:
            journal.write(_RUN, identities)
        elif journal[_RUN] != identities:
            raise ValueError(
                f'{folder} is the beginning of another run, with other bags or settings: remove '
                'it, or name another output'
            )
        yield journal


def _report(values: dict[str, Any]) -> InferenceReport:
    return InferenceReport(**{**values, 'refused': Counter(values['refused'])})
