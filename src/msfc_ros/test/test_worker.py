import threading

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_ros.worker import LatestBox, LatestWorker

TIMEOUT = 10


def test_box_keeps_the_latest():
    box = LatestBox()
    assert box.put(1) is False
    assert box.put(2) is True
    assert box.take() == 2
    assert box.put(3) is False


def test_closed_box_gives_nothing():
    box = LatestBox()
    box.put(1)
    box.close()
    assert box.take() is None


def test_closing_wakes_the_waiting():
    box = LatestBox()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(TIMEOUT)
    assert taken == [None]


def test_worker_drops_what_came_while_it_worked():
    started, go, done = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def work(item):
        seen.append(item)
        started.set()
        assert go.wait(TIMEOUT)
        if item == 4:
            done.set()

    worker = LatestWorker(work, pytest.fail, 'test')
    worker.put(1)
    assert started.wait(TIMEOUT)
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    go.set()
    assert done.wait(TIMEOUT)
    assert worker.stop(TIMEOUT)
    assert seen == [1, 4]


def test_worker_survives_errors():
    errors, done = [], threading.Event()

    def work(item):
        if item == 'bad':
            raise KeyError(item)
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

    def work(item):
        started.set()
        assert go.wait(TIMEOUT)

    worker = LatestWorker(work, pytest.fail, 'test')
    worker.put(1)
    assert started.wait(TIMEOUT)
    assert not worker.stop(0.01)
    go.set()
    assert worker.stop(TIMEOUT)
