"""Ctrl-C, a lost terminal and an operator who does not answer end an operation cleanly."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from django.core.management import CommandError
from django.db import OperationalError

from backups.management.operate import failures_as_exit_codes

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("command", "prompt", "keys"),
    [
        *((("reinit_system",), b"to go on: ", keys) for keys in (b"no\n", b"\x04", b"\x03")),
        *((("create_backup", "--passphrase"), b"for the package: ", keys) for keys in (b"\x04", b"\x03")),
    ],
)
def test_an_operator_who_does_not_answer_cancels(
    shell: dict[str, str], command: tuple[str, ...], prompt: bytes, keys: bytes
) -> None:
    ours, theirs = pty.openpty()
    started = [sys.executable, "-c", ON_A_TERMINAL, "manage.py", *command]
    with subprocess.Popen(started, env=shell, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while prompt not in shown:
            shown += os.read(ours, 4096)
        try:
            for _ in range(30):
                os.write(ours, keys)  # again, where Python had shown the prompt and was not yet reading
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                    break
            assert process.wait(timeout=1) == 7
        finally:
            process.kill()
    with suppress(OSError):  # which is how a terminal ends
        while more := os.read(ours, 4096):
            shown += more
    assert b"cancelled; nothing has changed" in shown
    os.close(ours)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("again", SIGNALS)
def test_a_lost_connection_ends_an_operation_as_ctrl_c_does_and_nothing_disturbs_its_end(
    number: signal.Signals, again: signal.Signals, request: pytest.FixtureRequest
) -> None:
    cleaned = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))

    def operate() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(again)  # a terminal that goes away says so more than once, as do people
            cleaned.append(True)

    with pytest.raises(CommandError) as raised, failures_as_exit_codes({}, "create"):
        operate()
    assert raised.value.returncode == 7
    assert cleaned


def test_what_a_driver_says_of_an_interrupted_statement_is_no_failure() -> None:
    def operate() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            try:
                int("commands out of sync")
            except ValueError as error:
                raise OperationalError("commands out of sync") from error

    with pytest.raises(CommandError) as raised, failures_as_exit_codes({}, "create"):
        operate()
    assert raised.value.returncode == 7


def test_who_ignores_hangups_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with failures_as_exit_codes({}, "create"):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
