"""Work shared with another thread or process, because Python does one thing at a time in each.

A thread helps where what it calls lets go of the interpreter's lock, as SQLite does. Lines that are loaded have to be
parsed, which takes about as long as the database takes, and holds that lock: this is for a process. It is a program of
its own, no fork: that would keep the connections and locks of one that is killed.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain, islice
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from backups.errors import BackupError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

FEW = 10
"""Items that are not worth a process, which takes a tenth of a second to begin: some 20,000 rows."""
LOOK_AHEAD = 2
"""Items on their way, so that neither side waits for every single one."""
SWITCH_SECONDS = 0.0001
"""What a thread that has its result waits for another one's lock. Python's own 5 ms are longer than a result takes."""

_END = object()


def ahead(items: Generator[_Item]) -> Generator[_Item]:
    """Yield items that a thread takes from a generator, while this one works on those before them.

    Raises what the generator raises. Whoever does not ask for all items closes this, which closes the generator.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with closing(items), ThreadPoolExecutor(max_workers=1) as thread:
            taken = deque(thread.submit(next, items, _END) for _ in range(LOOK_AHEAD))
            try:
                while (item := taken.popleft().result()) is not _END:
                    taken.append(thread.submit(next, items, _END))
                    yield cast("_Item", item)
            finally:
                for future in taken:
                    future.cancel()
    finally:
        sys.setswitchinterval(interval)


def mapped(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result]:
    """Yield what ``function`` returns for each item, in order; where there are many, another process calls it.

    The function, which has to work without Django, the items and the results are pickled. Raises what either side
    raises. Whoever does not ask for all results closes this.
    """
    items = iter(items)
    yield from map(function, islice(items, FEW))
    for item in items:
        rest = chain([item], items)
        if companion := _started(function):
            with companion, closing(companion.map(rest)) as results:
                yield from results
        else:
            yield from map(function, rest)


class Companion(Generic[_Item, _Result]):
    """A process that calls one function. It ends when this one closes it, or dies.

    It imports from where this one does, and never from the current directory because that is where somebody stands.
    Raises ``OSError`` where it cannot be started.
    """

    def __init__(self, function: Callable[[_Item], _Result]) -> None:
        places = [str(Path(place).resolve()) for place in sys.path]
        self._connection, theirs = Pipe()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-P", "-m", "backups.pipeline", str(theirs.fileno())],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C on a terminal is for the other process, which ends this one
                    stdin=subprocess.DEVNULL,
                )
        except OSError:
            self._connection.close()
            raise
        self._send(function)

    def __enter__(self) -> Companion[_Item, _Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._connection.close()
        self._process.wait()

    def stop(self) -> None:
        """End the process, which keeps nothing, and whatever waits for it, also where somebody has stopped it."""
        self._process.kill()
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    def map(self, items: Iterable[_Item]) -> Generator[_Result]:
        """Do what ``map`` does. Some items are on their way while this process makes the next ones.

        Threads send items and take results, so that neither side waits until the other one is done with something
        else. They leave unpickling to who wants the result, and do not keep the interpreter from it: to load rows into
        SQLite would take 1.1 times as long. Who leaves before the end stops the process.
        """
        results: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(max_workers=1) as sender, ThreadPoolExecutor(max_workers=1) as receiver:
            try:
                for item in items:
                    results.append(receiver.submit(self._receive, sender.submit(self._send, item)))
                    if len(results) > LOOK_AHEAD:
                        yield self._unpickled(results.popleft().result())
                while results:
                    yield self._unpickled(results.popleft().result())
            except BaseException:
                for future in results:
                    future.cancel()
                self.stop()
                raise

    def _receive(self, sent: Future[None]) -> bytes:
        sent.result()
        try:
            return self._connection.recv_bytes()
        except (EOFError, OSError) as gone:
            raise self._ended() from gone

    def _unpickled(self, received: bytes) -> _Result:
        result, error = pickle.loads(received)  # noqa: S301 - from our own process
        if error is not None:
            raise error
        found: _Result = result
        return found

    def _send(self, item: object) -> None:
        try:
            self._connection.send(item)
        except OSError as gone:
            raise self._ended() from gone

    def _ended(self) -> BackupError:
        return BackupError(
            f"a process that was to help ended by itself, with exit code {self._process.wait()}",
            hint="see what the system's log says of it; -9 may be a lack of memory",
        )


def _started(function: Callable[[_Item], _Result]) -> Companion[_Item, _Result] | None:
    """Start a companion where there is a processor for it, and Python: some servers have that within their program."""
    is_python = Path(sys.executable or "").name.startswith("python")
    if not is_python or (os.cpu_count() or 1) < 2:
        return None
    try:
        return Companion(function)
    except OSError:  # too many processes, no memory for one more, or an environment that is no longer there
        return None


def _serve(connection: Connection) -> None:
    """Call the function that comes first with all that comes after it, until nobody is there any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # what is made goes away with its page
    try:
        function = connection.recv()
        while True:
            connection.send(_result(function, connection.recv()))
    except (EOFError, OSError):
        return


def _result(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:  # noqa: BLE001 - the other process raises it
        return None, error


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
