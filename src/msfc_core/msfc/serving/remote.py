"""The cloud's pipeline where decoder and heads are a service elsewhere.

Packets are checked here, key frames read and kept here; what is left of the work goes by HTTP to a
service as ``msfc serve`` runs it. No Ray is needed on this side.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline, CloudResult
from msfc.serving.messages import MessageError, packet_request, read_answer
from msfc.wire.packet import DecodeLimits, PacketError, RefusalReason, ValidPacket

PATH = '/decode'

TIMEOUT = 2.0
"""Seconds that an answer is waited for."""

CONNECTIONS = 64
"""Requests under way at the same time at most."""

BUSY, STALE, FOREIGN = 503, 408, 409
"""Statuses of answers without a result: queues are full, it waited too long, another model."""


class EngineError(RuntimeError):
    """The service gave no result for a packet.

    Attributes:
        reason: why, in a word: ``engine_away``, ``engine_busy`` or ``engine_failed``.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class RemotePipeline(CloudPipeline):
    """Packet to instances by a service.

    Args:
        model: as the service has it; its detector does nothing here.
        limits: what it is willing to have decoded.
        address: of the service, such as ``http://10.0.0.2:8000``; several with commas between,
            of which the next is asked where one does not answer.
        timeout: seconds that an answer is waited for.

    Raises:
        ValueError: if an address is none, or the model has no codec.
    """

    def __init__(
        self,
        model: SplitModel,
        limits: DecodeLimits | None = None,
        address: str = 'http://127.0.0.1:8000',
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(model, limits)
        self._hosts = check_addresses(address)
        self._at = 0  # which of them is asked
        self.address = address
        self._timeout = timeout
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix='engine')

    def decode_with(
        self, packets: Sequence[ValidPacket], wanted: Sequence[Collection[str]]
    ) -> list[CloudResult]:
        """Have packets decoded, all at the same time.

        Args:
            packets: what :meth:`validate` returned.
            wanted: for each, names of :attr:`heads`; the service asks its own of these names.

        Returns:
            One result per packet, in their order.

        Raises:
            ValueError: if one was checked by another pipeline.
            PacketError: if one cannot be decoded.
            EngineError: if the service gave no result for one.
        """
        if any(valid.spec is not self._spec for valid in packets):
            raise ValueError('a packet that was checked for another pipeline')
        if len(packets) == 1:
            return [self._ask(packets[0], wanted[0])]
        return list(self._pool.map(self._ask, packets, wanted))

    def _ask(self, valid: ValidPacket, heads: Collection[str]) -> CloudResult:
        body = packet_request(valid, self, heads)
        at = self._at
        host = 'http://{}:{}'.format(*self._hosts[at])
        try:
            status, answer = self._post(at, body)
        except EngineError:
            self._leave(at)
            raise
        if status == http.client.OK:
            try:
                keypoints = len(self.model.detector.keypoint_names)
                return read_answer(
                    answer, valid, len(self.model.class_names), keypoints, heads
                )
            except MessageError as error:
                raise EngineError('engine_failed', f'{host}: {error}') from error
        words = answer[:500].decode(errors='replace').strip()
        if status == FOREIGN:
            raise PacketError(RefusalReason.FOREIGN_MODEL, f'at {host}: {words}')
        if status in (BUSY, STALE):
            raise EngineError('engine_busy', f'{host} is busy: {words}')
        if status == http.client.NOT_FOUND:
            self._leave(at)
            raise EngineError(
                'engine_away', f'no service at {host} ({words}): is  msfc serve  running there?'
            )
        raise EngineError('engine_failed', f'{host} answers {status}: {words}')

    def _leave(self, at: int) -> None:
        """Ask the next address from now on, unless another thread has seen to it."""
        if self._at == at:
            self._at = (at + 1) % len(self._hosts)

    def _post(self, at: int, body: bytes) -> tuple[int, bytes]:
        """Send a request to an address; return status and body of the answer.

        Raises:
            EngineError: there is none.
        """
        kept_at, kept = getattr(self._local, 'connection', (at, None))
        if kept is not None and kept_at != at:
            self._forget(kept)
        elif kept is not None:
            try:
                return _exchange(kept, body)
            except TimeoutError as error:
                self._forget(kept)
                raise self._away(at, error) from error
            except (OSError, http.client.HTTPException):
                self._forget(kept)  # closed meanwhile: a new one tells whether the service is away
        fresh = http.client.HTTPConnection(*self._hosts[at], timeout=self._timeout)
        try:
            found = _exchange(fresh, body)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise self._away(at, error) from error
        self._local.connection = at, fresh
        return found

    def _forget(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        del self._local.connection

    def _away(self, at: int, error: Exception) -> EngineError:
        late = isinstance(error, TimeoutError)
        words = f'no answer within {self._timeout:g} s' if late else str(error)
        return EngineError(
            'engine_away',
            'http://{}:{} does not answer ({}): is  msfc serve  running there?'.format(
                *self._hosts[at], words
            ),
        )


def _exchange(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request('POST', PATH, body, {'Content-Type': 'application/octet-stream'})
    response = connection.getresponse()
    return response.status, response.read()


def check_addresses(addresses: str) -> list[tuple[str, int]]:
    """Return hosts and ports of addresses with commas between.

    Raises:
        ValueError: one is none.
    """
    return [_check_address(address.strip()) for address in addresses.split(',')]


def _check_address(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != 'http' or not parts.hostname or not port:
        raise ValueError(
            f'{address!r} is no address of a service: write it as http://10.0.0.2:8000'
        )
    return parts.hostname, port
