"""Work that goes on beside the database's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")

LOOK_AHEAD = 2
"""Items that wait for the function, so that neither side waits for every single one."""


def for_each(function: Callable[[_Item], None], items: Iterable[_Item]) -> None:
    """Call ``function`` with each item, in order, in a thread, while this one makes the next item.

    Drivers and zstd release the interpreter's lock while they work. Raises what either side raises.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(max_workers=1) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(function, item))
                if len(waiting) > LOOK_AHEAD:
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
