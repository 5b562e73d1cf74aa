"""Progress on standard error: bars on a terminal, a line for each long phase elsewhere, nothing on standard output.

What is shown is never worth an operation: a stream that cannot be written to any more is left alone.
"""

from __future__ import annotations

import codecs
import json
import sys
import time
from types import TracebackType
from typing import IO, Any, Self, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from backups.rendering import with_unit

QUIET_SECONDS = 1.0
"""Phases shorter than this leave no line in a log."""
LINE_SECONDS = 10.0
"""A log that is not a terminal gets at most a line of progress in this time."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write characters that an encoding lacks as JSON does, so that JSON stays JSON."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 - nothing here decodes
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("backups.escape", _escape)


class Unfailing:
    """A text stream that does not raise: not where it is closed, broken or full, nor for what it cannot encode."""

    def __init__(self, stream: Any) -> None:
        # Django wraps what the caller has closed, which is None, all the same.
        self._stream = None if getattr(stream, "_out", stream) is None else stream
        self.failure: Exception | None = None
        """Why something was not written."""

    def write(self, text: str) -> int:
        if self._stream is not None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            try:
                self._stream.write(text.encode(encoding, "backups.escape").decode(encoding))
            except (OSError, ValueError) as error:
                self.failure = error
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.failure = error

    def isatty(self) -> bool:
        try:
            return self._stream is not None and bool(self._stream.isatty())
        except ValueError:  # it is closed
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class TerminalProgress:
    """Shows the phases of an operation while it is entered as a context. Silent at verbosity 0."""

    def __init__(self, stream: Any, *, verbosity: int = 1) -> None:
        self._stream = Unfailing(stream)
        self._silent = verbosity == 0
        terminal = Unfailing(sys.stderr)
        self._bars = _bars(terminal) if terminal.isatty() and not self._silent else None
        self._task: TaskID | None = None
        self._phase, self._unit = "", "rows"
        self._total: int | None = None
        self._done = 0
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars is not None:
            try:
                self._bars.start()
            except RuntimeError:  # there is no thread to be had that would draw them
                self._bars.stop()
                self._bars = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, phase: str, total: int | None = None, unit: str = "rows") -> None:
        self._phase, self._total, self._unit, self._done = phase, total, unit, 0
        self._begun = self._told = time.monotonic()
        if self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(phase, total=total, unit=unit)

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        # Drawing costs more than a row: some ten times a second is enough for people, and rich draws no more.
        if self._bars is not None and self._task is not None:
            if now - self._told >= 0.1:
                self._told = now
                self._bars.update(self._task, completed=self._done)
        elif not self._silent and now - self._told >= LINE_SECONDS:
            self._told = now
            self._stream.write(f"{self._phase}: {self._amount()}{self._of_total()}, {self._rate(now)}\n")

    def finish(self) -> None:
        now = time.monotonic()
        if self._bars is None and not self._silent and now - self._begun >= QUIET_SECONDS:
            self._stream.write(f"{self._phase}: {self._amount()} in {now - self._begun:.1f} s, {self._rate(now)}\n")

    def _amount(self) -> str:
        return with_unit(self._done) if self._unit == "bytes" else f"{self._done} {self._unit}"

    def _of_total(self) -> str:
        return f", {100 * self._done // self._total} %" if self._total else ""

    def _rate(self, now: float) -> str:
        rate = self._done / max(now - self._begun, 1e-6)
        return f"{with_unit(rate)}/s" if self._unit == "bytes" else f"{rate:.0f} {self._unit}/s"


class _RateColumn(ProgressColumn):
    """Rows or bytes a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        unit = task.fields["unit"]
        return Text(f"{with_unit(speed)}/s" if unit == "bytes" else f"{speed:.0f} {unit}/s")


def _bars(terminal: Unfailing) -> Progress:
    return Progress(
        TextColumn("{task.description:<40}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        _RateColumn(),
        TimeRemainingColumn(),
        console=Console(file=cast("IO[str]", terminal)),
        transient=True,
    )
