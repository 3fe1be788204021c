"""Declaring parameters with a description and a range, so that tools can show and check them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node


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
