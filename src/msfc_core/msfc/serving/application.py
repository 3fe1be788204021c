"""Decoder and heads as a Ray Serve application.

Importing this module needs Ray: ``pip install 'ray[serve]'``.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from msfc.serving.remote import PATH
from msfc.serving.replica import Answer, Request, answer_batch
from msfc.serving.settings import ServeSettings

NAME = 'msfc'
"""Of the application: a service that is there under it is replaced, replica by replica."""


class Decoder:
    """A replica: a model, and batches of requests for it.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: ServeSettings) -> None:
        import torch

        from msfc.model_file import load_model
        from msfc.pipeline.cloud import CloudPipeline

        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = settings.device
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._patience = settings.patience
        self._pipeline = CloudPipeline(load_model(settings.model).to(device))
        self._answer.set_max_batch_size(settings.max_batch)
        self._answer.set_batch_wait_timeout_s(settings.batch_wait)

    async def __call__(self, request: HttpRequest) -> Response:
        """Answer a request of a gateway."""
        if not request.url.path.endswith(PATH):
            return Response(f'model {self._pipeline.fingerprint}', media_type='text/plain')
        answer: Answer = await self._answer(Request(await request.body(), time.monotonic()))
        return Response(
            answer.body, status_code=answer.status, media_type='application/octet-stream'
        )

    @serve.batch
    async def _answer(self, requests: list[Request]) -> list[Answer]:
        return answer_batch(self._pipeline, requests, self._patience)


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


def start(settings: ServeSettings) -> None:
    """Start the service, or replace the one that runs; return when it answers.

    Raises:
        ConnectionError: there is no cluster at ``ray_address``.
        RuntimeError: the replicas do not start.
    """
    if not ray.is_initialized():
        ray.init(
            address=settings.ray_address or None, include_dashboard=False, log_to_driver=False,
            configure_logging=False,
        )
    serve.start(http_options={'host': settings.host, 'port': settings.port})
    serve.run(build(settings), name=NAME, route_prefix='/')


def stop() -> None:
    """End the service, and the cluster if it was started here."""
    serve.shutdown()
    ray.shutdown()
