"""What the edge may send: parameters that can be changed live, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msfc.pipeline.edge import EdgeFrame
from msfc.pipeline.rate_control import AUTOMATIC, Budget, Choice, RateController, SkipReason
from msfc_ros.diagnostics import OK, WARN, Finding
from msfc_ros.node import ManagedNode
from msfc_ros.parameters import LiveParameters, check_choice

OWN_RATE, ANY_RATE = -1, -2
"""The rates that stand for a choice: up to what the model is made for, or among all it has."""

OVER_BUDGET = 'over_budget'
"""The event of a frame that is not sent; ``over_budget_REASON`` is one of each reason."""

MOST_BYTES = 2**30
"""The largest number of bytes that parameters take."""

ADVICE = {
    SkipReason.MESSAGE_LIMIT: 'raise max_message_bytes, or make rate or images smaller',
    SkipReason.BURST: 'raise burst, or make rate or images smaller',
    SkipReason.BITRATE: 'fewer frames are sent, as no rate makes them small enough; raise '
    'target_bitrate, or set max_rate so that none is computed in vain',
}
"""What to do about frames that are skipped."""


class EdgeBudget:
    """The parameters ``rate``, ``max_message_bytes``, ``target_bitrate`` and ``burst`` of a node.

    Args:
        node: the node.
        live: where they are declared.

    Attributes:
        controller: keeps to the budget; what the link takes can be told to it.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """

    def __init__(self, node: ManagedNode, live: LiveParameters) -> None:
        self._node = node
        self._told: set[SkipReason] = set()
        self._rates: tuple[int, ...] | None = None
        self._own_rate = 0
        self._rate: int = live.declare(
            'rate',
            OWN_RATE,
            "Rate, one that the model's coding has: for packed bits the n of 2, 4, 8, 16 and 32 "
            'bits per symbol. -1 takes the best for each frame that the budget has room for, up '
            'to what the model is made for; -2 the best of all that the model has.',
            self._set_rate,
            limits=(ANY_RATE, 255),
            check=self._check_rate,
        )
        self.controller = RateController(time.monotonic)
        budget = {
            'max_message_bytes': live.declare(
                'max_message_bytes',
                AUTOMATIC,
                'No message is larger, in bytes of the whole serialised message; a frame that '
                'does not fit at any rate is skipped. 0 is no limit; -1 is one packet at an MTU '
                'of 1500, where the rate is not set by hand, the coding has payloads of any '
                'length and the cheapest rate usually fits.',
                self._setter('max_message_bytes'),
                limits=(AUTOMATIC, MOST_BYTES),
                check=lambda value: check(max_message_bytes=value),
            ),
            'target_bitrate': live.declare(
                'target_bitrate',
                0.0,
                'Bits of messages per second that are sent at most, over any second but for the '
                'burst. 0 is no limit.',
                self._setter('target_bitrate'),
                limits=(0.0, 1e12),
                check=lambda value: check(target_bitrate=value),
            ),
            'burst': live.declare(
                'burst',
                0,
                'Bytes beyond target_bitrate that may be sent at once after a pause. 0 is a '
                "quarter of a second's, but at least one packet or message.",
                self._setter('burst'),
                limits=(0, MOST_BYTES),
                check=lambda value: check(burst=value),
            ),
        }
        self.controller.budget = Budget(**budget)

    def take_rates(self, rates: tuple[int, ...], own: int) -> None:
        """Take over the rates of a model.

        Args:
            rates: those that its coding has, cheapest first.
            own: what it is made for.

        Raises:
            ValueError: if it does not have the parameter's.
        """
        self._rates, self._own_rate = rates, own
        # After the line above: what is asked for meanwhile is checked there or here.
        self._check_rate(self._rate)

    def forget_rates(self) -> None:
        """Take any rate again, as there is no model."""
        self._rates = None

    def restart(self) -> None:
        """Tell anew of frames that are skipped."""
        self._told.clear()

    def describe_rate(self) -> str:
        """Return the rate in words, for the log."""
        if self._rate == OWN_RATE:
            return f'rate {self._own_rate} as far as the budget allows'
        if self._rate == ANY_RATE:
            return 'the best rate that the budget allows'
        return f'rate {self._rate}'

    def choose(self, frame: EdgeFrame, frame_id: str) -> Choice:
        """Return the rate to send a frame at; count and tell of one that is skipped.

        Args:
            frame: the frame, of a model whose rates have been taken over.
            frame_id: of the camera.

        Raises:
            PacketError: if the frame's code has values that are not numbers.
        """
        rates = self._rates
        assert rates is not None
        rate = self._rate
        if rate == OWN_RATE:
            rates = rates[: rates.index(self._own_rate) + 1]
        elif rate != ANY_RATE:
            rates = (rate,)
        choice = self.controller.choose(frame, rates, frame_id)
        if choice.reason is not None:
            self._tell(choice.reason, choice.sentence)
        return choice

    def findings(self) -> list[Finding]:
        """Return what there is to tell of skipped frames, for the diagnostics."""
        skipped = self._node.statistics.recent(OVER_BUDGET)
        if not skipped:
            return []
        if self._node.statistics.recent('frames'):
            return [Finding(OK, f'{skipped} frames skipped over budget')]
        return [Finding(WARN, f'every frame skipped over budget ({skipped})')]

    def values(self) -> dict[str, str]:
        """Return what is shown of the budget, for the diagnostics."""
        bitrate = self.controller.bitrate
        return {} if bitrate is None else {'bitrate_limit': f'{bitrate:.6g}'}

    def _tell(self, reason: SkipReason, sentence: str) -> None:
        self._node.statistics.count(OVER_BUDGET)
        self._node.statistics.count(f'{OVER_BUDGET}_{reason}')
        if reason in self._told:
            self._node.debug(lambda: f'frame skipped ({reason}): {sentence}')
            return
        self._told.add(reason)
        self._node.get_logger().warning(
            f'skipped a frame ({reason}): {sentence}. Others are counted without a word; '
            f'{ADVICE[reason]}'
        )

    def _check_rate(self, rate: int) -> None:
        if self._rates is not None:
            check_choice('rate', rate, (OWN_RATE, ANY_RATE, *self._rates))

    def _set_rate(self, rate: int) -> None:
        # The next image takes it: the pipeline may be at work, or not be there yet.
        self._rate = rate
        self.restart()

    def _setter(self, name: str) -> Callable[[Any], None]:
        def apply(value: Any) -> None:
            self.controller.budget = replace(self.controller.budget, **{name: value})
            self.restart()

        return apply


def check(**values: Any) -> None:
    """Raise a :exc:`ValueError` in words if a value is none that a budget can have."""
    Budget(**values)
