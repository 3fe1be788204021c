"""One radio for several senders: who gets how much."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from statistics import median
from typing import Generic, TypeVar

from msfc.link.control import CongestionControl, LinkLimits, Observation
from msfc.link.estimator import packets
from msfc.link.receiver import WINDOW
from msfc.link.report import LinkReport, ahead

Key = TypeVar('Key', bound=Hashable)

CONTENT = 0.5
"""Part of its share below which a sender is taken to want no more."""

ROOM = 2.0
"""Times what it uses that such a sender keeps, so that it can use more at once."""

RESPONSE = 0.5
"""Seconds that it takes until another share shows in what arrives."""

KEPT = 0.25
"""Part of its share that it keeps in any case."""


def share_budget(
    budget: float, weights: Mapping[Key, float], used: Mapping[Key, float]
) -> dict[Key, float]:
    """Share a budget by weight; most of what one does not use goes to the others.

    Weighted max-min fairness: nobody gets less than its part of the whole by weight unless it uses
    less than half of that, and together they get the budget, never more.

    Args:
        budget: for all, in bit/s.
        weights: of those that share it, above 0.
        used: what each uses at present, in bit/s.

    Returns:
        The share of each, in bit/s.
    """
    shares: dict[Key, float] = {}
    left, others = budget, dict(weights)
    while others:
        unit = left / sum(others.values())
        content = {k: w * unit for k, w in others.items() if used[k] < CONTENT * w * unit}
        if not content or len(content) == len(others):
            return shares | {key: unit * weight for key, weight in others.items()}
        for key, part in content.items():
            shares[key] = max(ROOM * used[key], KEPT * part)
            left -= shares[key]
            del others[key]
    return shares


class SharedLink(Generic[Key]):
    """A budget that several senders share, and what they have in common.

    The budget is the most; where the radio takes less, all their messages get late or lost at
    once. So what they send together is followed as one flow, and each has its part of that by
    weight. In the reports the delay that is common to all is taken out: it is dealt with here, and
    senders that each gave way to it by themselves would soon have shares of chance.

    Args:
        budget: for all, in bit/s.

    Attributes:
        most: the same.
    """

    def __init__(self, budget: float) -> None:
        self.most = budget
        least = min(LinkLimits().least, budget)
        self._control = CongestionControl(LinkLimits(budget, least, budget))
        self._before: dict[Key, LinkReport] = {}
        self._cut_at = float('-inf')

    @property
    def budget(self) -> float:
        """What all may send together at present, in bit/s."""
        return self._control.target

    def share(
        self, reports: Mapping[Key, LinkReport], sizes: Mapping[Key, float], now: float
    ) -> dict[Key, LinkReport]:
        """Return reports that tell each sender its share.

        Args:
            reports: of the senders that send at present, made at the same time.
            sizes: mean bytes of a message of each lately.
            now: the time in seconds.
        """
        self._note_fates(reports, sizes, now)
        delayed = [report for report in reports.values() if report.delay_samples]
        trend = median([report.delay_trend for report in delayed]) if delayed else 0.0
        delay = min([report.delay for report in delayed], default=0.0)
        seen = Observation(
            bitrate=sum(report.bitrate for report in reports.values()),
            trend=trend,
            samples=sum(report.delay_samples for report in delayed),
            delay=delay,
            response=RESPONSE,
        )
        if self._control.step(seen, now, may_cut=now - self._cut_at >= WINDOW + RESPONSE):
            self._cut_at = now
        shares = share_budget(
            self.budget,
            {key: report.weight for key, report in reports.items()},
            {key: report.bitrate for key, report in reports.items()},
        )
        return {
            key: replace(
                report,
                share=shares[key],
                delay=max(report.delay - delay, 0.0),
                delay_trend=report.delay_trend - trend if report.delay_samples else 0.0,
            )
            for key, report in reports.items()
        }

    def _note_fates(
        self, reports: Mapping[Key, LinkReport], sizes: Mapping[Key, float], now: float
    ) -> None:
        messages = lost = whole = 0
        for key, report in reports.items():
            before = self._before.get(key)
            if before is not None and ahead(report.number, before.number) > 0:
                gone = ahead(report.lost, before.lost)
                here = ahead(report.received, before.received) + gone
                messages, lost = messages + here, lost + gone
                whole += here * packets(round(sizes[key]))
        self._before = dict(reports)
        if messages > 0 and now - self._cut_at >= RESPONSE:
            self._control.note_fates(messages, lost, whole, now)
