"""Where decoder and heads run: in the node itself, or as a service on Ray."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rclpy.node import Node

from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline
from msfc.serving.remote import TIMEOUT, RemotePipeline, check_addresses
from msfc.wire.packet import DecodeLimits
from msfc_ros.parameters import declare

ENGINES = ('local', 'ray')


def declare_engine(node: Node) -> Callable[[SplitModel, DecodeLimits], CloudPipeline]:
    """Declare the parameters of a node; return what makes its pipeline.

    Raises:
        ValueError: if a parameter has a value that it cannot have.
    """
    engine: str = declare(
        node,
        'engine',
        'local',
        "Where decoder and heads run: 'local' in this node; 'ray' in a service as msfc serve runs "
        'it, and this node checks the messages and publishes what comes back.',
        choices=ENGINES,
        read_only=True,
    )
    address: str = declare(
        node,
        'ray_address',
        'http://127.0.0.1:8000',
        "Address of the service, with engine 'ray'; several with commas between, of which the "
        'next is asked where one does not answer.',
        read_only=True,
    )
    timeout: float = declare(
        node,
        'ray_timeout',
        TIMEOUT,
        "Seconds that an answer of the service is waited for, with engine 'ray'.",
        limits=(0.01, 60.0),
        read_only=True,
    )
    if engine == 'local':
        return CloudPipeline
    try:
        check_addresses(address)
    except ValueError as error:
        raise ValueError(f'parameter ray_address: {error}') from error
    return partial(RemotePipeline, address=address, timeout=timeout)
