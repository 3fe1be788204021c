"""What the library's tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

# A shared machine is now and then slow for reasons that are not the example's.
settings.register_profile('msfc', deadline=None)
settings.load_profile('msfc')


@pytest.fixture(scope='module')
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: the same numbers every time, and room for others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def wire_vectors() -> dict[str, Any]:
    """The test vectors of docs/wire-format.md."""
    path = Path(__file__).parent / 'data' / 'wire_vectors.json'
    vectors: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return vectors
