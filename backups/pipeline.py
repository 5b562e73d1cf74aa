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
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from itertools import chain, islice
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
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


class Worker(Generic[_Item, _Result]):
    """A thread that calls a function with one item after the other, while it is entered as a context.

    Ctrl-C finds nothing half done: unlike a pool, this has no lock but those within the queues, which no signal
    interrupts. Leaving waits until a call that has begun is over, also where that is interrupted.
    """

    def __init__(self, function: Callable[[_Item], _Result]) -> None:
        self._function = function
        self._items: SimpleQueue[Any] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._over: SimpleQueue[None] = SimpleQueue()
        self._is_left = self._is_over = False
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> Worker[_Item, _Result]:
        try:
            self._thread.start()
        except BaseException:  # it may have begun all the same
            self._items.put(_END)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted: KeyboardInterrupt | None = None
        while not self._is_over:
            try:
                self._is_left = True
                self._items.put(_END)
                # join() is no help here: once interrupted, Python 3.11 takes the thread for one that has ended.
                self._over.get()
            except KeyboardInterrupt as again:  # what the thread works on is not to be used by two
                interrupted = again
        if interrupted is not None:
            raise interrupted
        self._thread.join()

    def give(self, item: _Item) -> None:
        """Have the function called with an item, after those before it. Waits for nothing."""
        self._items.put(item)

    def result(self) -> _Result:
        """Wait for what the function returns for the next item, or raise what it raises."""
        result, error = self._results.get()
        if error is not None:
            raise error
        return cast("_Result", result)

    def _work(self) -> None:
        while (item := self._items.get()) is not _END and not self._is_left:
            try:
                self._results.put((self._function(item), None))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the result raises it
                self._results.put((None, error))
        self._is_over = True
        self._over.put(None)


def ahead(items: Generator[_Item]) -> Generator[_Item]:
    """Yield items that a thread takes from a generator, while this one works on those before them.

    Raises what the generator raises. Whoever does not ask for all items closes this, which closes the generator.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        taker: Worker[None, Any] = Worker(lambda _: next(items, _END))
        with closing(items), taker:
            for _ in range(LOOK_AHEAD):
                taker.give(None)
            while (item := taker.result()) is not _END:
                taker.give(None)
                yield cast("_Item", item)
    finally:
        sys.setswitchinterval(interval)


def mapped(function: Callable[[_Item], _Result], items: Iterable[_Item], *, processors: int = 2) -> Generator[_Result]:
    """Yield what ``function`` returns for each item, in order; where there are many, another process calls it.

    That takes a machine with so many ``processors``. The function, which has to work without Django, the items and the
    results are pickled. Raises what either side raises. Whoever does not ask for all results closes this.
    """
    items = iter(items)
    yield from map(function, islice(items, FEW))
    for item in items:
        rest = chain([item], items)
        if companion := _started(function, processors):
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
        pickled = pickle.dumps(function)
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
        try:
            self._connection.send_bytes(pickled)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Companion[_Item, _Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
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
        with Worker(self._send) as sender, Worker(self._receive) as receiver:
            due = 0
            try:
                for item in items:
                    sender.give(item)
                    receiver.give(sender)
                    due += 1
                    if due > LOOK_AHEAD:
                        yield self._unpickled(receiver.result())
                        due -= 1
                for _ in range(due):
                    yield self._unpickled(receiver.result())
            except BaseException:
                self.stop()
                raise

    def _receive(self, sender: Worker[_Item, None]) -> bytes:
        sender.result()
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

    def _send(self, item: _Item) -> None:
        try:
            self._connection.send(item)
        except OSError as gone:
            raise self._ended() from gone

    def _ended(self) -> BackupError:
        return BackupError(
            f"a process that was to help ended by itself, with exit code {self._process.wait()}",
            hint="see what the system's log says of it; -9 may be a lack of memory",
        )


def _started(function: Callable[[_Item], _Result], processors: int) -> Companion[_Item, _Result] | None:
    """Start a companion where there is a processor for it, and Python: some servers have that within their program."""
    is_python = Path(sys.executable or "").name.startswith("python")
    if not is_python or (os.cpu_count() or 1) < processors:
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
            connection.send_bytes(_result(function, connection.recv_bytes()))
    except (EOFError, OSError):
        return


def _result(function: Callable[[Any], Any], received: bytes) -> bytes:
    try:
        return pickle.dumps((function(pickle.loads(received)), None))  # noqa: S301 - from the process that we work for
    except Exception as error:  # noqa: BLE001 - the other process raises it
        try:
            pickled = pickle.dumps((None, error))
            pickle.loads(pickled)  # noqa: S301 - our own
        except Exception:  # noqa: BLE001 - nothing that could be passed on but what it says
            pickled = pickle.dumps((None, RuntimeError(repr(error))))
        return pickled


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
