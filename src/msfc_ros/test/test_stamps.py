import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from std_msgs.msg import Header

from msfc_ros.stamps import age, is_stamped, nanoseconds, sent_and_received


def make_header(sec, nanosec):
    header = Header()
    header.stamp.sec, header.stamp.nanosec = sec, nanosec
    return header


@pytest.mark.parametrize(('sec', 'seconds'), [(12, 2.5), (-(2**31), 14.5 + 2**31)])
def test_age(sec, seconds):
    assert age(14_500_000_000, make_header(sec, 0)) == pytest.approx(seconds)


def test_nanoseconds():
    assert nanoseconds(make_header(12, 34)) == 12_000_000_034


def test_stamped():
    assert not is_stamped(Header())
    assert is_stamped(make_header(0, 1))


def test_sent_and_received():
    info = {'source_timestamp': 5_000_000_000, 'received_timestamp': 9_500_000_000}
    assert sent_and_received(info, 100.0, 9_750_000_000) == pytest.approx((5.0, 99.75))
    # The clock was set meanwhile, forth or back; and the middleware knows nothing.
    for system in (12_000_000_000, 9_000_000_000):
        assert sent_and_received(info, 100.0, system) == (5.0, 100.0)
    assert sent_and_received({}, 100.0, 9_750_000_000) == (None, 100.0)
