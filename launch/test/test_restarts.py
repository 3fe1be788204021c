from msfc_launch.restarts import DELAY, LONGEST_WAIT, STEADY, Restarts


def test_a_node_that_ran_well_comes_back_at_once():
    restarts = Restarts()
    assert [restarts.delay(STEADY + 1) for _ in range(5)] == [DELAY] * 5


def test_a_node_that_was_killed_soon_after_its_start_comes_back_at_once():
    assert Restarts().delay(3.0) == DELAY


def test_early_ends_in_a_row_are_waited_for_longer_each_time():
    restarts = Restarts()
    assert [restarts.delay(2.0) for _ in range(8)] == [DELAY, 2, 4, 8, 16, 32, 60, 60]
    assert restarts.early == 8
    assert restarts.delay(STEADY + 1) == DELAY
    assert restarts.delay(2.0) == DELAY
    assert restarts.delay(2.0) == 2


def test_failing_for_months_is_no_overflow():
    restarts = Restarts()
    delays = {restarts.delay(0.0) for _ in range(5000)}
    assert max(delays) == LONGEST_WAIT
