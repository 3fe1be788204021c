"""The service ``~/enable`` (std_srvs/SetBool): work that rests while the node stays active."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool

from msfc_ros.diagnostics import OK, Finding


class EnableSwitch:
    """Whether a node works. It outlives transitions: who has switched it off switches it on.

    Args:
        node: the node.
        rest: what it does not do while it is off, for people.

    Attributes:
        on: whether it works.
    """

    def __init__(self, node: Node, rest: str) -> None:
        self.on = True
        self._node = node
        self._rest = rest
        node.create_service(SetBool, '~/enable', self._switch)

    def findings(self) -> list[Finding]:
        """Return that it is off, if it is; it has been asked for, and so is nothing to warn of."""
        if self.on:
            return []
        return [Finding(OK, f'disabled by ~/enable: {self._rest}')]

    def _switch(self, request: Any, response: Any) -> Any:
        changed, self.on = request.data != self.on, request.data
        state = 'enabled' if self.on else f'disabled: {self._rest}'
        if changed:
            self._node.get_logger().info(f'{state}, as ~/enable was asked for')
        response.success = True
        response.message = state
        return response
