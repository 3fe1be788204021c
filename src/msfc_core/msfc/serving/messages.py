"""What goes between the gateway and the replicas, as the bodies of HTTP requests and answers.

Both are safetensors: arrays by name, which no reader runs code for. A request has ``packet`` (the
numbers of a packet, as JSON), ``data`` (its payload), or ``code`` where the gateway has read it:
key frames are kept there, and frames that refer to them are read with them; and ``heads`` (names,
as JSON) where further heads are to be asked. An answer has the instances, masks in packed bits,
and ``output.<name>`` of each of these heads.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from msfc.pipeline.cloud import CloudPipeline, CloudResult
from msfc.types import Instances, Size
from msfc.wire.packet import FeaturePacket, PacketError, ValidPacket, packet_fields

STAGES = ('unpack', 'decode', 'infer', 'heads')
"""The receiver's stages, in the order of their times in an answer; the last where heads were asked
for an image that was decoded at the same time."""

OUTPUT = 'output.'
"""In front of a head's name."""

_NUMBERS = tuple(entry.name for entry in packet_fields() if entry.name != 'data')


class MessageError(ValueError):
    """Bytes that are no request, or no answer; the message says why."""


def request_bytes(
    valid: ValidPacket, code: NDArray[np.float32] | None, heads: Collection[str] = ()
) -> bytes:
    """Return a request to decode a packet.

    Args:
        valid: the packet.
        code: its code, C' x h x w, where it has been read.
        heads: names of further heads that are to be asked.
    """
    packet = valid.packet
    numbers = json.dumps({name: getattr(packet, name) for name in _NUMBERS}).encode()
    arrays: dict[str, NDArray[Any]] = {'packet': np.frombuffer(numbers, np.uint8)}
    if code is None:
        arrays['data'] = np.frombuffer(packet.data, np.uint8)
    else:
        arrays['code'] = np.ascontiguousarray(code, np.float32)
    if heads:
        arrays['heads'] = np.frombuffer(json.dumps(sorted(heads)).encode(), np.uint8)
    return bytes(save(arrays))


def packet_request(
    valid: ValidPacket, pipeline: CloudPipeline, heads: Collection[str] = ()
) -> bytes:
    """Return a request to decode a packet, with its code where that takes a key frame.

    Args:
        valid: what the pipeline's ``validate`` returned.
        pipeline: that checked it, and keeps the key frames.
        heads: names of further heads that are to be asked.

    Raises:
        PacketError: if reading the payload shows that it cannot be decoded.
    """
    read_here = valid.code is not None or valid.key is not None
    return request_bytes(valid, pipeline.read(valid) if read_here else None, heads)


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


def requested_heads(body: bytes, pipeline: CloudPipeline) -> tuple[str, ...]:
    """Return the names of the heads that a request asks.

    Raises:
        MessageError: they are none, or the pipeline has no such head.
    """
    array = _load(body).get('heads')
    if array is None:
        return ()
    try:
        names = json.loads(array.tobytes())
    except ValueError as error:
        raise MessageError(f'no names of heads: {error}') from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MessageError(f'no names of heads: {names!r}')
    unknown = [name for name in names if name not in pipeline.heads]
    if unknown:
        raise MessageError(
            f'the model here has no head {", ".join(unknown)}: give all machines the same model'
        )
    return tuple(names)


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
    times = [result.durations[name] for name in STAGES if name in result.durations]
    arrays: dict[str, NDArray[Any]] = {
        'boxes': found.boxes.numpy().astype(np.float32),
        'scores': found.scores.numpy().astype(np.float32),
        'labels': found.labels.numpy().astype(np.int64),
        'masks': np.packbits(masks.reshape(len(masks), -1), axis=1),
        'size': np.array(masks.shape[1:], np.int64),
        'durations': np.array(times),
    }
    if found.keypoints is not None:
        arrays['keypoints'] = found.keypoints.numpy().astype(np.float32)
    for name, output in result.outputs.items():
        arrays[f'{OUTPUT}{name}'] = np.ascontiguousarray(output.numpy())
    return bytes(save(arrays))


def read_answer(
    body: bytes, valid: ValidPacket, classes: int, keypoints: int = 0, heads: Collection[str] = ()
) -> CloudResult:
    """Read and check the answer to a packet.

    Args:
        body: of the answer.
        valid: the packet.
        classes: number of the model's classes.
        keypoints: number of keypoints that its detector finds.
        heads: names of the further heads that were asked.

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
            and len(STAGES) - 1 <= len(arrays['durations']) <= len(STAGES)
            and count <= valid.max_instances
            and (not keypoints or arrays['keypoints'].shape == (count, keypoints, 3))
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
            keypoints=torch.from_numpy(arrays['keypoints']) if keypoints else None,
        )
        durations = dict(zip(STAGES, map(float, arrays['durations']), strict=False))
        outputs = {name: _pixels(arrays[f'{OUTPUT}{name}'], (height, width)) for name in heads}
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f'no answer to a packet: {error}') from error
    return CloudResult(instances, durations, outputs)


def _pixels(array: NDArray[Any], size: Size) -> torch.Tensor:
    """Return what a head made of an image.

    Raises:
        ValueError: it is not a byte for each pixel.
    """
    if array.dtype != np.uint8 or array.shape != size:
        raise ValueError(f'a head answers with {array.dtype}, {array.shape}, not {size}')
    return torch.from_numpy(array)


def _load(body: bytes) -> dict[str, NDArray[Any]]:
    try:
        arrays: dict[str, NDArray[Any]] = load(body)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MessageError(f'not readable: {error}') from error
    return arrays
