"""Further heads behind the cut: what else the receiver can read from the same pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msfc.heads.base import PyramidHead, StoredHead

__all__ = ['PyramidHead', 'StoredHead', 'build_head']


def build_head(config: Mapping[str, Any]) -> StoredHead:
    """Build a head with random weights from its :meth:`StoredHead.config`.

    Args:
        config: ``type`` is ``fpn_semantic``; the other keys are that type's own.

    Raises:
        ValueError: an unknown type, or a key or value that the type does not know.
    """
    from msfc.heads.fpn_semantic import FpnSemanticHead

    kind = config.get('type')
    if kind == FpnSemanticHead.kind:
        return FpnSemanticHead.from_config(config)
    raise ValueError(f'unknown head type {kind!r}: choose {FpnSemanticHead.kind!r}')
