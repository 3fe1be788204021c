"""What a head behind the cut is: it reads the rebuilt pyramid, and changes nothing of it.

Heads cost no bytes: they look at the pyramid that the instances are found in. A detector may bring
some of its own (:meth:`msfc.detectors.base.SplitDetector.heads`); others are trained on the
pyramid of a finished detector, and lie beside it in files of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from msfc.types import ImageSizes, Pyramid


class PyramidHead(nn.Module, ABC):
    """Makes something of a pyramid for each image.

    Attributes:
        output: what its results are called: the name of their topic.
        class_names: names of the classes that its results have, by their index.
    """

    output: ClassVar[str]
    class_names: tuple[str, ...]

    @abstractmethod
    def infer(self, pyramid: Pyramid, sizes: ImageSizes) -> list[Tensor]:
        """Return the result of each image, at source resolution.

        Args:
            pyramid: ``p2`` .. ``p6``, of N images; it is not changed.
            sizes: the sizes of its images.
        """


class StoredHead(PyramidHead):
    """A head that is kept in files of its own.

    Attributes:
        kind: its type in a configuration.
    """

    kind: ClassVar[str]

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what :func:`msfc.heads.build_head` needs to build it, JSON-serialisable."""
