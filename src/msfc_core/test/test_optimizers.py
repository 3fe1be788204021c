"""Muon: updates of matrices by their nearest orthogonal ones."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from msfc.training.distill import parameter_groups
from msfc.training.optimizers import Muon, orthogonal, orthogonal_all


@given(rows=st.integers(1, 24), columns=st.integers(1, 60), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_orthogonal_has_singular_values_near_one(rows: int, columns: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=rng))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=rng))
    count = min(rows, columns)
    # Singular values a factor of 10 apart: what five iterations bring together.
    values = torch.logspace(0, -1, count)
    matrix = left[:, :count] @ torch.diag(values) @ right[:, :count].T
    found = torch.linalg.svdvals(orthogonal(matrix * 7))
    assert float(found.min()) > 0.5
    assert float(found.max()) < 1.4


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 5)).any()


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.Conv2d(8, 4, 1))


def train(network: nn.Module, optimizer: Muon, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        rng = torch.Generator().manual_seed(step % 5)
        x = torch.randn(4, 3, 8, 8, generator=rng)
        loss = (network(x) - x[:, :1, 1:-1, 1:-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def make_muon(network: nn.Module) -> Muon:
    return Muon(parameter_groups(network, 0.05, momentum=0.9), betas=(0.9, 0.98))


def turn_in_process(rank: int, count: int, folder: str) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=count
    )
    torch.save(orthogonal_all(make_matrices()), f'{folder}/{rank}.pt')
    torch.distributed.destroy_process_group()


def make_matrices() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    shapes = [(8, 27), (30, 4), (1, 5), (16, 16), (2, 2)]
    return [torch.randn(shape, generator=rng) for shape in shapes]


def test_processes_share_the_work(tmp_path) -> None:
    torch.multiprocessing.spawn(turn_in_process, (2, str(tmp_path)), nprocs=2)
    expected = [orthogonal(matrix) for matrix in make_matrices()]
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pt')
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other)


def test_losses_fall() -> None:
    network = make_network()
    losses = train(network, make_muon(network), 0, 100)
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_convolutions_alone_are_turned() -> None:
    groups = parameter_groups(make_network(), 0.01, momentum=0.9)
    (turned,) = (group for group in groups if 'momentum' in group)
    assert {tuple(p.shape) for p in turned['params']} == {(8, 3, 3, 3), (4, 8, 1, 1)}
    assert not any('momentum' in group for group in parameter_groups(make_network(), 0.01))


def test_update_has_the_size_of_adamw() -> None:
    network = make_network()
    before = network[0].weight.detach().clone()
    train(network, make_muon(network), 0, 1)
    moved = (network[0].weight.detach() - before).square().mean().sqrt()
    assert float(moved) == pytest.approx(0.2 * 0.05, rel=0.3)


def test_it_resumes_where_it_was() -> None:
    network = make_network()
    optimizer = make_muon(network)
    train(network, optimizer, 0, 7)
    other = copy.deepcopy(network)
    resumed = make_muon(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(network, optimizer, 7, 12) == train(other, resumed, 7, 12)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
