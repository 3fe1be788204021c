"""Decoder and heads as a service: what goes there and back, and what becomes of faults."""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from typer.testing import CliRunner

from edge_bundles import picture, small_model
from head_models import KEYPOINTS, write_model_with_heads
from http_engine import HttpEngine
from msfc.cli.main import app
from msfc.heads.head_file import load_heads
from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline, CloudResult
from msfc.pipeline.references import KeyStore
from msfc.pipeline.torch_network import edge_pipeline
from msfc.serving.messages import (
    MessageError,
    answer_bytes,
    read_answer,
    read_request,
    request_bytes,
)
from msfc.serving.remote import EngineError, RemotePipeline
from msfc.serving.replica import Answer, Request, answer_batch
from msfc.serving.settings import ServeSettings, load_settings
from msfc.wire.packet import FeaturePacket, PacketError

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def model() -> SplitModel:
    return small_model('learned')


@pytest.fixture(scope='module')
def local(model: SplitModel) -> CloudPipeline:
    return CloudPipeline(model)


@pytest.fixture(scope='module')
def packet(model: SplitModel) -> FeaturePacket:
    return edge_pipeline(model).encode(picture((61, 90)), 3)


def same(first: CloudResult, second: CloudResult) -> None:
    for name in ('boxes', 'scores', 'labels', 'masks'):
        assert torch.equal(getattr(first.instances, name), getattr(second.instances, name)), name
    assert first.durations.keys() == second.durations.keys()


def test_a_service_s_results_are_the_local_ones(
    model: SplitModel, local: CloudPipeline, packet: FeaturePacket
) -> None:
    with HttpEngine(local) as engine:
        remote = RemotePipeline(model, address=engine.address, timeout=60.0)
        same(remote.decode(packet), local.decode(packet))
        other = edge_pipeline(model).encode(picture((80, 40)), 4)
        found = remote.decode_batch([packet, other, packet])
        same(found[1], local.decode(other))
        same(found[2], local.decode(packet))
        assert engine.requests == 4


def test_frames_against_key_frames(model: SplitModel, local: CloudPipeline) -> None:
    """The gateway keeps the keys: any replica can decode what refers to them."""
    edge = edge_pipeline(model, key_interval=4)
    keys, own_keys = KeyStore(), KeyStore()
    with HttpEngine(local) as engine:
        remote = RemotePipeline(model, address=engine.address, timeout=60.0)
        kinds = set()
        for sequence in range(1, 4):
            packet = edge.encode(picture((64, 96)), sequence)
            kinds.add((packet.is_key, packet.refers))
            found = remote.decode_valid([remote.validate(packet, keys)])
            same(found[0], local.decode_valid([local.validate(packet, own_keys)])[0])
            if packet.is_key:
                edge.keys.acknowledge(sequence)
        assert (True, False) in kinds


@torch.no_grad()
def test_keypoints_and_further_heads(tmp_path: Path) -> None:
    """They come with the answer, and the heads' outputs where they were asked for."""
    model = write_model_with_heads(tmp_path / 'model')
    local = CloudPipeline(model)
    local.heads = load_heads(model, tmp_path / 'model')
    with HttpEngine(local) as engine:
        remote = RemotePipeline(model, address=engine.address, timeout=60.0)
        valid = remote.validate(edge_pipeline(model).encode(picture((61, 90)), 3))
        own = local.validate(valid.packet)
        (found,) = remote.decode_with([valid], [('semantic',)])
        (expected,) = local.decode_with([own], [('semantic',)])
        same(found, expected)
        assert found.instances.keypoints is not None
        assert len(found.instances) > 0
        assert torch.equal(found.instances.keypoints, expected.instances.keypoints)
        assert torch.equal(found.outputs['semantic'], expected.outputs['semantic'])
        assert found.outputs['semantic'].shape == (61, 90)
        (plain,) = remote.decode_valid([valid])
        assert not plain.outputs
        assert torch.equal(plain.instances.keypoints, expected.instances.keypoints)

        right = load(answer_bytes(expected))
        for spoiled in (
            {'output.semantic': right['output.semantic'][1:]},
            {'output.semantic': right['output.semantic'].astype(np.int64)},
            {'keypoints': right['keypoints'][:, 1:]},
            {'durations': right['durations'][:2]},
        ):
            body = save({**right, **spoiled})
            with pytest.raises(MessageError):
                read_answer(body, valid, len(model.class_names), len(KEYPOINTS), ['semantic'])
        with pytest.raises(EngineError, match='has no head depth: give all machines the same'):
            remote.decode_with([valid], [('depth',)])
        arrays = load(request_bytes(own, None, ['semantic']))
        for text in (b'{', b'"semantic"', b'[3]', b'\xff'):
            spoiled = {**arrays, 'heads': np.frombuffer(text, np.uint8)}
            (answer,) = answer_batch(local, [Request(save(spoiled), time.monotonic())], 9.0)
            assert answer.status == 400
            assert b'no names of heads' in answer.body


