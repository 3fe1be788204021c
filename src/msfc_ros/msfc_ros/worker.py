"""A one-slot box that keeps the latest item only, and a thread that works on what is in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')


class LatestBox(Generic[T]):
    """Holds one item; a newer one replaces it.

    A queue in its place would grow to its depth as soon as work is slower than the camera, and
    every result would be late by that many frames from then on.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> bool:
        """Put an item in. Return whether it replaced one that nobody had taken."""
        with self._condition:
            if self._closed:
                return False
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
            return replaced

    def take(self) -> T | None:
        """Wait for an item and take it out. Return None once the box is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._item is not None)
            if self._closed:
                return None
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Drop what is inside, take nothing more, let :meth:`take` return None from now on."""
        with self._condition:
            self._closed = True
            self._item = None
            self._condition.notify_all()


class LatestWorker(Generic[T]):
    """Runs a function on the latest item in one thread of its own.

    Args:
        work: called with each item that is not replaced before its turn.
        on_error: called with what ``work`` raised; the thread goes on.
        name: name of the thread.
    """

    def __init__(
        self, work: Callable[[T], None], on_error: Callable[[Exception], None], name: str
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._box: LatestBox[T] = LatestBox()
        self._since: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Hand over an item. Return whether it replaced one that had been waiting."""
        return self._box.put(item)

    def busy_for(self) -> float:
        """Return for how many seconds it has been at work on its item; 0 if it waits for one."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float | None = None) -> bool:
        """Let the thread finish its item and end.

        Args:
            timeout: how long to wait for it, in seconds; without one, as long as it takes.

        Returns:
            Whether it has ended.
        """
        self._box.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._box.take()) is not None:
            self._since = time.monotonic()
            try:
                self._work(item)
            except Exception as error:
                self._on_error(error)
            self._since = None
            # Or it would live on until the next one comes.
            del item
