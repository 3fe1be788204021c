"""What a node thinks of its own state: findings with a level, made into a diagnostic status.

All judgements are about the last :data:`msfc_ros.statistics.WINDOW` seconds, so that a status gets
better by itself once its cause is gone. docs/diagnostics.md has the limits in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from msfc_ros.statistics import WINDOW, Statistics

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

HUNG = 30.0
"""Seconds on one message after which the work is taken for stuck."""

FALLEN = 0.5
"""Part of its usual value below which a rate counts as fallen."""

MUCH = 0.1
"""Part of the messages beyond which losses and repeats are worth a warning."""

CLOCK_TOLERANCE = 0.01
"""Seconds that something may seem to come before it was sent; NTP in one network does better."""

LONG_TRANSIT = 1.0
"""Seconds from being sent to being received beyond which the clocks are doubted."""

OLD_ARRIVAL = 10.0
"""Seconds from the camera's stamp to being received beyond which the clocks are doubted."""

HANGS, SILENT, LOST, OLD, SLOW, CLOCK = 'hangs', 'silent', 'lost', 'old', 'slow', 'clock'
"""Kinds of findings that are for the log as well."""

SYNCHRONISE = 'synchronise the clocks (chrony, PTP)'


@dataclass(frozen=True)
class Finding:
    """Something to tell about a node.

    Attributes:
        level: ``OK``, ``WARN`` or ``ERROR``.
        text: what it is, in a few words.
        kind: what it is, in a word, if it is also for the log; what is counted message by message
            is logged as it happens.
    """

    level: bytes
    text: str
    kind: str = ''


def work_findings(statistics: Statistics, busy_for: float) -> list[Finding]:
    """Judge whether messages come and whether the work on them succeeds.

    Args:
        statistics: of a node that is active and has a subscription.
        busy_for: seconds that it has been at work on its present message.
    """
    found = []
    if busy_for > HUNG:
        found.append(Finding(ERROR, f'at work on one message for {busy_for:.0f} s', HANGS))
    silence = statistics.silence('received')
    if silence >= WINDOW:
        found.append(Finding(WARN, f'nothing received for {silence:.0f} s', SILENT))
        return found
    finished = statistics.recent('frames')
    refused = statistics.recently_refused()
    stale = statistics.recent('stale')
    if refused:
        reasons = ', '.join(f'{name} {number}' for name, number in sorted(refused.items()))
        if finished or stale or busy_for:
            text = f'{sum(refused.values())} messages refused ({reasons})'
            found.append(Finding(WARN, text))
        else:
            found.append(Finding(ERROR, f'every message refused ({reasons})'))
    if stale:
        found.append(Finding(WARN, f'{stale} messages older than max_age'))
    lost, received = statistics.recent('lost'), statistics.recent('received')
    if lost > MUCH * (lost + received):
        found.append(Finding(WARN, f'{lost} of {lost + received} messages lost on the way', LOST))
    old = statistics.recent('repeated') + statistics.recent('reordered')
    if old > MUCH * received:
        found.append(
            Finding(WARN, f'{old} of {received} messages no newer than those before', OLD)
        )
    if statistics.recent('idle'):
        if not finished:
            found.append(Finding(OK, 'idle: nobody subscribes'))
        return found
    if statistics.recent('disabled'):
        return found  # the rate falls because it was asked to
    usual, rate = statistics.usual_rate(), statistics.rate()
    if usual is not None and usual * WINDOW >= 2 and rate < FALLEN * usual:
        found.append(Finding(WARN, f'the rate fell from {usual:.2f} to {rate:.2f} Hz', SLOW))
    return found


def clock_findings(statistics: Statistics) -> list[Finding]:
    """Judge whether the clocks that stamp and send the messages agree with this host's.

    A message cannot be older than its image nor arrive before it was sent: if all do that in
    these seconds, a clock is wrong for certain. If all are very late, it may be the network.
    """
    transits = [value * 1e-3 for value in statistics.recent_values('transit_ms')]
    if transits and max(transits) < -CLOCK_TOLERANCE:
        text = f'the sender is at least {-max(transits):.3g} s ahead: {SYNCHRONISE}'
        return [Finding(WARN, text, CLOCK)]
    if transits and min(transits) > LONG_TRANSIT:
        text = f'messages seem {min(transits):.3g} s on the way: {SYNCHRONISE}, or a slow link'
        return [Finding(WARN, text, CLOCK)]
    ages = [value * 1e-3 for value in statistics.recent_values('arrival_age_ms')]
    if ages and max(ages) < -CLOCK_TOLERANCE:
        text = f'images have stamps {-max(ages):.3g} s ahead of this host: {SYNCHRONISE}'
        return [Finding(WARN, text, CLOCK)]
    if ages and min(ages) > OLD_ARRIVAL:
        text = f'images are {min(ages):.3g} s old as they come: {SYNCHRONISE}, or an old recording'
        return [Finding(WARN, text, CLOCK)]
    if statistics.recent('unstamped'):
        return [Finding(WARN, 'images have no stamp', CLOCK)]
    return []


def shown_values(statistics: Statistics) -> dict[str, str]:
    """Return what is shown of statistics, by name."""
    values = statistics.values()
    transits = statistics.recent_values('transit_ms')
    if transits:
        values['clock_offset_ms'] = f'{min(transits):.6g}'
    return values


def make_status(
    name: str,
    state: str,
    findings: Iterable[Finding],
    values: Mapping[str, str],
    hardware: str = '',
) -> DiagnosticStatus:
    """Return a diagnostic status.

    Args:
        name: name of the task, with the node's name.
        state: state of the node in one word.
        findings: what there is to tell; the worst gives the level and comes first.
        values: what is shown, by name.
        hardware: what the work is done on.
    """
    ordered = sorted(findings, key=lambda finding: finding.level, reverse=True)
    text = '; '.join(finding.text for finding in ordered)
    return DiagnosticStatus(
        level=ordered[0].level if ordered else OK,
        name=name,
        message=f'{state}: {text}' if text else state,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