def test_what_is_wrong_is_refused_here(model: SplitModel, packet: FeaturePacket) -> None:
    remote = RemotePipeline(model, address='http://127.0.0.1:9')
    for change in ({'model': '0' * 16}, {'rate': 77}, {'channels': 1}, {'image_height': 10**8}):
        with pytest.raises(PacketError):
            remote.validate(replace(packet, **change))  # type: ignore[arg-type]


def test_a_service_that_is_away_and_comes_back(
    model: SplitModel, local: CloudPipeline, packet: FeaturePacket
) -> None:
    with HttpEngine(local) as engine:
        remote, port = RemotePipeline(model, address=engine.address, timeout=60.0), engine.port
        remote.decode(packet)
    with pytest.raises(EngineError, match=r'does not answer .* is  msfc serve  running') as caught:
        remote.decode(packet)
    assert caught.value.reason == 'engine_away'
    with HttpEngine(local, port):
        same(remote.decode(packet), local.decode(packet))


def test_answers_that_are_none(
    model: SplitModel, local: CloudPipeline, packet: FeaturePacket
) -> None:
    right = answer_bytes(local.decode(packet))
    spoiled = load(right)
    spoiled['size'] = np.array([5, 5])
    with HttpEngine(local) as engine:
        remote = RemotePipeline(model, address=engine.address, timeout=60.0)
        for answer, reason, words in (
            (Answer(503, b'queues are full'), 'engine_busy', 'is busy: queues are full'),
            (Answer(408, b'waited 3 s'), 'engine_busy', 'waited 3 s'),
            (Answer(500, b'OutOfMemoryError'), 'engine_failed', 'answers 500: OutOfMemory'),
            (Answer(200, b'nonsense'), 'engine_failed', 'not readable'),
            (Answer(200, right[:-9]), 'engine_failed', 'not readable'),
            (Answer(200, save(spoiled)), 'engine_failed', 'does not fit its packet'),
        ):
            engine.answering = lambda body, answer=answer: answer
            with pytest.raises(EngineError, match=words) as caught:
                remote.decode(packet)
            assert caught.value.reason == reason
        engine.answering = lambda body: Answer(409, b'made for another model')
        with pytest.raises(PacketError, match='made for another model'):
            remote.decode(packet)
        slow = RemotePipeline(model, address=engine.address, timeout=0.5)
        engine.answering = lambda body: time.sleep(1.0) or Answer(200, right)  # type: ignore
        with pytest.raises(EngineError, match=r'no answer within 0\.5 s') as caught:
            slow.decode(packet)
        assert caught.value.reason == 'engine_away'
        engine.answering = None
        same(remote.decode(packet), local.decode(packet))


@pytest.mark.parametrize('address', ['10.0.0.2:8000', 'http://', 'https://a:1', 'http://a:no'])
def test_addresses(address: str, model: SplitModel) -> None:
    with pytest.raises(ValueError, match='is no address of a service'):
        RemotePipeline(model, address=address)


