"""From a bag of compressed features to a bag of instances, without ROS.

The result has the messages that the cloud node publishes for the same features, but nothing is
tracked: a run that goes on in the middle could not tell who was who. A run that was
broken off goes on when it is started again: what it had done lies in a folder beside the output,
named as it with ``.partial`` behind, and is taken over from there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from msfc.bags.conversion import instances_message, labels_message, packet_of
from msfc.bags.definitions import INSTANCES, LABELS, output_topic, serialize, typestore
from msfc.bags.reading import BagError, BagMessage, FeatureBag
from msfc.bags.writing import BagWriter, qos
from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.references import KeyStore
from msfc.progress import Progress
from msfc.wire.packet import DecodeLimits, PacketError, ValidPacket

UNREADABLE = 'unreadable'
"""Reason of messages that are refused because they are none; the others are ``RefusalReason``."""


@dataclass
class InferenceReport:
    """What became of a bag.

    Attributes:
        decoded: messages whose instances were written, those taken over included.
        taken_over: of these, messages that an earlier run had done.
        refused: messages without a result, by reason.
        sentences: for each reason the first refusal in words.
        damage: what of the bag could not be read, in a sentence; empty if all could.
        topics: the topic of the instances for each topic of features.
    """

    decoded: int = 0
    taken_over: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    sentences: dict[str, str] = field(default_factory=dict)
    damage: str = ''
    topics: dict[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """All of them."""
        return self.decoded + self.refused.total()

    def refuse(self, reason: str, sentence: str) -> None:
        """Count a message without a result."""
        self.refused[reason] += 1
        self.sentences.setdefault(reason, sentence)


@dataclass(frozen=True)
class Pending:
    """Features whose instances are to be found.

    Attributes:
        valid: what they say, checked.
        header: of the camera image.
    """

    valid: ValidPacket
    header: Any


Found: TypeAlias = 'bytes | PacketError'
"""A serialised ``InstanceArray``, or why there is none."""

Finder: TypeAlias = 'Callable[[CloudPipeline, Iterable[Pending], float], Iterator[Found]]'
"""Finds instances that have at least a score. It may take many features before it gives the first
answer; answers have the order of the features."""


def infer_bag(
    path: Path,
    output: Path,
    model: SplitModel,
    topics: Sequence[str] = (),
    score_threshold: float = 0.5,
    limits: DecodeLimits | None = None,
    progress: Progress = lambda done, total: None,
) -> InferenceReport:
    """Find the instances in all features of a bag and write them as a bag.

    Topics are named as the cloud node names them, and messages have the times of the features.

    Args:
        path: the bag of features.
        output: the bag to make.
        model: the model that the features were made with.
        topics: topics of the features; by default all that there are.
        score_threshold: instances with a lower score are left out, as by the cloud node.
        limits: what to accept, as the cloud node's.
        progress: told how far it is.

    Raises:
        BagError: if there are no such features, or none of this model.
        ValueError: if the output exists, or another run's beginning of it.
    """
    pipeline = CloudPipeline(model, limits)
    (report,) = infer_bags(
        [(path, output)], pipeline, topics, score_threshold, find_here, progress
    )
    return report


def infer_bags(
    pairs: Sequence[tuple[Path, Path]],
    pipeline: CloudPipeline,
    topics: Sequence[str],
    score_threshold: float,
    find: Finder,
    progress: Progress,
    finished: Callable[[Path, InferenceReport], None] = lambda output, report: None,
) -> list[InferenceReport]:
    """Do what :func:`infer_bag` does for several bags, one after the other.

    Args:
        pairs: bags of features, and the bags to make of them.
        pipeline: of the model that the features were made with.
        topics: topics of the features; by default all that there are.
        score_threshold: instances with a lower score are left out.
        find: finds the instances.
        progress: told how many messages of all bags are done.
        finished: told of every bag that is complete, before it is put in its place.

    Raises:
        BagError: if a bag has no such features, or none of this model; nothing is written then.
        ValueError: if an output exists, or another run's beginning of it.
    """
    jobs = [_Job(path, output, pipeline, topics, score_threshold) for path, output in pairs]
    total = sum(job.total for job in jobs)
    done = 0
    waiting: deque[tuple[_Job, BagMessage]] = deque()

    def finish(job: _Job) -> None:
        # In this order: what is noted and not in its place is done again.
        finished(job.output, job.report)
        job.finish()

    def pending() -> Iterator[Pending]:
        nonlocal done
        for job in jobs:
            for message, item in job.read():
                if item is None:
                    done += 1
                    progress(done, total)
                else:
                    job.waiting += 1
                    waiting.append((job, message))
                    yield item
            job.complete = True
            if not job.waiting:
                finish(job)

    try:
        for found in find(pipeline, pending(), score_threshold):
            job, message = waiting.popleft()
            job.put(message, found)
            job.waiting -= 1
            done += 1
            progress(done, total)
            if job.complete and not job.waiting:
                finish(job)
    finally:
        for job in jobs:
            job.close()
    return [job.report for job in jobs]


def find_here(
    pipeline: CloudPipeline, pending: Iterable[Pending], score_threshold: float
) -> Iterator[Found]:
    """Find instances in this process, image by image."""
    for item in pending:
        try:
            (found,) = find_together(pipeline, [item], score_threshold)
        except PacketError as error:
            yield error
        else:
            yield found


def find_together(
    pipeline: CloudPipeline, items: Sequence[Pending], score_threshold: float
) -> list[bytes]:
    """Return the instances of images that are decoded at once, serialised.

    Raises:
        PacketError: if one cannot be decoded.
    """
    results = pipeline.decode_valid([item.valid for item in items])
    return [
        serialize(
            instances_message(
                result.instances.above(score_threshold), item.header,
                item.valid.packet.image_size, pipeline.model.class_names,
            ),
            INSTANCES,
        )
        for item, result in zip(items, results, strict=True)
    ]


class _Job:
    """A bag that is worked on.

    Args:
        path: of the features.
        output: the bag to make.
        pipeline: their receiver.
        topics: topics of the features; by default all that there are.
        score_threshold: instances with a lower score are left out.

    Attributes:
        output: the bag to make.
        total: number of its messages.
        waiting: messages that were read and have no answer yet.
        complete: whether all were read.
        report: what became of them so far.
    """

    def __init__(
        self, path: Path, output: Path, pipeline: CloudPipeline, topics: Sequence[str],
        score_threshold: float,
    ) -> None:
        if output.exists():
            raise ValueError(f'{output} exists already')
        self._path = path
        self.output = output
        self._pipeline = pipeline
        self._names = pipeline.model.class_names
        self._threshold = score_threshold
        with FeatureBag(path, topics) as bag:
            self._topics = bag.topics
            self.total = _survey(bag, pipeline.fingerprint)
            self._identity = identity(bag, pipeline, score_threshold)
        self.report = InferenceReport(
            topics={topic: output_topic(topic, 'instances') for topic in self._topics}
        )
        self.waiting = 0
        self.complete = False
        self._work: _Work | None = None
        self._writer: BagWriter | None = None
        self._open: set[str] = set()

    def read(self) -> Iterator[tuple[BagMessage, Pending | None]]:
        """Yield each message with what is to be found, None where nothing is left to be done."""
        self._work = _Work(self.output, self._identity)
        keys: defaultdict[str, KeyStore] = defaultdict(KeyStore)
        with FeatureBag(self._path, self._topics) as bag, self._work.earlier() as earlier:
            for message in bag.messages():
                yield message, self._take(bag, message, earlier, keys[message.topic])
            self.report.damage = bag.damage

    def _take(
        self, bag: FeatureBag, message: BagMessage, earlier: _Earlier, keys: KeyStore
    ) -> Pending | None:
        """Return what is to be found in a message that no earlier run has done."""
        try:
            features = bag.deserialize(message)
            # Key frames are read here, also those whose instances were taken over.
            valid = self._pipeline.validate(packet_of(features), keys)
        except PacketError as error:
            self.report.refuse(str(error.reason), str(error))
        except BagError as error:
            self.report.refuse(UNREADABLE, str(error))
        else:
            data = earlier.take(message)
            if data is None:
                return Pending(valid, features.header)
            self.report.taken_over += 1
            self.put(message, data)
        return None

    def put(self, message: BagMessage, found: Found) -> None:
        """Write the instances of a message, or count why there are none."""
        if isinstance(found, PacketError):
            self.report.refuse(str(found.reason), str(found))
            return
        writer = self._opened()
        self._add_topics(message, writer)
        writer.write(self.report.topics[message.topic], message.time, found)
        self.report.decoded += 1

    def finish(self) -> None:
        """Put the bag where it belongs."""
        self._opened()  # a bag without instances is one, too
        self.close()
        assert self._work is not None
        self._work.finish()

    def close(self) -> None:
        """Close what was written: the next run takes it over."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _opened(self) -> BagWriter:
        if self._writer is None:
            assert self._work is not None
            self._writer = BagWriter(self._work.bag)
        return self._writer

    def _add_topics(self, message: BagMessage, writer: BagWriter) -> None:
        """Write what the labels mean before the first instances of a topic."""
        if message.topic in self._open:
            return
        self._open.add(message.topic)
        writer.add_topic(self.report.topics[message.topic], INSTANCES)
        labels = output_topic(message.topic, 'label_info')
        writer.add_topic(labels, LABELS, (qos(latched=True),))
        made = labels_message(
            self._pipeline.fingerprint, self._names, self._threshold, message.time,
            self._pipeline.model.detector.keypoint_names,
        )
        writer.write(labels, message.time, serialize(made, LABELS))


