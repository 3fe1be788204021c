"""A service like that of ``msfc serve``, without Ray, for the tests of what asks it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msfc.pipeline.cloud import CloudPipeline
from msfc.serving.replica import Answer, Request, answer_batch

Answering = Callable[[bytes], Answer]


class HttpEngine:
    """Answers requests on this machine; as a context manager it ends on leaving.

    Args:
        pipeline: decodes.
        port: to listen at; 0 for a free one.
    """

    def __init__(self, pipeline: CloudPipeline, port: int = 0) -> None:
        lock = threading.Lock()
        self.requests = 0
        self.answering: Answering | None = None
        self._open: set[socket.socket] = set()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def setup(self) -> None:
                super().setup()
                engine._open.add(self.connection)

            def finish(self) -> None:
                engine._open.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers['Content-Length']))
                engine.requests += 1
                if engine.answering is not None:
                    answer = engine.answering(body)
                else:
                    with lock:
                        (answer,) = answer_batch(pipeline, [Request(body, time.monotonic())], 9.0)
                self.send_response(answer.status)
                self.send_header('Content-Length', str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(('127.0.0.1', port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f'http://127.0.0.1:{self.port}'
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> HttpEngine:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
