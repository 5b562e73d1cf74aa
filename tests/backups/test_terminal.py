"""Progress is shown where that is possible, and is never worth an operation."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from backups import terminal
from backups.terminal import TerminalProgress


class Broken(io.StringIO):
    def __init__(self, error: Exception, *, is_terminal: bool) -> None:
        super().__init__()
        self.attempts = 0
        self._error, self._is_terminal = error, is_terminal

    def write(self, text: str) -> int:
        self.attempts += 1
        raise self._error

    def flush(self) -> None:
        raise self._error

    def isatty(self) -> bool:
        return self._is_terminal


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [
        Broken(BrokenPipeError(32, "Broken pipe"), is_terminal=False),
        Broken(OSError(5, "Input/output error"), is_terminal=True),  # a terminal that has gone away
        closed(),
        None,
    ],
)
def test_progress_that_cannot_be_shown_is_not_missed(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0)
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0)
    monkeypatch.setattr(sys, "stderr", stream)
    with TerminalProgress(stream) as progress:
        progress.start("load", 2)
        progress.advance(1)
        progress.finish()
        progress.start("verify", 2)
    assert not isinstance(stream, Broken) or stream.attempts
