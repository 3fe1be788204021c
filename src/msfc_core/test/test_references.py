"""Key frames: what a sender refers to, what a receiver keeps, and that nothing decodes wrongly."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msfc.pipeline.references import AWAITED, KeyFrames, KeyStore
from msfc.wire.coder import Key
from msfc.wire.packed import PackedCoder
from referring import ReferringCoder

RATE = 8
SHAPE = (2, 3, 4)


def code(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return a code; those of one hundred are nearly alike."""
    values = np.random.default_rng(seed // 100).uniform(-1, 1, shape).astype(np.float32)
    values.ravel()[0] = (seed % 100) / 100
    return values


def key(bytes_: int = 10, digest: int = 0) -> Key:
    return Key((1, 1, 1), 8, np.zeros(bytes_ // 2, np.int16), np.zeros(0, np.int16), digest)


class Sender:
    """A sender at work."""

    def __init__(self, interval: int = 10, first: int = 1) -> None:
        self.coder = ReferringCoder()
        self.keys = KeyFrames(self.coder, interval)
        self.sequence = first

    def send(self, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> int:
        """Send a frame and return its reference."""
        draft = self.keys.draft(code(seed, shape), RATE)
        reference = self.keys.commit(draft, self.sequence)
        self.sequence = (self.sequence + 1) % 2**32
        return reference


def test_without_an_interval_every_frame_is_alone() -> None:
    sender = Sender(0)
    assert [sender.send(seed) for seed in range(5)] == [0] * 5
    sender.keys.acknowledge(1)
    assert sender.send() == 0
    assert KeyFrames(PackedCoder()).draft(code(), RATE).key is None


def test_nothing_is_referred_to_before_it_is_acknowledged() -> None:
    sender = Sender(16)
    # A key frame every second, a sixteenth of the interval and eight.
    assert [sender.send(seed) for seed in range(5)] == [1, 0, 3, 0, 5]
    sender.keys.acknowledge(2)  # no key frame
    assert sender.send() == 0
    sender.keys.acknowledge(3)
    assert sender.keys.acknowledged == 3
    assert [sender.send(seed) for seed in range(5)] == [3] * 5


def test_key_frames_come_at_their_interval_and_are_taken_up_when_acknowledged() -> None:
    sender = Sender(5)
    assert sender.send() == 1
    sender.keys.acknowledge(1)
    assert [sender.send(seed) for seed in range(7)] == [1, 1, 1, 1, 6, 1, 1]
    sender.keys.acknowledge(6)
    assert sender.send() == 6
    sender.keys.acknowledge(1)  # late
    assert sender.keys.acknowledged == 6
    assert [sender.send() for _ in range(3)] == [6, 11, 6]


def test_the_shorter_payload_is_sent() -> None:
    sender = Sender(100)
    sender.send(0)
    sender.keys.acknowledge(1)
    drafts = [sender.keys.draft(code(seed), RATE) for seed in (1, 100)]
    assert [len(draft.data) for draft in drafts] == [7, 24]
    assert [draft.alone_bytes for draft in drafts] == [24, 24]
    assert [draft.reference for draft in drafts] == [1, 0]
    # A new scene: what is sent alone becomes a key frame, though not each of it.
    scenes = [sender.send(100 * (1 + index)) for index in range(30)]
    assert [number for number in scenes if number] == [14, 27]


def test_drafts_change_nothing() -> None:
    sender = Sender(100)
    first = sender.keys.draft(code(), RATE)
    again = sender.keys.draft(code(), RATE)
    assert again.data == first.data
    assert first.key is not None
    assert again.key is not None
    assert sender.keys.commit(first, 1) == 1
    assert sender.keys.draft(code(), RATE).key is None


def test_another_size_takes_a_key_frame() -> None:
    sender, wide = Sender(100), (2, 3, 5)
    sender.send()
    sender.keys.acknowledge(1)
    assert sender.send() == 1
    assert sender.send(0, wide) == 3
    assert sender.send(0, wide) == 0
    sender.keys.acknowledge(3)
    assert sender.send(0, wide) == 3


def test_a_rate_that_stays_takes_a_key_frame() -> None:
    sender = Sender(80)
    sender.send()
    sender.keys.acknowledge(1)
    sent = []
    for rate in (8,) * 12 + (4, 8) * 6 + (4,) * 9:
        draft = sender.keys.draft(code(), rate)
        sent.append(sender.keys.commit(draft, len(sent) + 2))
    # The second of those that stay; until it is acknowledged the other rate's is as good as any.
    assert sent == [1] * 25 + [27] + [1] * 7


def test_what_is_asked_for_is_sent_next() -> None:
    sender = Sender(100)
    sender.send()
    sender.keys.acknowledge(1)
    assert sender.send() == 1
    sender.keys.request()
    assert [sender.send(), sender.send()] == [3, 0]
    # Asked again before the first answer came.
    sender.keys.request()
    assert [sender.send(), sender.send()] == [5, 0]
    sender.keys.acknowledge(3)
    assert sender.send() == 3


def test_a_receiver_that_has_none_is_not_referred_to() -> None:
    sender = Sender(100)
    sender.keys.acknowledge(0)
    sender.send()
    sender.keys.acknowledge(1)
    sender.keys.acknowledge(0)  # restarted
    assert [sender.send(), sender.send()] == [2, 0]


def test_a_restart_forgets() -> None:
    sender = Sender(100)
    sender.send()
    sender.keys.acknowledge(1)
    sender.keys.restart()
    sender.sequence = 0
    assert sender.keys.acknowledged == 0
    assert [sender.send() for _ in range(3)] == [0, 1, 0]
    sender.keys.acknowledge(77)  # of before
    assert sender.send() == 0


def test_numbers_wrap_around_and_0_is_never_a_key_frame() -> None:
    sender = Sender(3, first=2**32 - 2)
    assert sender.send() == 2**32 - 2
    sender.keys.acknowledge(2**32 - 2)
    assert [sender.send() for _ in range(4)] == [2**32 - 2] * 2 + [1, 2**32 - 2]
    sender.keys.acknowledge(1)
    assert sender.send() == 1


def test_few_key_frames_are_awaited() -> None:
    sender = Sender(1)
    for _ in range(AWAITED + 1):
        sender.send()
    sender.keys.acknowledge(1)
    assert sender.keys.acknowledged == 0
    sender.keys.acknowledge(2)
    assert sender.keys.acknowledged == 2


def test_an_interval_can_be_set_where_there_are_references() -> None:
    sender = Sender(0)
    sender.keys.interval = 4
    assert sender.send() == 1
    for keys, interval, words in (
        (sender.keys, -1, 'at least 0'), (KeyFrames(PackedCoder()), 4, 'has no references'),
    ):
        with pytest.raises(ValueError, match=words):
            keys.interval = interval
    assert sender.keys.interval == 4


def test_a_store_keeps_what_is_used() -> None:
    store = KeyStore(max_keys=2)
    assert (store.acknowledged, store.wanted, len(store)) == (0, False, 0)
    first, second, third = key(digest=1), key(digest=2), key(digest=3)
    store.add(5, first)
    store.add(9, second)
    assert store.find(5) is first
    store.add(4, third)  # the sender has begun anew
    assert store.acknowledged == 4
    assert store.find(9) is None
    assert store.find(5) is first
    store.add(5, second)
    assert store.find(5) is second
    assert len(store) == 2
    store.clear()
    assert (store.acknowledged, store.wanted, len(store)) == (0, False, 0)


def test_a_store_is_bounded() -> None:
    store = KeyStore(max_keys=100, max_bytes=100)
    for sequence in range(1, 50):
        store.add(sequence, key(30))
        assert store.nbytes <= 100
    assert len(store) == 3
    store.add(50, key(102))  # too large at all
    assert (len(store), store.acknowledged) == (0, 0)
    with pytest.raises(ValueError, match='at least one'):
        KeyStore(0)


def test_a_store_wants_what_was_missed() -> None:
    store = KeyStore()
    store.miss()
    assert store.wanted
    store.add(3, key())
    assert not store.wanted
    assert store.acknowledged == 3


def test_a_sender_that_counts_anew_means_other_key_frames() -> None:
    store = KeyStore()
    store.add(5, key())
    store.add(9, key())
    store.miss()
    store.restart()
    assert (len(store), store.acknowledged, store.wanted) == (0, 0, False)
    # A recording is played again, and the second message tells so.
    last = key()
    store.add(9, key())
    store.add(4, last)
    store.restart(keep=4)
    assert store.find(4) is last
    assert (len(store), store.acknowledged) == (1, 4)
    # Not the one that came last, so of before.
    store.add(9, key())
    store.restart(keep=4)
    assert len(store) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from('slrRcq'), min_size=5, max_size=80),
    st.integers(1, 12), st.integers(0, 4), st.integers(0, 2**32 - 1),
)
def test_nothing_is_decoded_wrongly(events: str, interval: int, delay: int, first: int) -> None:
    """Whatever is lost, late or restarted: a frame is decoded as it was coded, or not at all.

    ``s`` sends a frame, ``l`` one that is lost, ``r`` restarts the receiver and ``R`` the sender,
    ``c`` makes another scene, ``q`` asks for a key frame. Reports are ``delay`` frames late.
    """
    sender, store, coder = Sender(interval, first), KeyStore(), ReferringCoder()
    reports: deque[tuple[int, bool]] = deque([(0, False)] * delay)
    seed = missed = 0
    for event in events:
        if event == 'r':
            store.clear()
        elif event == 'R':
            sender.keys.restart()
            sender.sequence = first
        elif event == 'q':
            sender.keys.request()
        elif event == 'c':
            seed += 100
        else:
            seed += 1
            sent = code(seed)
            draft = sender.keys.draft(sent, RATE)
            reference = sender.keys.commit(draft, sender.sequence)
            number, sender.sequence = sender.sequence, (sender.sequence + 1) % 2**32
            if event == 's':
                missed += not received(store, coder, number, reference, draft.data, sent)
            reports.append((store.acknowledged, store.wanted))
            acknowledged, wanted = reports.popleft()
            sender.keys.acknowledge(acknowledged)
            if wanted:
                sender.keys.request()
    if not {'r', 'R'} & {*events}:
        assert missed == 0


def received(
    store: KeyStore, coder: ReferringCoder, number: int, reference: int, data: bytes,
    sent: np.ndarray,
) -> bool:
    """Receive a frame as the cloud does; return whether it was decoded."""
    if reference in (0, number):
        read, made = coder.read_key(data, SHAPE, RATE)
        if reference:
            store.add(number, made)
    else:
        found = store.find(reference)
        if found is None or not coder.refers_to(data, found):
            store.miss()
            return False
        read = coder.read(data, SHAPE, RATE, found)
    np.testing.assert_array_equal(read, coder.read(coder.write(sent, RATE), SHAPE, RATE))
    return True
