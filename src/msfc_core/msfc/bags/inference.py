"""From a bag of compressed features to a bag of instances, without ROS.

The result has the messages that the cloud node publishes for the same features, but nothing is
tracked: a run that goes on in the middle could not tell who was who. A run that was
broken off goes on when it is started again: what it had done lies in a folder beside the output,
named as it with ``.partial`` behind, and is taken over from there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

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

    def refuse(self, reason: str, sentence: str) -> None:
        """Count a message without a result."""
        self.refused[reason] += 1
        self.sentences.setdefault(reason, sentence)


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
    if output.exists():
        raise ValueError(f'{output} exists already')
    with FeatureBag(path, topics) as bag:
        pipeline = CloudPipeline(model, limits)
        total = _survey(bag, pipeline.fingerprint)
        identity = {
            'bag': path.resolve().name,
            'bag_bytes': bag.storage_bytes,
            'topics': list(bag.topics),
            'model': pipeline.fingerprint,
            'definition': typestore().hash_rihs01(INSTANCES),
            'score_threshold': score_threshold,
            'limits': asdict(pipeline.limits),
        }
        work = _Work(output, identity)
        job = _Inference(bag, pipeline, score_threshold)
        with work.earlier() as earlier, BagWriter(work.bag) as writer:
            for done, message in enumerate(bag.messages(), 1):
                job.write(message, writer, earlier)
                progress(done, total)
        job.report.damage = bag.damage
        work.finish()
        return job.report


class _Inference:
    """One run.

    Args:
        bag: the features.
        pipeline: their receiver.
        score_threshold: instances with a lower score are left out.
    """

    def __init__(self, bag: FeatureBag, pipeline: CloudPipeline, score_threshold: float) -> None:
        self._bag = bag
        self._pipeline = pipeline
        self._names = pipeline.model.class_names
        self._threshold = score_threshold
        self.report = InferenceReport(
            topics={topic: output_topic(topic, 'instances') for topic in bag.topics}
        )
        self._open: set[str] = set()
        self._keys: defaultdict[str, KeyStore] = defaultdict(KeyStore)

    def write(self, message: BagMessage, writer: BagWriter, earlier: _Earlier) -> None:
        """Write the instances of a message, or count why there are none."""
        try:
            features = self._bag.deserialize(message)
            packet = packet_of(features)
            # Key frames are read here, also those whose instances were taken over.
            valid = self._pipeline.validate(packet, self._keys[message.topic])
            data = earlier.take(message)
            if data is None:
                data = self._infer(valid, features.header)
            else:
                self.report.taken_over += 1
        except PacketError as error:
            self.report.refuse(str(error.reason), str(error))
        except BagError as error:
            self.report.refuse(UNREADABLE, str(error))
        else:
            self._add_topics(message, features.header, writer)
            writer.write(self.report.topics[message.topic], message.time, data)
            self.report.decoded += 1

    def _infer(self, valid: ValidPacket, header: object) -> bytes:
        (result,) = self._pipeline.decode_valid([valid])
        found = result.instances.above(self._threshold)
        made = instances_message(found, header, valid.packet.image_size, self._names)
        return serialize(made, INSTANCES)

    def _add_topics(self, message: BagMessage, header: object, writer: BagWriter) -> None:
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
