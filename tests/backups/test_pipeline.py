"""A second thread or process gives the results that one would, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import islice
from operator import neg
from pathlib import Path
from pickle import PicklingError
from typing import Any

import pytest

from backups import pipeline
from backups.errors import BackupError
from backups.pipeline import FEW, Companion, Worker, ahead, mapped

MANY = 5 * FEW


def _numbers(left: list[str], *, fails_at: int = MANY) -> Generator[int]:
    """Yield numbers from another thread, and tell who closes it."""
    try:
        for number in range(MANY):
            assert threading.current_thread() is not threading.main_thread()
            if number == fails_at:
                raise LookupError(number)
            yield number
    finally:
        left.append("closed")


def test_a_thread_gives_all_items_in_order() -> None:
    left: list[str] = []
    before = threading.active_count(), sys.getswitchinterval()
    assert list(ahead(_numbers(left))) == list(range(MANY))
    assert left == ["closed"]
    assert (threading.active_count(), sys.getswitchinterval()) == before


def test_what_a_thread_raises_is_raised_after_what_came_before_it() -> None:
    left: list[str] = []
    found: list[int] = []
    before = threading.active_count()
    with pytest.raises(LookupError):
        found.extend(ahead(_numbers(left, fails_at=FEW)))
    assert found == list(range(FEW))
    assert left == ["closed"]
    assert threading.active_count() == before


def test_whoever_has_enough_leaves_no_thread() -> None:
    left: list[str] = []
    before = threading.active_count(), sys.getswitchinterval()
    items = ahead(_numbers(left))
    assert list(islice(items, 3)) == [0, 1, 2]
    items.close()
    assert left == ["closed"]
    assert (threading.active_count(), sys.getswitchinterval()) == before


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, MANY])
def test_results_come_in_order(monkeypatch: pytest.MonkeyPatch, processors: int, count: int) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: processors)
    assert list(mapped(neg, range(count))) == [-number for number in range(count)]


def test_many_are_shared_with_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    processes = set(mapped(_process, range(MANY)))
    assert len(processes) == 2
    assert os.getpid() in processes


def _process(_: int) -> int:
    return os.getpid()


def test_whoever_has_enough_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    taken = []
    results = mapped(neg, (taken.append(number) or number for number in range(MANY)))  # type: ignore[func-returns-value]
    assert len(list(islice(results, FEW + 2))) == FEW + 2
    results.close()
    assert len(taken) < FEW + 10
    assert not _children(os.getpid())


def test_what_the_items_raise_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        list(mapped(neg, (1 // (MANY - number) for number in range(MANY + 1))))
    assert not _children(os.getpid())


def test_what_the_function_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    items: list[Any] = [*range(MANY), "no number"]
    with pytest.raises(TypeError, match="bad operand"):
        list(mapped(neg, items))


def test_the_work_is_done_without_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(pipeline.sys, "executable", "/nowhere/python3")
    assert len(list(mapped(neg, range(MANY)))) == MANY


def test_a_process_is_for_machines_that_have_a_processor_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 2)
    assert set(mapped(_process, range(MANY), processors=3)) == {os.getpid()}


def test_a_function_that_cannot_be_passed_on_starts_nothing() -> None:
    with pytest.raises((AttributeError, PicklingError)):
        Companion(lambda number: number)
    assert not _children(os.getpid())


def test_what_cannot_be_passed_on_is_an_error() -> None:
    with Companion(neg) as companion, pytest.raises(TypeError, match="pickle"):
        list(companion.map([1, threading.Lock()]))  # type: ignore[list-item]
    with Companion(_lock) as companion, pytest.raises(TypeError, match="pickle"):
        list(companion.map([1]))
    with Companion(_raise_what_cannot_be_passed_on) as companion, pytest.raises(RuntimeError, match="of its own"):
        list(companion.map([1]))
    with Companion(_raise_what_cannot_be_read) as companion, pytest.raises(RuntimeError, match="NeedsTwo"):
        list(companion.map([1]))
    assert not _children(os.getpid())


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


def _raise_what_cannot_be_read(number: int) -> Any:
    raise NeedsTwo(number, number)


def _lock(_: int) -> Any:
    return threading.Lock()


def _raise_what_cannot_be_passed_on(_: int) -> Any:
    class OfItsOwn(Exception):
        pass

    raise OfItsOwn("of its own")


def test_who_leaves_a_thread_waits_for_it_whoever_interrupts_that() -> None:
    ended: list[str] = []

    def slow(seconds: float) -> None:
        time.sleep(seconds)
        ended.append("done")

    def interrupt() -> None:
        for _ in range(3):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

    before = threading.active_count()
    interrupter = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), Worker(slow) as worker:  # noqa: PT012 - what is raised comes from outside
        worker.give(1.0)
        worker.give(1.0)  # which nobody begins any more
        interrupter.start()
        worker.result()
    assert ended == ["done"]
    interrupter.join()
    ends = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < ends


INTERRUPTED = """
import signal
import sys
import time
from operator import neg
from backups import pipeline
pipeline.os.cpu_count, pipeline.FEW = lambda: 2, 0
print("here", flush=True)
for interruption in range(200):
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + interruption / 100_000)
    try:
        for _ in pipeline.ahead(number for number in range(10**6)):
            pass
    except KeyboardInterrupt:
        continue
    sys.exit("nobody came")
