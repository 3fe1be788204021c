import random

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_cloud.sequence_tracker import MAX_GAP, NUMBERS, Arrival, Order, SequenceTracker

PERIOD = 100_000_000
"""Nanoseconds between two images."""

START = 1_700_000_000 * 10**9


class Edge:
    """Numbers and stamps as an edge gives them."""

    def __init__(self, stream, start=START, first=0):
        self.stream, self.start, self.first = stream, start, first

    def send(self, index):
        stamp = self.start + (index - self.first) * PERIOD
        return self.stream.note(index % NUMBERS, stamp)

    def send_all(self, indices):
        return [self.send(index) for index in indices]


@pytest.fixture
def stream():
    return SequenceTracker('/robot1/features')


def orders(arrivals):
    return [arrival.order.value for arrival in arrivals]


def lost(arrivals):
    return sum(arrival.lost for arrival in arrivals)


def test_in_order(stream):
    arrivals = Edge(stream).send_all(range(5))
    assert orders(arrivals) == ['first'] + 4 * ['next']
    assert lost(arrivals) == 0


def test_a_cloud_that_starts_late_has_lost_nothing(stream):
    assert Edge(stream).send(1000) == Arrival(Order.FIRST)


def test_gap(stream):
    arrivals = Edge(stream).send_all([0, 1, 5, 6, 8])
    assert [arrival.lost for arrival in arrivals] == [0, 0, 3, 0, 1]
    assert all(arrival.order.is_news for arrival in arrivals)


def test_numbers_wrap(stream):
    edge = Edge(stream, first=NUMBERS - 2)
    arrivals = edge.send_all([NUMBERS - 2, NUMBERS - 1, NUMBERS, NUMBERS + 2])
    assert orders(arrivals) == ['first', 'next', 'next', 'next']
    assert lost(arrivals) == 1


def test_repeated_is_no_news(stream):
    edge = Edge(stream)
    arrivals = edge.send_all([0, 1, 1, 1, 2, 1, 0])
    assert orders(arrivals) == [
        'first', 'next', 'repeated', 'repeated', 'next', 'repeated', 'repeated'
    ]
    assert not Order.REPEATED.is_news
    assert lost(arrivals) == 0


def test_reordered_was_not_lost(stream):
    arrivals = Edge(stream).send_all([0, 3, 1, 2, 2, 4])
    assert orders(arrivals) == ['first', 'next', 'late', 'late', 'repeated', 'next']
    assert not Order.LATE.is_news
    assert lost(arrivals) == 0


def test_reordered_before_the_first(stream):
    arrivals = Edge(stream).send_all([3, 2, 4])
    assert orders(arrivals) == ['first', 'late', 'next']
    assert lost(arrivals) == 0


def test_what_is_lost_is_counted_and_nothing_else():
    """Whatever the network does to the order, within the bounds of what counts as late."""
    rng = random.Random(0)
    for _ in range(200):
        stream = SequenceTracker('features')
        kept = [index for index in range(200) if index == 0 or rng.random() > 0.2]
        late = sorted(kept, key=lambda index: index + rng.uniform(0, 10) * (index > 0))
        twice = [index for index in late for _ in range(rng.choice((1, 1, 2)))]
        arrivals = Edge(stream).send_all(twice)
        news = [
            index
            for index, arrival in zip(twice, arrivals, strict=True)
            if arrival.order.is_news
        ]
        assert lost(arrivals) == max(kept) + 1 - len(kept)
        assert news == sorted(set(news))
        assert 'restarted' not in orders(arrivals)


@pytest.mark.parametrize('before', [1, 2, 50, 10_000, NUMBERS // 2 + 1])
@pytest.mark.parametrize('index', [0, 3])
def test_restarted_edge_is_taken_at_once(stream, before, index):
    Edge(stream, first=before - 1).send(before - 1)
    again = Edge(stream, start=START + 2 * 10**9)
    arrivals = again.send_all(range(index, index + 3))
    # A number that would have been next anyway is not told from it, and need not be.
    goes_on = before <= index
    assert arrivals[0].order is (Order.NEXT if goes_on else Order.RESTARTED)
    assert orders(arrivals[1:]) == ['next', 'next']
    assert not any(arrival.dropped for arrival in arrivals)


def test_very_large_jump_is_no_loss(stream):
    edge = Edge(stream)
    arrivals = edge.send_all([0, MAX_GAP + 1, 2 * MAX_GAP + 3, 2 * MAX_GAP + 4])
    assert [arrival.lost for arrival in arrivals] == [0, MAX_GAP, 0, 0]
    assert orders(arrivals)[2] == 'restarted'


def test_recording_played_again(stream):
    """Its stamps are those of the first time: all but the first message of each round come."""
    edge = Edge(stream)
    edge.send_all(range(100))
    arrivals = edge.send_all(range(100))
    assert orders(arrivals) == ['repeated', 'restarted'] + 98 * ['next']
    assert lost(arrivals) == 0
    assert [arrival.dropped for arrival in arrivals] == [0, 1] + 98 * [0]


def test_clock_set_back_at_restart(stream):
    Edge(stream).send_all(range(30))
    arrivals = Edge(stream, start=START - 3600 * 10**9).send_all(range(3))
    assert orders(arrivals) == ['repeated', 'restarted', 'next']


def test_clock_set_back_without_restart(stream):
    Edge(stream).send_all(range(30))
    arrivals = Edge(stream, start=START - 3600 * 10**9).send_all(range(30, 33))
    assert orders(arrivals) == ['next'] * 3


def test_without_stamps_a_restart_costs_one_message(stream):
    for index in range(30):
        stream.note(index, 0)
    assert orders(stream.note(index, 0) for index in range(3)) == ['repeated', 'restarted', 'next']


@pytest.mark.parametrize(
    ('sequence', 'ahead'), [(2**31, 10**18), (2**31, 0), (7, 0), (2**32 - 1, -(10**18))]
)
def test_one_absurd_message_does_not_end_the_stream(stream, sequence, ahead):
    edge = Edge(stream)
    edge.send_all(range(100))
    stream.note(sequence, START + ahead)
    arrivals = edge.send_all(range(100, 110))
    assert sum(arrival.order.is_news for arrival in arrivals) >= 9
    assert orders(arrivals[2:]) == ['next'] * 8
    assert lost(arrivals) == 0


def test_the_newest_repeated_after_the_one_before_it_is_no_new_count(stream):
    arrivals = Edge(stream).send_all([0, 2, 1, 2, 3])
    assert orders(arrivals) == ['first', 'next', 'late', 'repeated', 'next']
