"""Budgets: no message is larger, no second has more, and each frame has the best that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learned_reference import formula_arrays
from msfc.pipeline.edge import EdgeFrame, EdgePipeline
from msfc.pipeline.edge_network import EdgeOutput
from msfc.pipeline.rate_control import (
    LEAST_BYTES,
    Budget,
    RateController,
    SkipReason,
    TokenBucket,
)
from msfc.types import ImageSizes
from msfc.wire.coder import PayloadCoder
from msfc.wire.learned import LearnedCoder
from msfc.wire.message_size import PACKET_BYTES, compressed_feature_bytes
from msfc.wire.packed import PackedCoder

SLICES = (1, 2)
RATES = 5
AROUND = compressed_feature_bytes(0, '')


def learned_coder() -> LearnedCoder:
    """Return a learned coder without training, whose gains rise with the rate as trained ones."""
    arrays = formula_arrays(SLICES, rates=RATES)
    arrays['log_gain'] = arrays['log_gain'] / 4 + np.arange(RATES)[:, None].astype(np.float32)
    return LearnedCoder(arrays, SLICES)


CODERS: dict[str, PayloadCoder] = {'learned': learned_coder(), 'packed': PackedCoder()}


class Clock:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Lengths:
    """A frame whose payloads have given lengths, by rate."""

    lengths: list[int]
    expected: list[float] | None = None
    fixed_length: bool = False
    asked: set[int] = field(default_factory=set)

    def expected_bytes(self, rate: int) -> float:
        return float((self.expected or self.lengths)[rate])

    def payload_bytes(self, rate: int) -> int:
        self.asked.add(rate)
        return self.lengths[rate]


def frame_of(coder: PayloadCoder, seed: int, spread: float = 1.0, side: int = 6) -> EdgeFrame:
    """Return a frame whose code is noise, 3 x side x side."""
    code = np.random.default_rng(seed).normal(0, spread, (3, side, side)).astype(np.float32)
    sizes = ImageSizes(((32, 32),), ((32, 32),), (32, 32))
    durations = {'preprocess': 0.1, 'backbone': 0.2, 'encode': 0.3}
    return EdgeFrame(EdgeOutput(code, sizes, durations), (32, 32), coder, '0123456789abcdef')


def brute_force(frame: Lengths | EdgeFrame, rates: list[int], most: float) -> int | None:
    """Return the best rate that fits, by asking all."""
    fitting = [rate for rate in rates if AROUND + frame.payload_bytes(rate) <= most]
    return fitting[-1] if fitting else None


rising = st.lists(st.integers(1, 3000), min_size=1, max_size=12).map(sorted)


@settings(max_examples=300)
@given(
    rising, st.integers(LEAST_BYTES, 3000),
    st.one_of(st.none(), st.lists(st.floats(0, 3000), min_size=12, max_size=12)),
    rising,
)  # fmt: skip
def test_the_best_that_fits_is_chosen_with_few_writes(
    lengths: list[int], limit: int, expected: list[float] | None, before: list[int]
) -> None:
    """Whatever is expected, and whatever the frame before was like."""
    controller = RateController(Clock(), Budget(limit))
    controller.choose(Lengths(before), range(len(before)))
    frame = Lengths(lengths, expected)
    choice = controller.choose(frame, range(len(lengths)))
    asked = set(frame.asked)
    assert choice.rate == brute_force(frame, list(range(len(lengths))), limit)
    assert len(asked) <= 2 + math.ceil(math.log2(len(lengths) + 1))
    if choice.rate is None:
        assert choice.reason is SkipReason.MESSAGE_LIMIT
    else:
        assert choice.message_bytes == AROUND + lengths[choice.rate] <= limit
        assert choice.used == choice.message_bytes / limit


@settings(max_examples=300)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=12), st.integers(LEAST_BYTES, 3000))
def test_lengths_that_do_not_rise(lengths: list[int], limit: int) -> None:
    """The limit holds, the next better rate does not fit, and only the cheapest is decisive."""
    choice = RateController(Clock(), Budget(limit)).choose(Lengths(lengths), range(len(lengths)))
    if choice.rate is None:
        assert AROUND + lengths[0] > limit
        return
    assert choice.message_bytes <= limit
    if choice.rate + 1 < len(lengths):
        assert AROUND + lengths[choice.rate + 1] > limit


def test_a_right_guess_takes_two_writes() -> None:
    """The answer, and the next better rate that shows that it is the best."""
    lengths = [100, 200, 400, 800, 1600, 3200]
    controller = RateController(Clock(), Budget(AROUND + 500))
    for scale in (1, 1.1, 0.9):
        frame = Lengths([int(length * scale) for length in lengths], [*map(float, lengths)])
        assert controller.choose(frame, range(6)).rate == 2
        assert frame.asked == {2, 3}


def test_no_budget_takes_the_best_and_writes_it_alone() -> None:
    frame = Lengths([10, 20, 100_000])
    choice = RateController(Clock(), Budget(0)).choose(frame, range(3))
    assert (choice.rate, choice.message_bytes) == (2, AROUND + 100_000)
    assert (choice.allowed_bytes, choice.used) == (math.inf, 0)
    assert frame.asked == {2}


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(CODERS)), st.integers(0, 999), st.floats(0.05, 3),
    st.integers(LEAST_BYTES, 700), st.text(max_size=5),
)  # fmt: skip
def test_messages_of_real_coders(
    kind: str, seed: int, spread: float, limit: int, frame_id: str
) -> None:
    coder = CODERS[kind]
    frame, again = frame_of(coder, seed, spread), frame_of(coder, seed, spread)
    choice = RateController(Clock(), Budget(limit)).choose(frame, coder.rates, frame_id)
    around = compressed_feature_bytes(0, frame_id)
    fitting = [rate for rate in coder.rates if around + len(again.payload(rate)) <= limit]
    assert len(frame.written) <= (4 if kind == 'learned' else 0)
    if choice.rate is None:
        assert coder.rates[0] not in fitting
        return
    packet = frame.packet(choice.rate, 7)
    assert choice.message_bytes == compressed_feature_bytes(packet.payload_bytes, frame_id)
    assert choice.message_bytes <= limit
    assert choice.rate == max(fitting)
    expected = again.packet(choice.rate, 7)
    assert packet == replace(expected, pack_time=packet.pack_time)


class Counting(PackedCoder):
    """Counts what is written; pretends that lengths are not known before."""

    fixed_length = False

    def __init__(self) -> None:
        self.rates_written: list[int] = []

    def write(self, code: object, rate: int, reference: object = None) -> bytes:
        self.rates_written.append(rate)
        return super().write(code, rate)  # type: ignore[arg-type]


def test_the_network_runs_once_and_no_payload_is_written_twice() -> None:
    runs = []

    def network(image: object) -> EdgeOutput:
        runs.append(image)
        return frame_of(PackedCoder(), 0).output

    coder = Counting()
    edge = EdgePipeline(network, coder, '0123456789abcdef', 4)
    frame = edge.analyse(np.zeros((32, 32, 3), np.uint8))
    choice = RateController(Clock(), Budget(AROUND + 60)).choose(frame, coder.rates)
    assert choice.rate == 4
    written = list(coder.rates_written)
    assert len(set(written)) == len(written)
    packet = frame.packet(choice.rate)
    assert (packet.rate, packet.payload_bytes) == (4, 54)
    assert coder.rates_written == written == list(frame.written)
    assert len(runs) == 1


# -- bitrate --


Step = tuple[float, list[int], float | None]
"""Seconds until a frame comes, its payloads' lengths, and what the link takes from then on."""

