"""Which messages of a recording can be decoded: those whose key frame is in it, before them."""

from __future__ import annotations


class KeyLedger:
    """Follows the messages of one topic in their order.

    Attributes:
        keys: key frames so far.
        referring: messages so far that are coded against one.
        orphans: of these, those whose key frame did not come before them: nothing can decode them.
    """

    def __init__(self) -> None:
        self.keys = self.referring = self.orphans = 0
        self._known: set[int] = set()

    def note(self, sequence: int, reference: int) -> bool:
        """Take note of a message's numbers; return whether its key frame, if any, is here."""
        if reference == 0:
            return True
        if reference == sequence:
            self.keys += 1
            self._known.add(sequence)
            return True
        self.referring += 1
        if reference in self._known:
            return True
        self.orphans += 1
        return False
