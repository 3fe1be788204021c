"""Decoder and heads as a Ray Serve application.

Importing this module needs Ray: ``pip install 'ray[serve]'``.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any

import ray
from ray import serve
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from msfc.serving.cluster import join
from msfc.serving.remote import PATH
from msfc.serving.replica import FAILED, OK, Answer, Request, answer_batch
from msfc.serving.settings import ServeSettings

NAME = 'msfc'
"""Of the application: a service that is there under it is replaced, replica by replica."""

ANSWER = 30.0
"""Seconds that a service that has just started has for its first answer."""

HOPELESS = 5
"""Batches of which nothing succeeded, one after the other, before a replica is replaced."""


class Decoder:
    """A replica: a model, and batches of requests for it.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: ServeSettings) -> None:
        import torch

        from msfc.heads.head_file import load_heads
        from msfc.model_file import load_model
        from msfc.pipeline.cloud import CloudPipeline

        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = settings.device
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._patience = settings.patience
        model = load_model(settings.model).to(device)
        self._pipeline = CloudPipeline(model)
        self._pipeline.heads = load_heads(model, settings.model)
        # One: the replica goes on taking requests while it decodes, so that their waiting counts.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='decoder')
        self._failed = 0
        self._answer.set_max_batch_size(settings.max_batch)
        self._answer.set_batch_wait_timeout_s(settings.batch_wait)

    async def __call__(self, request: HttpRequest) -> Response:
        """Answer a request of a gateway, or say who answers."""
        if not request.url.path.endswith(PATH):
            return JSONResponse({'model': self._pipeline.fingerprint, 'process': os.getpid()})
        answer: Answer = await self._answer(Request(await request.body(), time.monotonic()))
        return Response(
            answer.body, status_code=answer.status, media_type='application/octet-stream'
        )

    @serve.batch
    async def _answer(self, requests: list[Request]) -> list[Answer]:
        answers = await asyncio.get_running_loop().run_in_executor(
            self._thread, answer_batch, self._pipeline, requests, self._patience
        )
        statuses = {answer.status for answer in answers}
        if OK in statuses:
            self._failed = 0
        elif FAILED in statuses:
            self._failed += 1
        return answers

    def check_health(self) -> None:
        """Tell Ray whether this replica is of use; if not, it is replaced.

        Raises:
            RuntimeError: nothing succeeds any more, as after a fault of its GPU.
        """
        if self._failed >= HOPELESS:
            raise RuntimeError(f'{self._failed} batches failed, one after the other')


def build(settings: ServeSettings) -> Any:
    """Return the application of settings, for ``serve.run``."""
    options: dict[str, Any] = {
        'ray_actor_options': {'num_cpus': settings.cpus, 'num_gpus': settings.gpus},
        'max_ongoing_requests': settings.max_ongoing,
        'max_queued_requests': settings.max_queued,
        'health_check_period_s': 2,
        'health_check_timeout_s': 10,
        'graceful_shutdown_timeout_s': 5,
    }
    if settings.most_replicas:
        options['autoscaling_config'] = {
            'min_replicas': settings.replicas,
            'max_replicas': settings.most_replicas,
            'target_ongoing_requests': max(1, settings.max_ongoing // 2),
        }
    else:
        options['num_replicas'] = settings.replicas
    return serve.deployment(name='decoder', **options)(Decoder).bind(settings)


def start(settings: ServeSettings) -> float:
    """Start the service, or replace the one that runs; return when it answers.

    Returns:
        When it was deployed, for :func:`stop`.

    Raises:
        ConnectionError: there is no cluster at ``ray_address``.
        RuntimeError: Ray or the replicas do not start.
    """
    join(settings.ray_address)
    serve.start(http_options={'host': settings.host, 'port': settings.port})
    serve.run(build(settings), name=NAME, route_prefix='/')
    _check_proxy(settings)
    return _deployed_at()


def _check_proxy(settings: ServeSettings) -> None:
    """Check that the service is where it is said to be: a Serve that runs keeps its address.

    Raises:
        RuntimeError: it is not.
    """
    host = '127.0.0.1' if settings.host == '0.0.0.0' else settings.host
    connection = HTTPConnection(host, settings.port, timeout=ANSWER)
    try:
        connection.request('GET', '/')
        json.loads(connection.getresponse().read())['model']
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(
            f'the service runs, but does not answer at {host}:{settings.port} ({error}): a Serve '
            'that runs on this cluster already keeps its address; name that, or end it with  '
            'serve shutdown'
        ) from error
    finally:
        connection.close()


def _deployed_at() -> float:
    """Return when the service that runs was deployed; 0 if none does."""
    application = serve.status().applications.get(NAME)
    return 0.0 if application is None else float(application.last_deployed_time_s)


def stop(deployed: float) -> None:
    """End the service, unless another has replaced it, and the cluster if it was started here.

    Args:
        deployed: what :func:`start` returned.
    """
    if _deployed_at() == deployed:
        serve.delete(NAME)
    ray.shutdown()
