import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.worker import LatestBox, LatestWorker

TIMEOUT = 10


def test_box_keeps_the_latest():
    box = LatestBox()
    assert box.put(1) is False
    assert box.put(2) is True
    assert box.take() == [2]
    assert box.put(3) is False


def test_box_keeps_the_latest_of_each_sender():
    box = LatestBox()
    assert [box.put(item, item[0]) for item in ('a1', 'b1', 'a2', 'c1')] == [
        False, False, True, False
    ]
    assert box.take(2) == ['a2', 'b1']
    assert box.take(2) == ['c1']


@given(
    waits=st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=30),
    most=st.integers(1, 4),
)
def test_box_is_fair(waits, most):
    """Between two items of one sender, no other sender has two."""
    box, waiting, served = LatestBox(), {}, []
    for senders in waits:
        for sender in senders:
            box.put(sender, sender)
            waiting.setdefault(sender, len(served))
        if waiting:
            taken = box.take(most)
            assert len(taken) == min(most, len(waiting))
            for sender in taken:
                served.append(sender)
                since = served[waiting.pop(sender) : -1]
                assert sender not in since
                assert len(set(since)) == len(since)


def test_closed_box_gives_nothing():
    box = LatestBox()
    box.put(1)
    box.close()
    assert box.take() == []
    assert box.put(2) is False


def test_closing_wakes_the_waiting():
    box = LatestBox()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(TIMEOUT)
    assert taken == [[]]


def test_worker_drops_what_came_while_it_worked():
    started, go, done = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def work(items):
        seen.append(items)
        started.set()
        assert go.wait(TIMEOUT)
        if items == [4]:
            done.set()

    worker = LatestWorker(work, pytest.fail, 'test')
    worker.put(1)
    assert started.wait(TIMEOUT)
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    go.set()
    assert done.wait(TIMEOUT)
    assert worker.stop(TIMEOUT)
    assert seen == [[1], [4]]


def test_worker_takes_several_at_once():
    started, go, done = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def work(items):
        seen.append(items)
        started.set()
        assert go.wait(TIMEOUT)
        if len(seen) == 3:
            done.set()

    worker = LatestWorker(work, pytest.fail, 'test', most=2)
    worker.put('a1', 'a')
    assert started.wait(TIMEOUT)
    for item in ('b1', 'a2', 'c1', 'b2'):
        worker.put(item, item[0])
    go.set()
    assert done.wait(TIMEOUT)
    assert worker.stop(TIMEOUT)
    assert seen == [['a1'], ['b2', 'a2'], ['c1']]


def test_lanes_do_not_wait_for_each_other():
    """A sender whose work takes long holds up nobody else, and is not worked on twice at once."""
    started, go, done = threading.Event(), threading.Event(), threading.Event()
    seen, at_work, lock = [], set(), threading.Lock()

    def work(items):
        (item,) = items
        with lock:
            assert item[0] not in at_work
            at_work.add(item[0])
        if item == 'a1':
            started.set()
            assert go.wait(TIMEOUT)
        with lock:
            at_work.discard(item[0])
            seen.append(item)
            if item in ('b3', 'a3'):
                done.set()

    errors = []
    worker = LatestWorker(work, errors.append, 'test', lanes=2)
    worker.put('a1', 'a')
    assert started.wait(TIMEOUT)
    for item in ('b1', 'a2', 'a3', 'b2', 'b3'):
        worker.put(item, item[0])
    assert done.wait(TIMEOUT)
    assert worker.busy_for() > 0.0
    assert 'a1' not in seen
    done.clear()
    go.set()
    assert done.wait(TIMEOUT)
    assert worker.stop(TIMEOUT)
    assert not errors
    assert [item for item in seen if item[0] == 'a'] == ['a1', 'a3']
    assert worker.busy_for() == 0.0


def test_worker_survives_errors():
    errors, done = [], threading.Event()

    def work(items):
        if items == ['bad']:
            raise KeyError(items[0])
        done.set()

    def on_error(error):
        errors.append(error)
        worker.put('good')

    worker = LatestWorker(work, on_error, 'test')
    worker.put('bad')
    assert done.wait(TIMEOUT)
    assert worker.stop(TIMEOUT)
    assert [type(error) for error in errors] == [KeyError]


def test_stop_waits_for_the_item_at_work():
    started, go = threading.Event(), threading.Event()

    def work(items):
        started.set()
        assert go.wait(TIMEOUT)

    worker = LatestWorker(work, pytest.fail, 'test')
    worker.put(1)
    assert started.wait(TIMEOUT)
    assert not worker.stop(0.01)
    go.set()
    assert worker.stop(TIMEOUT)
