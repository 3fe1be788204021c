"""What a replica of the service does with a batch of requests. It knows nothing of Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from msfc.pipeline.cloud import CloudPipeline
from msfc.serving.messages import MessageError, answer_bytes, read_request, requested_heads
from msfc.serving.remote import FOREIGN, STALE
from msfc.wire.packet import PacketError, RefusalReason, ValidPacket

OK, WRONG, FAILED = 200, 400, 500


@dataclass(frozen=True)
class Request:
    """A request, and when it came by the monotonic clock of this machine."""

    body: bytes
    arrival: float


@dataclass(frozen=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes


def answer_batch(
    pipeline: CloudPipeline, requests: Sequence[Request], patience: float
) -> list[Answer]:
    """Decode what can be decoded of a batch.

    Args:
        pipeline: decodes.
        requests: from the gateways.
        patience: seconds; what has waited longer is told so, and not decoded.

    Returns:
        An answer for each request, in their order.
    """
    answers: dict[int, Answer] = {}
    packets: dict[int, ValidPacket] = {}
    heads: dict[int, tuple[str, ...]] = {}
    now = time.monotonic()
    for index, request in enumerate(requests):
        waited = now - request.arrival
        if waited > patience:
            answers[index] = Answer(STALE, f'waited {waited:.2f} s for its turn'.encode())
            continue
        try:
            heads[index] = requested_heads(request.body, pipeline)
            packets[index] = read_request(request.body, pipeline)
        except PacketError as error:
            foreign = error.reason is RefusalReason.FOREIGN_MODEL
            answers[index] = Answer(FOREIGN if foreign else WRONG, str(error).encode())
        except MessageError as error:
            answers[index] = Answer(WRONG, str(error).encode())
    answers |= _decode(pipeline, packets, heads)
    return [answers[index] for index in range(len(requests))]


def _decode(
    pipeline: CloudPipeline, packets: dict[int, ValidPacket], heads: dict[int, tuple[str, ...]]
) -> dict[int, Answer]:
    """Decode packets at once; where that fails, one by one."""
    if not packets:
        return {}
    try:
        results = pipeline.decode_with(
            list(packets.values()), [heads[index] for index in packets]
        )
    except Exception as error:  # a payload that is wrong, or memory that is not there
        if len(packets) == 1:
            (index,) = packets
            status = WRONG if isinstance(error, PacketError) else FAILED
            return {index: Answer(status, f'{type(error).__name__}: {error}'.encode())}
        answers: dict[int, Answer] = {}
        for index, packet in packets.items():
            answers |= _decode(pipeline, {index: packet}, heads)
        return answers
    return {
        index: Answer(OK, answer_bytes(result))
        for index, result in zip(packets, results, strict=True)
    }
