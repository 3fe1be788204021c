"""A budget for several senders: fair by weight, whatever the radio really takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_simulator import Edge, World
from msfc.link.shares import CONTENT, KEPT, SharedLink, share_budget

weights = st.dictionaries(st.integers(0, 9), st.floats(0.1, 10.0), min_size=1)


@given(weights, st.floats(1e3, 1e8), st.data())
def test_shares_are_weighted_max_min_fair(
    given_weights: dict[int, float], budget: float, data: st.DataObject
) -> None:
    used = {key: data.draw(st.floats(0.0, 1e8)) for key in given_weights}
    shares = share_budget(budget, given_weights, used)
    assert shares.keys() == given_weights.keys()
    assert sum(shares.values()) == pytest.approx(budget)
    whole = sum(given_weights.values())
    for key, weight in given_weights.items():
        part = budget * weight / whole
        assert shares[key] >= KEPT * part * (1 - 1e-9)
        if used[key] >= part:
            assert shares[key] >= part * (1 - 1e-9)


@given(weights, st.floats(1e3, 1e8))
def test_who_all_use_what_they_have_get_their_part_by_weight(
    given_weights: dict[int, float], budget: float
) -> None:
    whole = sum(given_weights.values())
    parts = {key: budget * weight / whole for key, weight in given_weights.items()}
    shares = share_budget(budget, given_weights, parts)
    assert shares == pytest.approx(parts)


def test_what_one_does_not_use_the_others_get() -> None:
    shares = share_budget(100.0, {'a': 1.0, 'b': 1.0, 'c': 2.0}, {'a': 5.0, 'b': 25.0, 'c': 50.0})
    assert shares['a'] == 10.0
    assert shares['b'] == pytest.approx(30.0)
    assert shares['c'] == pytest.approx(60.0)
    assert shares['a'] > CONTENT * 5.0


def test_nobody_is_there() -> None:
    assert share_budget(100.0, {}, {}) == {}
    shared = SharedLink[int](1e6)
    assert shared.share({}, {}, 0.0) == {}
    assert shared.budget == 1e6


WEIGHTS = (1.0, 2.0, 1.0, 1.0)


@pytest.mark.parametrize('loss', [0.0, 0.05])
@pytest.mark.parametrize('budget', [350e3, 1e6], ids=['within the link', 'beyond the link'])
def test_four_edges_on_a_narrow_link(budget: float, loss: float) -> None:
    """Shares within 15 % of those by weight, also where the radio takes less than the budget."""
    edges = [Edge(fps=10.0, weight=w, begin=2.0 * i) for i, w in enumerate(WEIGHTS)]
    world = World(edges, [(0.0, 400e3)], loss=loss, budget=budget)
    world.run(80.0)
    sent = [sum(one.size for one in edge.samples if one.at >= 30.0) for edge in edges]
    for mine, weight in zip(sent, WEIGHTS, strict=True):
        assert mine / sum(sent) == pytest.approx(weight / sum(WEIGHTS), rel=0.15)
    assert sum(sent) * 8 / 50.0 >= 0.6 * min(budget, 400e3)
    # None of them has to wait long.
    for edge in edges:
        late = [one.delay for one in edge.samples if one.at >= 30.0 and one.arrived is not None]
        assert sorted(late)[len(late) // 2] < 0.15


def test_shares_follow_who_comes_and_goes() -> None:
    edges = [Edge(fps=10.0), Edge(fps=10.0, begin=20.0, end=50.0)]
    World(edges, [(0.0, 2e6)], budget=400e3).run(80.0)

    def sent(edge: Edge, begin: float, end: float) -> float:
        return sum(8 * one.size for one in edge.samples if begin <= one.at < end) / (end - begin)

    assert sent(edges[0], 10.0, 20.0) >= 300e3
    assert sent(edges[0], 30.0, 50.0) == pytest.approx(200e3, rel=0.15)
    assert sent(edges[1], 30.0, 50.0) == pytest.approx(200e3, rel=0.15)
    assert sent(edges[0], 65.0, 80.0) >= 300e3
