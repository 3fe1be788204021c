"""The service on a local Ray cluster: results, a replica that is killed, another model."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip('ray', reason="needs Ray: pip install 'ray[serve]'")

from edge_bundles import picture, save_small_model
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from msfc.serving.remote import EngineError, RemotePipeline
from msfc.serving.settings import ServeSettings
from msfc.wire.packet import PacketError

PATIENCE = 240.0
"""Seconds for a replica to start."""


@pytest.fixture(scope='module')
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeSettings]:
    from msfc.serving.application import start, stop

    folder = save_small_model(tmp_path_factory.mktemp('model') / 'learned', 'learned')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    settings = ServeSettings(
        model=str(folder), device='cpu', cpus=0.1, threads=1, port=port, patience=30.0
    )
    start(settings)
    yield settings
    stop()


@pytest.mark.timeout(900)
def test_a_service(service: ServeSettings, tmp_path: Path) -> None:
    from ray.util.state import list_actors

    from msfc.serving.application import start

    model = load_model(service.model)
    packet = edge_pipeline(model).encode(picture((61, 90)), 1)
    remote = RemotePipeline(model, address=f'http://127.0.0.1:{service.port}', timeout=30.0)
    expected = len(CloudPipeline(model).decode(packet).instances)
    assert [len(r.instances) for r in remote.decode_batch([packet] * 3)] == [expected] * 3

    replicas = [actor for actor in list_actors() if 'decoder' in (actor.class_name or '').lower()]
    pids = [actor.pid for actor in replicas if actor.state == 'ALIVE']
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    end, lost = time.monotonic() + PATIENCE, 0
    while True:
        try:
            assert len(remote.decode(packet).instances) == expected
            break
        except EngineError:
            lost += 1
            assert time.monotonic() < end, 'it does not come back'
            time.sleep(0.2)

    other = save_small_model(tmp_path / 'other', 'msfc')
    start(ServeSettings(model=str(other), device='cpu', cpus=0.1, threads=1, port=service.port))
    with pytest.raises(PacketError, match=r'fingerprint|model'):
        remote.decode(packet)
