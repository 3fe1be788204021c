"""Optimisers that PyTorch has not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration that brings singular values near 1 in a few steps."""

STEPS = 5
"""Newton-Schulz iterations."""

LIKE_ADAM = 0.2
"""Root mean square of an update over the learning rate, about that of AdamW."""


class Muon(torch.optim.AdamW):
    """AdamW, whose groups with ``momentum`` move by the momentum's nearest orthogonal matrix.

    After Jordan et al., *Muon* (2024), with the update's size of Liu et al., *Muon is scalable
    for LLM training* (2025), so that one learning rate does for all groups. ``torch.optim.Muon``
    takes matrices alone and computes in bfloat16, which is slow on most CPUs; here the weights
    of convolutions are matrices of output channels times the rest. Processes share the work.

    Args:
        groups: parameter groups; ``momentum`` is in those to orthogonalise.
        settings: of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        turned = [
            (parameter, parameter.grad, group)
            for group in self.param_groups if 'momentum' in group
            for parameter in group['params'] if parameter.grad is not None
        ]
        wanted = [self._wanted(*entry) for entry in turned]
        for (parameter, _, group), direction in zip(turned, orthogonal_all(wanted), strict=True):
            size = LIKE_ADAM * math.sqrt(max(direction.shape))
            parameter.mul_(1 - group['lr'] * group['weight_decay'])
            parameter.add_(direction.view_as(parameter), alpha=-group['lr'] * size)
            parameter.grad = None
        loss = super().step(closure)
        for parameter, gradient, _ in turned:
            parameter.grad = gradient
        return loss

    def _wanted(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, momentum = self.state[parameter], group['momentum']
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(gradient)
            state['step'] = torch.tensor(0.0)  # AdamW reads it of all when it is loaded
        kept: Tensor = state['momentum_buffer']
        kept.lerp_(gradient, 1 - momentum)
        return gradient.lerp(kept, momentum).flatten(1)


def orthogonal_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return :func:`orthogonal` of each matrix; each process makes some and gets the others.

    Args:
        matrices: rows x columns, the same in all processes.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, count = (
        (torch.distributed.get_rank(), torch.distributed.get_world_size())
        if distributed else (0, 1)
    )
    owners, work = [0] * len(matrices), [0] * count
    costs = [min(matrix.shape) * matrix.numel() for matrix in matrices]
    for index in sorted(range(len(matrices)), key=lambda index: -costs[index]):
        owners[index] = work.index(min(work))
        work[owners[index]] += costs[index]
    made = [
        orthogonal(matrix).contiguous() if owner == rank else matrix.new_empty(matrix.shape)
        for owner, matrix in zip(owners, matrices, strict=True)
    ]
    if count > 1:
        for owner, matrix in zip(owners, made, strict=True):
            torch.distributed.broadcast(matrix, owner)
    return made



def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix whose singular values are all the same, near 1.

    Args:
        matrix: rows x columns, float.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-12)
    first, second, third = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.T
        x = first * x + (second * square + third * square @ square) @ x
    return x if wide else x.T