for interruption in range(30):
    signal.setitimer(signal.ITIMER_REAL, 0.15 + interruption / 1000)
    try:
        for _ in pipeline.mapped(neg, range(10**6)):
            pass
    except KeyboardInterrupt:
        continue
    sys.exit("nobody came")
"""


def test_interruptions_at_any_moment_leave_nobody_waiting() -> None:
    script = f"import signal\nsignal.signal(signal.SIGALRM, signal.default_int_handler)\n{INTERRUPTED}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr


def test_nothing_is_imported_from_where_somebody_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with Companion(neg) as companion:
        assert list(companion.map([1])) == [-1]
    tmp_path.joinpath("struct.py").unlink()
    tmp_path.rmdir()
    assert len(list(mapped(neg, range(MANY)))) == MANY


def test_a_process_that_ends_by_itself_is_an_error() -> None:
    with Companion(os._exit) as companion, pytest.raises(BackupError, match="exit code 3"):
        list(companion.map([3]))


TWO_PROCESSES = """
import time
from backups.pipeline import Companion
with Companion(time.sleep) as companion:
    for _ in companion.map([0, 0, 0, 0.2, 0.2, 0.2]):
        print("both are at work", flush=True)
"""


def test_a_process_does_not_outlive_the_one_that_it_works_for() -> None:
    with subprocess.Popen([sys.executable, "-c", TWO_PROCESSES], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (other,) = _children(process.pid)
        process.kill()
    ends = time.monotonic() + 10
    while Path(f"/proc/{other}").exists():
        assert time.monotonic() < ends
        time.sleep(0.05)


TO_BE_STOPPED = """
import signal
from operator import neg
from backups import pipeline
pipeline.os.cpu_count = lambda: 2
signal.signal(signal.SIGTERM, signal.default_int_handler)
for number in pipeline.mapped(neg, range(10**9)):
    if number == -10 * pipeline.FEW:
        print("both are at work", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_somebody_has_stopped_keeps_nobody_from_leaving(number: signal.Signals) -> None:
    quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", TO_BE_STOPPED], **quiet) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (other,) = _children(process.pid)
        os.kill(other, signal.SIGSTOP)
        time.sleep(0.5)  # so that the one waits for the other
        try:
            process.send_signal(number)
            process.wait(timeout=10)
        finally:
            process.kill()
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
    assert not Path(f"/proc/{other}").exists()


def test_signals_are_left_to_the_one_that_it_works_for() -> None:
    with Companion(neg) as companion:
        assert list(companion.map([1])) == [-1]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(companion._process.pid, number)
        assert list(companion.map([2])) == [-2]


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in text.split()]
