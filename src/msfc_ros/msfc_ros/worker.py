"""A box for the latest item of each sender, and threads that work on what is in it."""

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
        self._held: dict[Hashable, list[Hashable]] = {}
        self._closed = False

    def put(self, item: T, sender: Hashable = None) -> bool:
        """Put an item in. Return whether it replaced one that nobody had taken."""
        with self._condition:
            if self._closed:
                return False
            replaced = sender in self._items
            self._items[sender] = item
            self._condition.notify_all()
            return replaced

    def take(self, most: int = 1, lane: Hashable = None) -> list[T]:
        """Wait for items and take them out.

        Args:
            most: how many at most.
            lane: who takes them, where there are several. The senders of what a lane takes wait
                until it takes again: the items of one sender are never worked on side by side.

        Returns:
            Those whose turn it is, each of another sender; none once the box is closed.
        """
        with self._condition:
            if self._held.pop(lane, ()):
                self._condition.notify_all()
            self._condition.wait_for(lambda: self._closed or self._free())
            turns = [] if self._closed else self._free()[:most]
            self._held[lane] = turns
            return [self._items.pop(sender) for sender in turns]

    def close(self) -> None:
        """Drop what is inside, take nothing more, let :meth:`take` return from now on."""
        with self._condition:
            self._closed = True
            self._items.clear()
            self._condition.notify_all()

    def _free(self) -> list[Hashable]:
        """Return the senders that have an item and none at work, in the order of their turns."""
        held = {sender for senders in self._held.values() for sender in senders}
        return [sender for sender in self._items if sender not in held]


class LatestWorker(Generic[T]):
    """Runs a function on the latest items in threads of its own.

    Args:
        work: called with one item or several, each of another sender, that were not replaced
            before their turn. With several lanes it is called in several threads at once, never
            for the same sender.
        on_error: called with what ``work`` raised; the thread goes on.
        name: name of the threads.
        most: how many items ``work`` takes at once.
        lanes: number of threads.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], None],
        on_error: Callable[[Exception], None],
        name: str,
        most: int = 1,
        lanes: int = 1,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._most = most
        self._box: LatestBox[T] = LatestBox()
        self._since: list[float | None] = [None] * lanes
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=name, daemon=True)
            for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, item: T, sender: Hashable = None) -> bool:
        """Hand over an item. Return whether it replaced one that had been waiting."""
        return self._box.put(item, sender)

    def busy_for(self) -> float:
        """Return for how many seconds it has been at work on its items; 0 if it waits for some.

        Of several lanes it is that of the one that has been at work for longest.
        """
        begun = [since for since in self._since if since is not None]
        return time.monotonic() - min(begun) if begun else 0.0

    def stop(self, timeout: float | None = None) -> bool:
        """Let the threads finish their items and end.

        Args:
            timeout: how long to wait for them, in seconds; without one, as long as it takes.

        Returns:
            Whether they have ended.
        """
        self._box.close()
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, lane: int) -> None:
        while items := self._box.take(self._most, lane):
            self._since[lane] = time.monotonic()
            try:
                self._work(items)
            except Exception as error:
                self._on_error(error)
            self._since[lane] = None
            # Or they would live on until the next ones come.
            del items
