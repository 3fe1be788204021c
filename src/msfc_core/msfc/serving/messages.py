"""What goes between the gateway and the replicas, as the bodies of HTTP requests and answers.

Both are safetensors: arrays by name, which no reader runs code for. A request has ``packet`` (the
numbers of a packet, as JSON), ``data`` (its payload), and ``code`` where the gateway has read it:
key frames are kept there, and frames that refer to them are read with them. An answer has the
instances, masks in packed bits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from msfc.pipeline.cloud import CloudPipeline, CloudResult
from msfc.types import Instances
from msfc.wire.packet import FeaturePacket, PacketError, ValidPacket, packet_fields

STAGES = ('unpack', 'decode', 'infer')
"""The receiver's stages, in the order of their times in an answer."""

_NUMBERS = tuple(entry.name for entry in packet_fields() if entry.name != 'data')


class MessageError(ValueError):
    """Bytes that are no request, or no answer; the message says why."""


def request_bytes(valid: ValidPacket, code: NDArray[np.float32] | None) -> bytes:
    """Return a request to decode a packet.

    Args:
        valid: the packet.
        code: its code, C' x h x w, where it has been read.
    """
    packet = valid.packet
    numbers = json.dumps({name: getattr(packet, name) for name in _NUMBERS}).encode()
    arrays: dict[str, NDArray[Any]] = {'packet': np.frombuffer(numbers, np.uint8)}
    if code is None:
        arrays['data'] = np.frombuffer(packet.data, np.uint8)
    else:
        arrays['code'] = np.ascontiguousarray(code, np.float32)
    return bytes(save(arrays))


def read_request(body: bytes, pipeline: CloudPipeline) -> ValidPacket:
    """Read and check a request.

    Raises:
        MessageError: it is none.
        PacketError: the pipeline cannot decode the packet, such as one of another model.
    """
    arrays = _load(body)
    try:
        numbers = json.loads(arrays['packet'].tobytes())
        code = arrays.get('code')
        data = b'' if code is not None else arrays['data'].tobytes()
        packet = FeaturePacket(**numbers, data=data)
        if code is None:
            return pipeline.validate(packet)
        return _with_code(packet, code, pipeline)
    except PacketError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MessageError(f'no request to decode a packet: {error}') from error


def _with_code(
    packet: FeaturePacket, code: NDArray[Any], pipeline: CloudPipeline
) -> ValidPacket:
    """Return a packet whose code was read elsewhere, with all else of it checked.

    Raises:
        PacketError: the pipeline cannot decode it.
        ValueError: the code is not that of the packet.
    """
    if code.dtype != np.float32 or code.shape != packet.code_shape or not np.isfinite(code).all():
        raise ValueError(f'a code of {code.dtype}, {code.shape}, not {packet.code_shape}')
    return replace(pipeline.check_read(packet), code=code)


def answer_bytes(result: CloudResult) -> bytes:
    """Return the answer of a result."""
    found = result.instances
    masks = found.masks.numpy()
    return bytes(
        save({
            'boxes': found.boxes.numpy().astype(np.float32),
            'scores': found.scores.numpy().astype(np.float32),
            'labels': found.labels.numpy().astype(np.int64),
            'masks': np.packbits(masks.reshape(len(masks), -1), axis=1),
            'size': np.array(masks.shape[1:], np.int64),
            'durations': np.array([result.durations[name] for name in STAGES]),
        })
    )


def read_answer(body: bytes, valid: ValidPacket, classes: int) -> CloudResult:
    """Read and check the answer to a packet.

    Args:
        body: of the answer.
        valid: the packet.
        classes: number of the model's classes.

    Raises:
        MessageError: it is none, or not the answer to this packet.
    """
    arrays = _load(body)
    try:
        height, width = valid.packet.image_size
        count = len(arrays['scores'])
        right = (
            tuple(arrays['size']) == (height, width)
            and arrays['boxes'].shape == (count, 4)
            and arrays['labels'].shape == arrays['scores'].shape == (count,)
            and arrays['masks'].shape == (count, -(-height * width // 8))
            and arrays['durations'].shape == (len(STAGES),)
            and count <= valid.max_instances
            and all(0 <= label < classes for label in arrays['labels'])
        )
        if not right:
            raise ValueError('it does not fit its packet')
        bits = np.unpackbits(arrays['masks'], axis=1, count=height * width)
        instances = Instances(
            torch.from_numpy(arrays['boxes']),
            torch.from_numpy(arrays['scores']),
            torch.from_numpy(arrays['labels']),
            torch.from_numpy(bits.reshape(count, height, width).astype(bool)),
        )
        durations = dict(zip(STAGES, map(float, arrays['durations']), strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f'no answer to a packet: {error}') from error
    return CloudResult(instances, durations)


def _load(body: bytes) -> dict[str, NDArray[Any]]:
    try:
        arrays: dict[str, NDArray[Any]] = load(body)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MessageError(f'not readable: {error}') from error
    return arrays