steps = st.lists(
    st.tuples(
        st.floats(0, 0.6), rising,
        st.one_of(st.none(), st.floats(1000, 1e6)),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=200)
@given(
    steps, st.floats(2000, 1e6), st.integers(LEAST_BYTES, 20_000), st.integers(LEAST_BYTES, 3000)
)
def test_no_second_has_more_than_rate_and_burst(
    given_steps: list[Step], bitrate: float, burst: int, limit: int
) -> None:
    clock = Clock()
    controller = RateController(clock, Budget(limit, bitrate, burst))
    sent: list[tuple[float, int]] = []
    for pause, lengths, link in given_steps:
        clock.now += pause
        controller.link_bitrate = link
        choice = controller.choose(Lengths(lengths), range(len(lengths)))
        if choice.rate is None:
            assert AROUND + lengths[0] > choice.allowed_bytes
            continue
        assert choice.message_bytes <= min(limit, burst, choice.allowed_bytes)
        controller.spend(choice.message_bytes)
        sent.append((clock.now, choice.message_bytes))
    for start, _ in sent:
        within = sum(count for at, count in sent if start <= at <= start + 1)
        assert within <= bitrate / 8 + burst + 1e-6


@pytest.mark.parametrize('kind', sorted(CODERS))
def test_a_bitrate_is_used(kind: str) -> None:
    """What frames could take is sent, but for less than one message at the end."""
    clock, coder = Clock(), CODERS[kind]
    frames = [frame_of(coder, seed) for seed in range(10)]
    cheapest = max(AROUND + len(frame.payload(coder.rates[0])) for frame in frames)
    per_frame = 1.2 * cheapest
    controller = RateController(clock, Budget(0, per_frame * 10 * 8, 2 * cheapest))
    total = 0
    for count in range(200):
        choice = controller.choose(frames[count % 10], coder.rates)
        assert choice.rate is not None
        controller.spend(choice.message_bytes)
        total += choice.message_bytes
        clock.now += 0.1
    assert 200 * per_frame - 2 * cheapest <= total <= 200 * per_frame + 2 * cheapest


@settings(max_examples=200)
@given(rising, st.integers(LEAST_BYTES, 3000), st.integers(1, 3000))
def test_a_wish_for_small_messages_never_skips_a_frame(
    lengths: list[int], limit: int, wish: int
) -> None:
    controller = RateController(Clock(), Budget(limit))
    controller.link_message_bytes = wish
    choice = controller.choose(Lengths(lengths), range(len(lengths)))
    best = brute_force(Lengths(lengths), list(range(len(lengths))), min(limit, wish))
    fits = AROUND + lengths[0] <= limit
    assert choice.rate == (best if best is not None else 0 if fits else None)


@pytest.mark.parametrize('wish', [0.0, -1.0, math.nan])
def test_a_wish_for_no_bytes_is_refused(wish: float) -> None:
    with pytest.raises(ValueError, match='some bytes'):
        RateController(Clock()).link_message_bytes = wish


def bitrate_of(**settings: float | None) -> float | None:
    """Return what counts of a target of 80 kbit/s and other settings."""
    controller = RateController(Clock(), Budget(target_bitrate=80e3))
    for name, value in settings.items():
        setattr(controller, name, value)
    return controller.bitrate


def test_the_smaller_bitrate_counts_and_a_share_of_it() -> None:
    assert RateController(Clock()).bitrate is None
    assert bitrate_of() == 80e3
    assert bitrate_of(link_bitrate=200e3) == 80e3
    assert bitrate_of(link_bitrate=20e3) == 20e3
    assert bitrate_of(link_bitrate=20e3, share=0.25) == 5e3
    assert bitrate_of(link_bitrate=None, share=0.25) == 20e3
    controller = RateController(Clock())
    controller.link_bitrate = 30e3
    assert controller.bitrate == 30e3


@pytest.mark.parametrize(
    ('change', 'rate'),
    [
        (lambda c: setattr(c, 'budget', Budget(AROUND + 200)), 1),
        (lambda c: setattr(c, 'budget', Budget(0)), 2),
        (lambda c: setattr(c, 'link_bitrate', 8 * 10), None),
        (lambda c: setattr(c, 'share', 0.01), None),
    ],
)
def test_settings_hold_from_the_next_frame_on(
    change: Callable[[RateController], None], rate: int | None
) -> None:
    clock = Clock()
    controller = RateController(clock, Budget(0, 16_000, 2000))
    frame = Lengths([100, 200, 400])
    first = controller.choose(frame, range(3))
    assert first.rate == 2
    controller.spend(2000)
    clock.now += 1
    change(controller)
    if rate is None:  # what gathered in the last second at the old rate is still there
        controller.spend(2000)
        clock.now += 1
    assert controller.choose(frame, range(3)).rate == rate


def test_why_a_frame_is_skipped() -> None:
    clock, frame = Clock(), Lengths([900, 1800])
    size = AROUND + 900

    def skipped(budget: Budget, spent: int = 0) -> tuple[SkipReason | None, int, str]:
        controller = RateController(clock, budget)
        controller.spend(spent)
        choice = controller.choose(frame, range(2))
        assert choice.rate is None
        assert choice.message_bytes <= size
        return choice.reason, choice.message_bytes, choice.sentence

    assert skipped(Budget(size - 1)) == (
        SkipReason.MESSAGE_LIMIT, size,
        f'at rate 0 the message has {size} bytes, but max_message_bytes is {size - 1}',
    )  # fmt: skip
    assert skipped(Budget(0, 1e6, size - 1)) == (
        SkipReason.BURST, size,
        f'at rate 0 the message has {size} bytes, but a burst has at most {size - 1}',
    )  # fmt: skip
    assert skipped(Budget(0, 1e6, size), 1) == (
        SkipReason.BITRATE, size,
        f'at rate 0 the message has {size} bytes, but the bitrate leaves {size - 1} now',
    )  # fmt: skip
    frame.asked.clear()
    reason, known, sentence = skipped(Budget(0, 1e6, size), 5000)
    assert (reason, known) == (SkipReason.BITRATE, 0)
    assert sentence.endswith(f'has more than {AROUND} bytes, but the bitrate leaves 0 now')
    assert not frame.asked


def test_a_default_burst_has_room_for_what_has_to_be_sent() -> None:
    """A message of several seconds of the bitrate goes when these have passed."""
    clock, frame = Clock(), Lengths([7000, 9000])
    controller = RateController(clock, Budget(0, 16_000))
    answers = []
    for _ in range(100):
        choice = controller.choose(frame, range(2))
        answers.append(choice.rate)
        if choice.rate is None:
            assert choice.reason is SkipReason.BITRATE
        else:
            controller.spend(choice.message_bytes)
        clock.now += 0.25
    assert set(answers) == {None, 0}
    # 25 s bring 50,000 bytes, and the first message has to wait for what a burst lacked.
    assert answers.count(0) == 6


def test_the_default_limit_is_one_packet_where_a_choice_can_keep_to_it() -> None:
    long = Lengths([100, 2000])
    assert RateController(Clock()).choose(long, range(2)).rate == 0
    assert RateController(Clock()).choose(long, range(2)).allowed_bytes == PACKET_BYTES
    # By hand, of fixed length, or never so small: as if there were no limit.
    assert RateController(Clock()).choose(long, [1]).rate == 1
    fixed = Lengths([100, 2000], fixed_length=True)
    assert RateController(Clock()).choose(fixed, range(2)).rate == 1
    large = Lengths([PACKET_BYTES, 2 * PACKET_BYTES])
    assert RateController(Clock()).choose(large, range(2)).rate == 1
    # What is expected to fit, and then does not, is not sent.
    crowded = Lengths([2000, 3000], [100.0, 200.0])
    assert RateController(Clock()).choose(crowded, range(2)).reason is SkipReason.MESSAGE_LIMIT


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'max_message_bytes': -2}, 'max_message_bytes is -2'),
        ({'max_message_bytes': 50}, f'is 50, but the smallest message has {LEAST_BYTES} bytes'),
        ({'burst': 50}, 'burst is 50, but the smallest message has'),
        ({'burst': -1}, 'burst is -1'),
        ({'target_bitrate': -1.0}, 'target_bitrate is -1.0'),
        ({'target_bitrate': math.nan}, 'target_bitrate is nan'),
        ({'target_bitrate': math.inf}, 'target_bitrate is inf'),
    ],
)
def test_impossible_budgets(values: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize('bitrate', [0.0, -1.0, math.nan, math.inf])
def test_impossible_links(bitrate: float) -> None:
    with pytest.raises(ValueError, match='some bits per second'):
        RateController(Clock()).link_bitrate = bitrate


@pytest.mark.parametrize('share', [0.0, -0.5, 1.01, math.nan])
def test_impossible_shares(share: float) -> None:
    with pytest.raises(ValueError, match='share'):
        RateController(Clock()).share = share


def test_no_rates() -> None:
    with pytest.raises(ValueError, match='no rate'):
        RateController(Clock()).choose(Lengths([]), [])


def test_a_bucket_fills_up_to_its_depth_and_can_owe() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, 100, 300)
    assert bucket.level() == 300
    bucket.take(450)
    assert bucket.level() == -150
    clock.now += 2
    assert bucket.level() == pytest.approx(50)
    clock.now -= 5  # a clock that goes back gives nothing and takes nothing
    assert bucket.level() == pytest.approx(50)
    bucket.change(1000, 200)
    clock.now += 10
    assert bucket.level() == 200
