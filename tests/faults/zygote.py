"""Starts commands as processes that have done their imports already, so that what happens to them hits their work.

Run with the environment of a system, it listens on the socket that it is given. Each connection brings one command and
the files for its output, and gets the process's number at its start and its exit status at its end.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARING = 8
"""Of so many tables, a second process works on one: each takes a tenth of a second to begin."""


@dataclass
class Process:
    """A command that runs, with the methods of ``Popen`` that faults need."""

    connection: socket.socket
    pid: int
    out: Path
    err: Path
    returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)  # not yet waited for: the number is still its own

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it, such as that of somebody who measures on this machine."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def is_running(self) -> bool:
        try:
            self.wait(0.001)
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises ``TimeoutExpired``."""
        if self.returncode is None:
            self.connection.settimeout(timeout)
            try:
                answer = self.connection.recv(100)
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from error
            self.returncode = int(answer or b"-9")
            self.connection.close()
        return self.returncode


class Zygote:
    """The process that commands come from."""

    def __init__(self, root: Path, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._number = 0
        self._socket = str(directory / "zygote.socket")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", self._socket],
            cwd=root,
            env={**environment, "DJANGO_SETTINGS_MODULE": "core.settings"},
            stdin=subprocess.DEVNULL,
        )

    def start(self, command: tuple[str, ...], *, host: str = "", clock: float = 0) -> Process:
        """Start a command on a host of another name, with a clock that is so many seconds ahead."""
        self._number += 1
        out, err = (self._directory / f"{self._number}.{name}" for name in ("out", "err"))
        connection = self._connected()
        out.touch()
        connection.sendall(json.dumps([command, str(out), str(err), host, clock]).encode())
        return Process(connection, int(connection.recv(100)), out, err)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _connected(self) -> socket.socket:
        deadline = time.monotonic() + 60
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                connection.connect(self._socket)
            except OSError:
                connection.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return connection


def _serve(path: str) -> list[str]:
    """Wait for commands; return the one that this process, a child by now, is to run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever watches a command is not waited for
        listener.settimeout(1)
        parent = os.getppid()
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if os.getppid() != parent:  # nobody is left to bring commands
                    sys.exit()
                continue
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    command, out, err, host, clock = json.loads(connection.recv(100_000))
    child = os.fork()
    if child:
        connection.sendall(str(child).encode())
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        status = ended.si_status if ended and ended.si_code == os.CLD_EXITED else -ended.si_status
        connection.sendall(str(status).encode())
        connection.recv(1)  # until it is known that it has ended, nobody else may have its number
        os.waitpid(child, 0)
        os._exit(0)
    connection.close()
    for name, number in ((out, 1), (err, 2)):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if host:
        _move_to(host)
    if clock:
        _set_clock(clock)
    return list(command)


def _move_to(host: str) -> None:
    """Give this process alone a host name. Raises ``PermissionError`` where it may not have one."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x04000000):  # CLONE_NEWUTS; os.unshare comes with Python 3.12
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(host)


def _set_clock(ahead: float) -> None:
    """Let Django's clock, which is what all of this project reads, be wrong."""
    from datetime import timedelta

    from django.utils import timezone

    now = timezone.now
    timezone.now = lambda: now() + timedelta(seconds=ahead)


def _work_as_on_large_tables() -> None:
    """Have second processes work on some tables, and every table be loaded in bulk, as large ones are."""
    from backups import pipeline
    from backups.services import load

    load.BULK_ROWS = 1
    start, calls = pipeline._started, itertools.count(1)
    pipeline.FEW = 0
    pipeline._started = lambda function, _: None if next(calls) % SHARING else start(function, 2)


def _warm_up() -> Any:
    """Import all that the commands will."""
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import execute_from_command_line, get_commands, load_command_class
    from django.db import connections

    for name, app in get_commands().items():
        if app in settings.INSTALLED_APPS and not app.startswith("django"):
            load_command_class(app, name)
    _work_as_on_large_tables()
    connections["default"].ensure_connection()
    connections["default"].close()
    return execute_from_command_line


if __name__ == "__main__":
    execute = _warm_up()
    sys.argv = ["manage.py", *_serve(sys.argv[1])]
    execute(sys.argv)