def identity(
    bag: FeatureBag, pipeline: CloudPipeline, score_threshold: float
) -> dict[str, object]:
    """Return what the instances of a bag depend on, as JSON can hold it."""
    return {
        'bag': bag.path.resolve().name,
        'bag_bytes': bag.storage_bytes,
        'topics': list(bag.topics),
        'model': pipeline.fingerprint,
        'definition': typestore().hash_rihs01(INSTANCES),
        'score_threshold': score_threshold,
        'limits': asdict(pipeline.limits),
    }


class _Earlier:
    """The instances of an earlier run, in its order.

    Args:
        bag: what it wrote; None if there was none.
    """

    def __init__(self, bag: FeatureBag | None) -> None:
        self._bag = bag
        self._messages: Iterator[BagMessage] = iter(()) if bag is None else bag.messages()

    def __enter__(self) -> _Earlier:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bag is not None:
            self._bag.close()

    def take(self, features: BagMessage) -> bytes | None:
        """Return the next result if it is of these features; from the first that is not, None."""
        message = next(self._messages, None)
        if message is not None and (message.topic, message.time) == (
            output_topic(features.topic, 'instances'),
            features.time,
        ):
            return message.data
        self._messages = iter(())
        return None


class _Work:
    """The folder that a bag grows in until it is complete.

    Each start makes a bag of its own there, numbered, and takes over what the fullest of those
    before holds; so nothing is lost, whenever a run is broken off.

    Args:
        output: where the complete bag goes.
        identity: what the result depends on.

    Raises:
        ValueError: if another run's work is there, or something else.
    """

    def __init__(self, output: Path, identity: dict[str, object]) -> None:
        self._output = output
        self._folder = output.with_name(f'{output.name}.partial')
        note = self._folder / 'run.json'
        if note.is_file():
            found = json.loads(note.read_text())
            if found != identity:
                differing = ', '.join(key for key in identity if found.get(key) != identity[key])
                raise ValueError(
                    f'{self._folder} is the beginning of another run, with other {differing}: '
                    'remove it, or name another output'
                )
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = note.with_suffix('.tmp')
            if any(path != partial for path in self._folder.iterdir()):
                # It is removed in the end.
                raise ValueError(
                    f'{self._folder} is needed for the work and holds something else: move it '
                    'away, or name another output'
                )
            partial.write_text(json.dumps(identity, indent=2) + '\n')
            partial.replace(note)
        self._before = sorted(
            (path for path in self._folder.iterdir() if path.name.isdigit()),
            key=lambda path: int(path.name),
        )
        number = int(self._before[-1].name) + 1 if self._before else 1
        self.bag = self._folder / str(number) / output.name

    def earlier(self) -> _Earlier:
        """Return the results of the run before that got furthest."""
        bags = [path / self._output.name for path in self._before]
        counts = [_count(bag) for bag in bags]
        most = max(counts, default=0)
        best = bags[counts.index(most)] if most else None
        return _Earlier(None if best is None else FeatureBag(best, kind=INSTANCES))

    def finish(self) -> None:
        """Put the complete bag where it belongs."""
        self.bag.rename(self._output)
        shutil.rmtree(self._folder)


def _count(path: Path) -> int:
    """Return how many results a bag holds that a run left behind."""
    try:
        with FeatureBag(path, kind=INSTANCES) as bag:
            return sum(1 for _ in bag.messages())
    except BagError:
        return 0


def _survey(bag: FeatureBag, fingerprint: str) -> int:
    """Return the number of messages.

    Raises:
        BagError: if there are none, or none for this model.
    """
    models: Counter[str] = Counter()
    total = 0
    for message in bag.messages():
        total += 1
        try:
            models[packet_of(bag.deserialize(message)).model] += 1
        except BagError:
            models['none that can be read'] += 1
    if not total:
        raise BagError(f'{bag.path} has no message on {", ".join(bag.topics)}. {bag.damage}')
    if fingerprint not in models:
        made = ', '.join(f'{name} ({count} messages)' for name, count in models.most_common())
        raise BagError(
            f'{bag.path} holds no features of model {fingerprint}, which was given; its features '
            f'are for model {made}'
        )
    return total
