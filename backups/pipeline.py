"""Work beside other work: drivers, zstd and hashing release the interpreter's lock while they are at it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

LOOK_AHEAD = 2
"""Items that wait for the function, so that neither side waits for every single one."""


def beside(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield what ``function`` returns for each item, in order: a thread calls it while this one makes the next items.

    Raises what either side raises. Whoever does not ask for all results has the rest not begun.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(max_workers=1) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(function, item))
                if len(waiting) > LOOK_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
