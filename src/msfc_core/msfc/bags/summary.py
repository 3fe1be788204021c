"""What a bag of compressed features holds, and the space that it takes beside video."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from msfc.bags.key_ledger import KeyLedger
from msfc.bags.reading import BagError, FeatureBag

DAY = 86400.0
"""Seconds."""

RAW_BYTES = 3
"""Bytes per pixel of an image of three colours."""

RECORD_BYTES = 31
"""What MCAP adds to a message: kind, length, channel, sequence and two times."""


@dataclass
class TopicSummary:
    """The features on one topic.

    Attributes:
        topic: its name.
        messages: how many there are.
        seconds: from the first to the last, by the bag's times.
        message_bytes: bytes of all messages.
        payload_bytes: bytes of their ``data`` fields.
        missing: sequence numbers that are missing between neighbours.
        restarts: how often the sequence numbers began anew.
        unreadable: messages that are none.
        keys: key frames.
        referring: messages that are coded against a key frame.
        orphans: of these, those whose key frame is not before them in the bag: they cannot be
            decoded.
        models: fingerprints of the models, with the number of messages.
        points: operating points in words, with the number of messages.
        raw_bytes: bytes of the camera images as they are.
    """

    topic: str
    messages: int = 0
    seconds: float = 0.0
    message_bytes: int = 0
    payload_bytes: int = 0
    missing: int = 0
    restarts: int = 0
    unreadable: int = 0
    keys: int = 0
    referring: int = 0
    orphans: int = 0
    models: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    raw_bytes: int = 0
    _first: int | None = None
    _sequence: int | None = None
    _ledger: KeyLedger = field(default_factory=KeyLedger)

    @property
    def rate(self) -> float:
        """Messages per second; 0 where there is only one."""
        return (self.messages - 1) / self.seconds if self.seconds > 0 else 0.0

    def add(self, time: int, length: int, message: Any) -> None:
        """Count a message.

        Args:
            time: when it was recorded, in nanoseconds.
            length: its bytes.
            message: the message, deserialised.

        Raises:
            AttributeError: if it is of another version and lacks a field; nothing is counted.
        """
        point = (
            f"image {message.image_width} x {message.image_height}, C' = {message.channels}, "
            f'{message.feature_width} x {message.feature_height} cells, rate {message.rate}'
        )
        sequence, payload_bytes, model = message.sequence, len(message.data), message.model
        reference = message.reference
        self._first = time if self._first is None else self._first
        self.seconds = max(self.seconds, (time - self._first) * 1e-9)
        self.messages += 1
        self.message_bytes += length
        self.payload_bytes += payload_bytes
        self.raw_bytes += RAW_BYTES * message.image_height * message.image_width
        self.models[model] += 1
        self.points[point] += 1
        if self._sequence is not None:
            step = (sequence - self._sequence) % 2**32
            if 0 < step < 2**31:
                self.missing += step - 1
            else:
                self.restarts += 1
        self._sequence = sequence
        self._ledger.note(sequence, reference)
        self.keys, self.referring = self._ledger.keys, self._ledger.referring
        self.orphans = self._ledger.orphans


@dataclass
class BagSummary:
    """What a bag holds.

    Attributes:
        storage_bytes: bytes of its files.
        topics: the features.
        others: messages of other topics.
        damage: what of it cannot be read, in a sentence.
    """

    storage_bytes: int
    topics: list[TopicSummary]
    others: dict[str, int]
    damage: str

    def bag_bytes_per_message(self, topic: TopicSummary) -> float:
        """Return the bytes that a message takes in a bag.

        Measured where the bag holds nothing else; else the message and what MCAP adds to it.
        """
        if not self.others and len(self.topics) == 1 and topic.messages:
            return self.storage_bytes / topic.messages
        return topic.message_bytes / max(topic.messages, 1) + RECORD_BYTES

    def bytes_per_day(self, topic: TopicSummary) -> float:
        """Return the bytes that a day of these features takes in a bag; 0 if no rate is known."""
        return self.bag_bytes_per_message(topic) * topic.rate * DAY

    def raw_seconds_per_day(self, topic: TopicSummary) -> float:
        """Return the seconds of the camera's raw images in the space of a day of features."""
        raw = topic.raw_bytes / max(topic.messages, 1) * topic.rate
        return self.bytes_per_day(topic) / raw if raw else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        rows = []
        for topic in self.topics:
            row = {key: value for key, value in vars(topic).items() if key[0] != '_'}
            row |= {
                'rate': topic.rate,
                'bag_bytes_per_message': self.bag_bytes_per_message(topic),
                'bytes_per_day': self.bytes_per_day(topic),
                'raw_seconds_per_day': self.raw_seconds_per_day(topic),
            }
            rows.append(row)
        return {
            'storage_bytes': self.storage_bytes,
            'topics': rows,
            'others': self.others,
            'damage': self.damage,
        }


def summarize(bag: FeatureBag) -> BagSummary:
    """Read all features of a bag and return what they are."""
    topics = {topic: TopicSummary(topic) for topic in bag.topics}
    for message in bag.messages():
        summary = topics[message.topic]
        try:
            summary.add(message.time, len(message.data), bag.deserialize(message))
        except (BagError, AttributeError):
            summary.unreadable += 1
    return BagSummary(bag.storage_bytes, list(topics.values()), bag.others, bag.damage)
