"""Both nodes on two hosts with a shaped link between them: for tests and a benchmark."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from agents import Agent, wait_until
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.torchvision import TorchvisionConfig, TorchvisionDetector
from msfc.model import SplitModel
from msfc.model_file import save_model
from msfc_demo.arrangements import seldom_announced
from msfc_demo.shaped_link import ShapedHosts
from msfc_ros.fast_dds import PROFILE, VARIABLES
from ros_fixtures import NodeProcess

HEIGHT, WIDTH = 32, 96
"""Of the images, and of the network's input: three cells of the code."""

CODE_CHANNELS = 853
"""Of the code: payloads are as large as those of the shipped model for 640 x 480, 640 bytes at n =
2 and twice as many for each n that follows."""

PATIENCE = 120.0
"""Seconds until a wait has failed."""

PERIOD = 0.1
"""Seconds between two diagnostics."""

TASKS = {'edge': 'encoding', 'cloud': 'decoding'}

SMALLEST = 600
"""Bytes from which on a datagram to the cloud is taken for features."""


def save_small_model(directory: Path) -> None:
    """Write a small model with random weights and large messages."""
    torch.manual_seed(0)
    config = TorchvisionConfig(
        class_names=('ant', 'bee', 'cat'),
        backbone='resnet18',
        fpn_channels=32,
        box_head_channels=32,
        mask_head_layers=1,
        min_size=HEIGHT,
        max_size=WIDTH,
        rpn_pre_nms=50,
        rpn_post_nms=8,
        score_threshold=0.01,
        max_detections=5,
    )
    codec = MSFC(MSFCConfig(channels=32, code_channels=CODE_CHANNELS))
    save_model(SplitModel(TorchvisionDetector(config).eval(), codec, 4), directory)


class LinkPair:
    """An edge and a cloud node with a link between them; a context manager.

    Each has an agent beside it; that of the edge is the camera too. Diagnostics do not cross the
    link, or they would fill it, and processes announce themselves as seldom as docs/network.md
    says for thin links.

    Args:
        folder: for logs and the model.
        adaptive: whether the edge is.
        rate: of the edge; -2 takes the best of all that fits.
    """

    def __init__(self, folder: Path, adaptive: bool, rate: int = -2) -> None:
        profile = folder / 'fast_dds.xml'
        profile.write_bytes(seldom_announced(PROFILE))
        environment = {
            'ROS_DOMAIN_ID': '7',  # nobody else is in there
            'ROS_LOG_DIR': str(folder),
            'OMP_NUM_THREADS': '1',
            'PYTHONUNBUFFERED': '1',
            **dict.fromkeys(VARIABLES, str(profile)),
        }
        self._folder = folder
        self._agents: dict[str, Agent] = {}
        self._nodes: dict[str, NodeProcess] = {}
        model = folder / 'model'
        if not model.exists():
            save_small_model(model)
        self.hosts = ShapedHosts(environment)
        try:
            self._start(model, adaptive, rate)
        except BaseException:
            self.close()
            raise

    def _start(self, model: Path, adaptive: bool, rate: int) -> None:
        hosts = {'edge': self.hosts.robot, 'cloud': self.hosts.cloud}
        remap = {
            name: ('--ros-args', '-r', f'/diagnostics:=/{name}_diagnostics') for name in hosts
        }
        for name, host in hosts.items():
            log = self._folder / f'agent_{name}.log'
            self._agents[name] = Agent(host, log, *remap[name])
            assert self._agents[name].ask('ready')
        self._agents['cloud'].ask('listen')
        best_effort = {'qos__features__reliability': 'best_effort'}
        common = {'model': model, 'diagnostics_period': PERIOD, **best_effort}
        parameters: dict[str, dict[str, Any]] = {
            'edge': {'adaptive': adaptive, 'rate': rate, 'qos__image__reliability': 'reliable'},
            'cloud': {},
        }
        for name, own in parameters.items():
            self._nodes[name] = NodeProcess(
                f'msfc_{name}',
                f'{name}_node',
                remap[name],
                common | own,
                self._folder,
                hosts[name].prefix,
            )
        self.wait(
            lambda: all(
                self._agents[name].ask('counterparts', topic=topic)[place]
                for name, topic, place in (
                    ('edge', 'image_raw', 1), ('edge', 'features', 1), ('cloud', 'features', 0),
                )
            ),
            'the nodes to find each other',
        )  # fmt: skip

    def __enter__(self) -> LinkPair:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        for node in self._nodes.values():
            if node.running():
                node.stop(signal.SIGKILL)
        for agent in self._agents.values():
            agent.kill()
        self.hosts.close()

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """Wait until a condition holds and return its value; no node may die meanwhile."""

        def checked() -> Any:
            for node in self._nodes.values():
                assert node.running(), node.output[-3000:]
            return condition()

        return wait_until(checked, what, timeout, 0.1)

    def set_edge(self, name: str, value: Any) -> None:
        """Set a parameter of the edge."""
        refused = self._agents['edge'].ask(
            'set_parameter', node='msfc_edge', name=name, value=value
        )
        assert not refused, refused

    def film(self, rate: float) -> None:
        """Let the camera publish images for ever."""
        self._agents['edge'].ask('film', height=HEIGHT, width=WIDTH, rate=rate, count=0)

    def stop_filming(self) -> None:
        """Let the camera publish no more images."""
        self._agents['edge'].ask('stop')

    def status(self, name: str) -> Mapping[str, Any]:
        """Return the last diagnostics of a node: level, message, values, when it came."""
        nothing = {'message': '', 'values': {}, 'time': 0.0}
        return dict(self._agents[name].ask('diagnostics').get(TASKS[name], nothing))

    def value(self, name: str, key: str) -> float:
        """Return a value of a node's last diagnostics; 0 if it is not there."""
        return float(self.status(name)['values'].get(key, 0.0))

    def features(self) -> list[list[Any]]:
        """Return time, bytes and delay of what was sent to the cloud since this was last asked."""
        return self.hosts.datagrams(SMALLEST)

    def features_for(self, seconds: float) -> list[list[Any]]:
        """Return the same of the next seconds."""
        self.features()
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, 'the time to pass')
        return self.features()
