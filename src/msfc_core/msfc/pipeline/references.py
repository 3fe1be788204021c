"""Key frames: which one a frame refers to on the robot, which ones are kept behind the link.

A *key frame* decodes alone and names itself as its reference. Other frames may be coded against
one that the receiver has acknowledged, and against nothing else: never against a frame that is
coded against another, so that any frame but a key frame may be lost or left out. Nothing here
knows a link, a clock or torch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from msfc.wire.coder import Code, CodeShape, Key, PayloadCoder

NUMBERS = 2**32
"""Sequence numbers are taken modulo this."""

AWAITED = 8
"""Key frames on their way whose acknowledgement is waited for."""


@dataclass(frozen=True)
class Draft:
    """A payload that may be sent.

    Attributes:
        data: the payload.
        reference: number of the key frame that it is coded against; 0 if it is coded alone.
        key: what others can refer to; None if it is to be no key frame.
        rate: its own.
        shape: of its code.
        alone_bytes: what the frame takes without a reference.
    """

    data: bytes
    reference: int
    key: Key | None
    rate: int
    shape: CodeShape
    alone_bytes: int


class KeyFrames:
    """The robot's side: makes key frames, and codes other frames against them where that is less.

    A frame becomes a key frame

    * ``interval`` frames after the last one;
    * if the code's size is another than the last key frame's;
    * at a rate that is not the last key frame's but that of the frame before: at its own rate a
      key frame tells most;
    * after :meth:`request` or :meth:`restart`;
    * where none is acknowledged or fits, or the frame takes no more bytes alone.

    Those of another rate and of the last kind are at least ``interval`` / 8 frames apart. While
    no key frame is acknowledged, all frames are coded alone. May be used from several threads.

    Args:
        coder: writes the payloads.
        interval: frames from one key frame to the next; 0 for none, when all frames are coded
            alone.

    Raises:
        ValueError: the interval is negative, or the coder has no references.
    """

    def __init__(self, coder: PayloadCoder, interval: int = 0) -> None:
        self._coder = coder
        self._lock = threading.Lock()
        self._interval = 0
        self.restart()
        self.interval = interval

    @property
    def interval(self) -> int:
        """Frames from one key frame to the next; 0 for none. May be set."""
        return self._interval

    @interval.setter
    def interval(self, interval: int) -> None:
        self._interval = self.check_interval(interval)

    def check_interval(self, interval: int) -> int:
        """Return ``interval``.

        Raises:
            ValueError: it is negative, or the coder has no references.
        """
        if interval < 0:
            raise ValueError(f'the key frame interval is at least 0, got {interval}')
        if interval and not self._coder.uses_references:
            raise ValueError(
                f"the model's coding, {self._coder.coding}, has no references: the key frame "
                f'interval must be 0, got {interval}'
            )
        return interval

    @property
    def acknowledged(self) -> int:
        """The number of the key frame that frames are coded against; 0 if there is none."""
        with self._lock:
            return 0 if self._known is None else self._known[0]

    def restart(self) -> None:
        """Know of nothing before, as of a sender whose numbers begin anew."""
        with self._lock:
            self._known: tuple[int, Key] | None = None
            self._awaited: OrderedDict[int, Key] = OrderedDict()
            self._shape: CodeShape | None = None
            self._key_rate = self._last_rate = -1
            self._since = 0
            self._forced = True

    def request(self) -> None:
        """Send a key frame next, and refer no more to the one that frames were coded against.

        For a receiver that asks: it lacks that one.
        """
        with self._lock:
            self._known = None
            self._forced = True

    def acknowledge(self, sequence: int) -> None:
        """Take note of the key frame that the receiver has last taken up; of 0, that it has none.

        Numbers that are not known, such as those of an earlier start, mean nothing.
        """
        with self._lock:
            if sequence == 0:
                self._forced = self._forced or self._known is not None
                self._known = None
            elif sequence in self._awaited:
                while True:
                    number, key = self._awaited.popitem(last=False)
                    if number == sequence:
                        break
                self._known = (number, key)

    def draft(self, code: Code, rate: int) -> Draft:
        """Return the payload of a frame; nothing is remembered before :meth:`commit`.

        Args:
            code: C' x h x w float32.
            rate: one that the coder knows.

        Raises:
            ValueError: if the rate is unknown.
            PacketError: if a value is not a number.
        """
        shape: CodeShape = (code.shape[0], code.shape[1], code.shape[2])
        if not self._interval:
            data = self._coder.write(code, rate)
            return Draft(data, 0, None, rate, shape, len(data))
        data, key = self._coder.write_key(code, rate)
        with self._lock:
            known = self._known
            soon = self._since * AWAITED >= self._interval
            due = self._forced or shape != self._shape or self._since >= self._interval
            due = due or (soon and rate == self._last_rate != self._key_rate)
        if not due and known is not None and known[1].shape == shape:
            short = self._coder.write(code, rate, known[1])
            if len(short) < len(data):
                return Draft(short, known[0], None, rate, shape, len(data))
        return Draft(data, 0, key if due or soon else None, rate, shape, len(data))

    def commit(self, draft: Draft, sequence: int) -> int:
        """Take note that a payload is sent; call it once for each frame that is.

        Args:
            draft: the payload.
            sequence: number of its packet, 0 to 2**32 - 1.

        Returns:
            The ``reference`` of its packet.
        """
        if not self._interval:
            return draft.reference
        with self._lock:
            self._last_rate = draft.rate
            # 0 stands for no reference, so no key frame can have this number.
            if draft.key is None or not sequence:
                self._since += 1
                return draft.reference
            self._awaited[sequence] = draft.key
            while len(self._awaited) > AWAITED:
                self._awaited.popitem(last=False)
            self._shape, self._key_rate = draft.shape, draft.rate
            self._since, self._forced = 1, False
            return sequence


class KeyStore:
    """The receiver's side: the key frames of one sender, as many as there is room for.

    Those that were not referred to for longest go first. May be used from several threads.

    Args:
        max_keys: how many key frames are kept at most. With fewer than a sender awaits, one may
            be gone by the time that the sender knows of it.
        max_bytes: how much memory they take at most.

    Raises:
        ValueError: a limit is below 1.
    """

    def __init__(self, max_keys: int = AWAITED, max_bytes: int = 32 * 2**20) -> None:
        if min(max_keys, max_bytes) < 1:
            raise ValueError('a store of key frames has room for at least one and one byte')
        self._max_keys, self._max_bytes = max_keys, max_bytes
        self._lock = threading.Lock()
        self._keys: OrderedDict[int, Key] = OrderedDict()
        self._newest = 0
        self._wanted = False

    @property
    def acknowledged(self) -> int:
        """The number of the key frame that came last, for the sender; 0 if there is none."""
        with self._lock:
            return self._newest if self._newest in self._keys else 0

    @property
    def wanted(self) -> bool:
        """Whether a key frame was missing, and none has come since."""
        with self._lock:
            return self._wanted

    @property
    def nbytes(self) -> int:
        """The memory that the key frames take."""
        with self._lock:
            return sum(key.nbytes for key in self._keys.values())

    def __len__(self) -> int:
        with self._lock:
            return len(self._keys)

    def add(self, sequence: int, key: Key) -> None:
        """Keep a key frame; one that had its number before is replaced."""
        with self._lock:
            self._keys.pop(sequence, None)
            self._keys[sequence] = key
            self._newest, self._wanted = sequence, False
            used = sum(kept.nbytes for kept in self._keys.values())
            while len(self._keys) > self._max_keys or used > self._max_bytes:
                _, dropped = self._keys.popitem(last=False)
                used -= dropped.nbytes

    def find(self, sequence: int) -> Key | None:
        """Return the key frame of a number, which keeps it for longer, if it is here."""
        with self._lock:
            key = self._keys.get(sequence)
            if key is not None:
                self._keys.move_to_end(sequence)
            return key

    def miss(self) -> None:
        """Take note that a frame referred to a key frame that is not here."""
        with self._lock:
            self._wanted = True

    def restart(self, keep: int = 0) -> None:
        """Forget the key frames of a sender that counts anew: others will have their numbers.

        Args:
            keep: number of one that is of the new count already, if it came last; 0 for none.
        """
        with self._lock:
            kept = self._keys.get(keep) if keep == self._newest else None
            self._keys.clear()
            if kept is not None:
                self._keys[keep] = kept
            self._newest = keep if kept is not None else 0
            self._wanted = False

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._keys.clear()
            self._newest, self._wanted = 0, False
