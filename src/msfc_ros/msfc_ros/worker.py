"""A box for the latest item of each sender, and a thread that works on what is in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar('T')


class LatestBox(Generic[T]):
    """Holds one item of each sender; a newer one of the same sender replaces it.

    A queue in its place would grow to its depth as soon as work is slower than the camera, and
    every result would be late by that many frames from then on.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        # In the order of their turns: what replaces an item takes its turn, so that between two
        # items of one sender every other sender has one at most.
        self._items: dict[Hashable, T] = {}
        self._closed = False

    def put(self, item: T, sender: Hashable = None) -> bool:
        """Put an item in. Return whether it replaced one that nobody had taken."""
        with self._condition:
            if self._closed:
                return False
            replaced = sender in self._items
            self._items[sender] = item
            self._condition.notify()
            return replaced

    def take(self, most: int = 1) -> list[T]:
        """Wait for items and take them out.

        Args:
            most: how many at most.

        Returns:
            Those whose turn it is, each of another sender; none once the box is closed.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._items)
            turns = [] if self._closed else list(self._items)[:most]
            return [self._items.pop(sender) for sender in turns]

    def close(self) -> None:
        """Drop what is inside, take nothing more, let :meth:`take` return from now on."""
        with self._condition:
            self._closed = True
            self._items.clear()
            self._condition.notify_all()


class LatestWorker(Generic[T]):
    """Runs a function on the latest items in one thread of its own.

    Args:
        work: called with one item or several, each of another sender, that were not replaced
            before their turn.
        on_error: called with what ``work`` raised; the thread goes on.
        name: name of the thread.
        most: how many items ``work`` takes at once.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], None],
        on_error: Callable[[Exception], None],
        name: str,
        most: int = 1,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._most = most
        self._box: LatestBox[T] = LatestBox()
        self._since: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T, sender: Hashable = None) -> bool:
        """Hand over an item. Return whether it replaced one that had been waiting."""
        return self._box.put(item, sender)

    def busy_for(self) -> float:
        """Return for how many seconds it has been at work on its items; 0 if it waits for some."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float | None = None) -> bool:
        """Let the thread finish its items and end.

        Args:
            timeout: how long to wait for it, in seconds; without one, as long as it takes.

        Returns:
            Whether it has ended.
        """
        self._box.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while items := self._box.take(self._most):
            self._since = time.monotonic()
            try:
                self._work(items)
            except Exception as error:
                self._on_error(error)
            self._since = None
            # Or they would live on until the next ones come.
            del items