# -- the replica --


def request(local: CloudPipeline, packet: FeaturePacket, code: bool = False) -> bytes:
    valid = local.validate(packet)
    return request_bytes(valid, local.read(valid) if code else None)


def test_a_batch_has_an_answer_for_each(
    model: SplitModel, local: CloudPipeline, packet: FeaturePacket
) -> None:
    now = time.monotonic()
    body = request(local, packet)
    other = CloudPipeline(small_model('msfc'))
    foreign = request(other, edge_pipeline(other.model).encode(picture((32, 32)), 1))
    answers = answer_batch(
        local,
        [Request(body, now), Request(b'', now), Request(body, now - 9000), Request(foreign, now),
         Request(request(local, packet, code=True), now)],
        patience=900.0,
    )
    assert [answer.status for answer in answers] == [200, 400, 408, 409, 200]
    valid = local.validate(packet)
    classes = len(model.class_names)
    # The last bits of results depend on how many are computed at once.
    for index, expected in zip((0, 4), local.decode_batch([packet, packet]), strict=True):
        same(read_answer(answers[index].body, valid, classes), expected)
    assert b'waited 90' in answers[2].body


def test_one_request_s_trouble_is_not_the_others(
    local: CloudPipeline, packet: FeaturePacket, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CloudPipeline.decode_with

    def failing(self, packets, wanted):  # type: ignore[no-untyped-def]
        if any(valid.packet.sequence == 13 for valid in packets):
            raise RuntimeError('no memory')
        return real(self, packets, wanted)

    monkeypatch.setattr(CloudPipeline, 'decode_with', failing)
    now = time.monotonic()
    bodies = [request(local, replace(packet, sequence=number)) for number in (12, 13, 14)]
    answers = answer_batch(local, [Request(body, now) for body in bodies], 9.0)
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert answers[1].body == b'RuntimeError: no memory'


def test_requests_that_are_none(local: CloudPipeline, packet: FeaturePacket) -> None:
    arrays = load(request(local, packet, code=True))
    numbers = json.loads(arrays['packet'].tobytes())

    def packed(**changes: object) -> np.ndarray:
        return np.frombuffer(json.dumps({**numbers, **changes}).encode(), np.uint8)

    for spoiled in (
        {},
        {'packet': arrays['packet']},
        {**arrays, 'packet': packed(more=1)},
        {**arrays, 'packet': np.frombuffer(b'[1]', np.uint8)},
        {**arrays, 'code': arrays['code'][:, 1:]},
        {**arrays, 'code': arrays['code'].astype(np.float64)},
        {**arrays, 'code': np.full_like(arrays['code'], np.nan)},
    ):
        with pytest.raises(MessageError):
            read_request(save(spoiled), local)
    with pytest.raises(PacketError):
        read_request(save({**arrays, 'packet': packed(image_height=10**9)}), local)


# -- settings and command --


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / 'serve.yaml'
    path.write_text('model: tabletop\nreplicas: 2\nmost_replicas: 4\ngpus: 0.25\n')
    assert load_settings(path) == ServeSettings(
        model='tabletop', replicas=2, most_replicas=4, gpus=0.25
    )
    for text, words in (
        ('replica: 2', 'unknown replica; there is model, device'),
        ('replicas: 0', 'replicas is 0, not 1 to'),
        ('replicas: 4\nmost_replicas: 2', 'fewer than the 4 replicas'),
        ('max_ongoing: 4', 'a batch of 8 never comes about'),
        ('model: 3', 'model is 3, not a text'),
        ('- 1', 'has no settings'),
        ('a: [', 'is no YAML file'),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load_settings(path)


@pytest.mark.skipif(importlib.util.find_spec('ray') is not None, reason='Ray is here')
def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / 'serve.yaml'
    path.write_text('replicas: 1\n')
    result = CliRunner().invoke(app, ['serve', str(path)])
    assert result.exit_code == 1
    assert "run  pip install 'ray[serve]'" in result.output
