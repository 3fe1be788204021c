"""The learned codec: networks, and the entropy model as it is trained."""

from msfc.codecs.learned.codec import LearnedCodec
from msfc.codecs.learned.config import LearnedConfig

__all__ = ['LearnedCodec', 'LearnedConfig']
