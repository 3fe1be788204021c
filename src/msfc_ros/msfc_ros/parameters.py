"""Declaring parameters with a description and a range, so that tools can show and check them.

Those that can be changed while the node runs are declared by :class:`LiveParameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

LIVE = 'Can be changed at any time.'
"""What is added to the descriptions of the parameters for which it holds."""


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Sequence[Any] | None = None,
    read_only: bool = False,
) -> Any:
    """Declare a parameter and return its value.

    Args:
        node: the node.
        name: name of the parameter.
        default: the value where none is given; it fixes the type as well.
        description: what it is, with its unit.
        limits: smallest and largest value of a number.
        choices: the only values that are valid.
        read_only: it can be set at start only.

    Raises:
        ValueError: if the value given at start is not among the choices.
        rclpy.exceptions.ParameterException: if it is out of range or of another type.
    """
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    if choices is not None:
        descriptor.additional_constraints = 'one of ' + ', '.join(repr(c) for c in choices)
    if limits is not None:
        if isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(limits[0]), to_value=float(limits[1]))
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(limits[0]), to_value=int(limits[1]), step=1)
            ]
    value = node.declare_parameter(name, default, descriptor).value
    if choices is not None:
        check_choice(name, value, choices)
    return value


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise a :exc:`ValueError` in words if a value is not among the choices."""
    if value not in choices:
        raise ValueError(
            f'parameter {name} is {value!r}, but has to be one of '
            + ', '.join(repr(choice) for choice in choices)
        )


@dataclass(frozen=True)
class _Live:
    choices: Sequence[Any] | None
    check: Callable[[Any], None] | None
    apply: Callable[[Any], None]


class LiveParameters:
    """The parameters of a node that can be changed while it runs.

    A new value is checked first, against type and range by rclpy and against the rest here, and
    refused with a reason in words; when all values that are set at once are good, they are
    applied, before whoever sets them gets the answer.

    Args:
        node: the node. It may have several of these.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._live: dict[str, _Live] = {}
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def declare(
        self,
        name: str,
        default: Any,
        description: str,
        apply: Callable[[Any], None],
        *,
        limits: tuple[float, float] | None = None,
        choices: Sequence[Any] | None = None,
        check: Callable[[Any], None] | None = None,
    ) -> Any:
        """Declare a parameter and return its value.

        Args:
            name: name of the parameter.
            default: the value where none is given; it fixes the type as well.
            description: what it is, with its unit.
            apply: called with each later value, in the executor's thread; must not raise.
            limits: smallest and largest value of a number.
            choices: the only values that are valid.
            check: called with a value that is asked for; raises a :exc:`ValueError` in words if
                the node cannot have it.

        Raises:
            ValueError: if the value given at start is not valid.
            rclpy.exceptions.ParameterException: if it is out of range or of another type.
        """
        value = declare(
            self._node, name, default, f'{description} {LIVE}', limits=limits, choices=choices
        )
        if check is not None:
            check(value)
        # Not before: rclpy treats the declaration as a change as well.
        self._live[name] = _Live(choices, check, apply)
        return value

    def _check(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            live = self._live.get(parameter.name)
            if live is None:
                continue
            try:
                if live.choices is not None:
                    check_choice(parameter.name, parameter.value, live.choices)
                if live.check is not None:
                    live.check(parameter.value)
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            live = self._live.get(parameter.name)
            if live is not None:
                live.apply(parameter.value)
                self._node.get_logger().info(f'{parameter.name} is now {parameter.value!r}')
