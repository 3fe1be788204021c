"""Instances of bags on a Ray cluster: Ray Data's actors decode, this process reads and writes.

Packets are checked here, and key frames read, as a gateway does it
(:mod:`msfc.serving.messages`); so workers need the model, and no access to the bags. Importing
this module needs Ray: ``pip install 'ray[data]'``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from msfc.bags.conversion import header_of
from msfc.bags.inference import Found, Pending, find_together
from msfc.pipeline.cloud import CloudPipeline
from msfc.serving.cluster import join
from msfc.serving.messages import packet_request, read_request
from msfc.wire.packet import DecodeLimits, PacketError, RefusalReason

WINDOW = 50_000
"""Messages that are read before they are decoded; for each so many the workers start anew."""

WINDOW_BYTES = 256 * 2**20
"""Bytes of them at most: requests with codes are large."""

BLOCK = 16
"""Messages that a worker gets at once at most; what is written of them is lost with it."""


@dataclass(frozen=True)
class RayFinder:
    """Finds instances on a Ray cluster.

    Attributes:
        model: name or folder of the model, the same on every machine.
        device: ``cpu`` or ``cuda``, of the workers.
        workers: how many there are; 0 for as many as there are GPUs or cores.
        gpus: share of a GPU that each has, with ``cuda``.
        batch: images that a worker decodes at once.
        address: of the cluster; empty to start one on this machine.
    """

    model: str
    device: str = 'cpu'
    workers: int = 0
    gpus: float = 1.0
    batch: int = 1
    address: str = ''

    def __call__(
        self, pipeline: CloudPipeline, pending: Iterable[Pending], score_threshold: float
    ) -> Iterator[Found]:
        """Find instances, see :data:`msfc.bags.inference.Finder`.

        Raises:
            ConnectionError: there is no cluster at the address.
            ValueError: Ray does not start, has no room for a worker, or workers fail.
        """
        joined = not ray.is_initialized()
        try:
            join(self.address)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        try:
            for window in _windows(pipeline, pending):
                yield from self._decode(pipeline, window, score_threshold)
        except RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise ValueError(f'the workers on Ray failed: {last}') from error
        finally:
            if joined:
                ray.shutdown()

    def _decode(
        self, pipeline: CloudPipeline, window: list[dict[str, Any] | PacketError], threshold: float
    ) -> Iterator[Found]:
        """Yield what becomes of a window's requests, in their order."""
        rows = [row for row in window if not isinstance(row, PacketError)]
        answers = self._answers(pipeline, rows, threshold) if rows else iter(())
        for row in window:
            yield row if isinstance(row, PacketError) else next(answers)

    def _answers(
        self, pipeline: CloudPipeline, rows: list[dict[str, Any]], threshold: float
    ) -> Iterator[Found]:
        workers = self.workers or self._places()
        share = self.gpus if self.device == 'cuda' else 0.0
        step = min(BLOCK, -(-len(rows) // (4 * workers)))
        step = max(self.batch, step // self.batch * self.batch)
        blocks = [_table(rows[at : at + step]) for at in range(0, len(rows), step)]
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger('ray.data').setLevel(logging.WARNING)  # there is a progress bar
        found = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(
                self.model, self.device, pipeline.fingerprint, pipeline.limits, threshold
            ),
            batch_size=self.batch,
            batch_format='pyarrow',
            compute=ActorPoolStrategy(size=min(workers, len(blocks))),
            num_cpus=1,
            num_gpus=share,
        )
        for row in found.iter_rows():
            if row['data'] is None:
                yield PacketError(RefusalReason(row['reason']), row['sentence'])
            else:
                yield row['data']

    def _places(self) -> int:
        """Return how many workers the cluster has room for."""
        resources = ray.cluster_resources()
        if self.device == 'cuda':
            room = int(resources.get('GPU', 0) / self.gpus)
        else:
            room = int(resources.get('CPU', 0))
        if not room:
            raise ValueError(
                f'no machine of the Ray cluster has room for a worker on {self.device}: it has '
                + ', '.join(f'{name} {number:g}' for name, number in sorted(resources.items()))
            )
        return room


class _Worker:
    """Decodes batches of rows in a process of Ray's.

    Args:
        model: name or folder.
        device: ``cpu`` or ``cuda``.
        fingerprint: that the model must have.
        limits: what to accept.
        threshold: instances with a lower score are left out.

    Raises:
        ValueError: if the model of this machine is another one.
    """

    def __init__(
        self, model: str, device: str, fingerprint: str, limits: DecodeLimits, threshold: float
    ) -> None:
        from msfc.model_file import load_model

        self._pipeline = CloudPipeline(load_model(model, device), limits)
        self._threshold = threshold
        if self._pipeline.fingerprint != fingerprint:
            raise ValueError(
                f'model {model} of this machine is {self._pipeline.fingerprint}, and that of the '
                f'features {fingerprint}: put the same model on every machine'
            )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row of ``data``, ``reason`` and ``sentence`` for each request."""
        items: list[Pending | PacketError] = [self._read(row) for row in batch.to_pylist()]
        found = self._find(items)
        return _columns(
            data=[None if isinstance(one, PacketError) else one for one in found],
            reason=[str(one.reason) if isinstance(one, PacketError) else '' for one in found],
            sentence=[str(one) if isinstance(one, PacketError) else '' for one in found],
        )

    def _read(self, row: dict[str, Any]) -> Pending | PacketError:
        try:
            valid = read_request(row['request'], self._pipeline)
        except PacketError as error:
            return error
        return Pending(valid, header_of(row['seconds'], row['nanoseconds'], row['frame_id']))

    def _find(self, items: list[Pending | PacketError]) -> list[Found]:
        """Decode what can be decoded at once; where that fails, one by one."""
        good = [item for item in items if isinstance(item, Pending)]
        try:
            made = iter(find_together(self._pipeline, good, self._threshold) if good else ())
        except Exception as error:  # a payload that is wrong, or memory that is not there
            if len(items) > 1:
                return [one for item in items for one in self._find([item])]
            if not isinstance(error, PacketError):
                raise
            return [error]
        return [next(made) if isinstance(item, Pending) else item for item in items]


def _windows(
    pipeline: CloudPipeline, pending: Iterable[Pending]
) -> Iterator[list[dict[str, Any] | PacketError]]:
    """Yield rows for the workers, many at once; what shows to be wrong already is among them."""
    rows: list[dict[str, Any] | PacketError] = []
    size = 0
    for item in pending:
        row = _row(pipeline, item)
        rows.append(row)
        size += 0 if isinstance(row, PacketError) else len(row['request'])
        if len(rows) >= WINDOW or size >= WINDOW_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(pipeline: CloudPipeline, item: Pending) -> dict[str, Any] | PacketError:
    try:
        request = packet_request(item.valid, pipeline)
    except PacketError as error:
        return error
    stamp = item.header.stamp
    return {
        'request': request, 'seconds': stamp.sec, 'nanoseconds': stamp.nanosec,
        'frame_id': item.header.frame_id,
    }


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return _columns(**{name: [row[name] for row in rows] for name in rows[0]})


def _columns(**values: list[Any]) -> pa.Table:
    """Return a table; bytes of any length, as those of many masks."""
    kinds = {'request': pa.large_binary(), 'data': pa.large_binary()}
    return pa.table({name: pa.array(column, kinds.get(name)) for name, column in values.items()})
