"""What the commands share: options, progress, rendering, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from getpass import getpass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from backups.conf import is_text
from backups.errors import BackupError, Cancelled, TargetNotReady, UsageError
from backups.rendering import render_json, render_text
from backups.reporting import Progress, Report, Verdict, printable
from backups.services.keys import PASSPHRASE_VARIABLE, Keys, from_environment
from backups.services.redaction import cleanse, message_of, without_values
from backups.terminal import TerminalProgress, Unfailing

_NO_MEMORY = "not enough memory"
"""As zstd says it."""
EXIT_CODES = {
    Verdict.PROVED: 0,
    Verdict.DIFFERENCES: 3,
    Verdict.ROLLED_BACK: 3,
    Verdict.FAILED: 1,
}


def exit_code(report: Report) -> int:
    """Return what the verdict stands for. A dry run that finds something to do has done what it was asked."""
    if report.options.get("dry_run") and report.verdict is Verdict.DIFFERENCES:
        return 0
    return EXIT_CODES[report.verdict]


class Terminated(KeyboardInterrupt):
    """SIGTERM, or the SIGHUP of a connection that was lost; they unwind an operation as Ctrl-C does."""


@contextmanager
def failures_as_exit_codes(options: dict[str, Any], operation: str) -> Iterator[None]:
    """Turn what goes wrong into a message with a hint and an exit code; with ``--json``, into a report as well."""
    try:
        with _terminable():
            _require_usable(options)
            yield
    except (Exception, KeyboardInterrupt) as error:
        failure = _explained(error)
        if options.get("json"):
            _write_failure(failure or BackupError(message_of(error)), options, operation)
        cleanse(error)
        if failure is None:
            raise
        text = f"{failure}\nhint: {failure.hint}" if failure.hint else str(failure)
        raise CommandError(printable(text), returncode=failure.exit_code) from error


def _explained(error: BaseException) -> BackupError | None:
    """Say what went wrong and what to do about it; None for a mistake of ours, which needs its traceback."""
    match error:
        case BackupError():
            return error
        case _ if _was_interrupted(error):
            return Cancelled("cancelled; if a report had been begun, it says what was done, and what was not")
        case DatabaseError():
            return BackupError(
                f"the database failed: {message_of(error)}", hint="see that it can be reached and is sound"
            )
        case sqlite3.Error():
            place = _sqlite_temporary_directory()
            is_full = "full" in str(error)
            what = "is full" if is_full else f"cannot be used: {without_values(str(error))}"
            return BackupError(
                f"the temporary directory {place} {what}",
                hint="free some space there, or set TMPDIR to a directory that has more",
            )
        case OSError(errno=errno.ENOSPC):
            return BackupError(
                f"the system failed: {error}", hint="free some space; TMPDIR says where temporary files are"
            )
        case Exception() if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
            return BackupError("the memory that this process may have ran out", hint="raise its limit, see ulimit -v")
        case RuntimeError() if "start new thread" in str(error):
            return BackupError(
                "no thread could be started", hint="raise the limits of memory or processes, see ulimit -a"
            )
        case OSError():
            return BackupError(f"the system failed: {error}")
        case UnicodeEncodeError(reason="surrogates not allowed"):
            return BackupError(
                "a name or a value that came from the system is not UTF-8",
                hint="see the environment, the settings, and the path of the current directory",
            )
    return None


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is at the bottom of it: to leave a statement halfway makes drivers fail once more."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error is not None
    return _was_interrupted(error.__cause__) or _was_interrupted(error.__context__)


def _require_usable(options: dict[str, Any]) -> None:
    """Raise ``UsageError`` for an argument that no report could hold, and for a database that is none."""
    for name, given in options.items():
        for value in given if isinstance(given, list) else [given]:
            text = str(value.absolute()) if isinstance(value, Path) else value
            if isinstance(text, str) and not is_text(text):
                raise UsageError(
                    f"the argument {name.replace('_', '-')} is not UTF-8", hint="see the locale, or rename the file"
                )
    alias = options.get("database", DEFAULT_DB_ALIAS)
    if alias not in connections:
        raise UsageError(f"there is no database {alias!r} in DATABASES", hint="name one of its aliases")


def _write_failure(failure: BackupError, options: dict[str, Any], operation: str) -> None:
    report = failure.report or Report(
        operation=operation, database=options.get("database", ""), error=printable(str(failure))
    )
    report.verdict = Verdict.FAILED
    write(render_json(report), options.get("stdout"))


def _sqlite_temporary_directory() -> str:
    """Return where SQLite puts a database without a name: https://sqlite.org/tempfiles.html#temporary_file_storage_locations."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108
    usable = (path for path in named if path and Path(path).is_dir() and os.access(path, os.W_OK | os.X_OK))
    return next(usable, ".")


def write(text: str, stream: Any = None) -> None:
    """Write a result. That nobody reads it does not change what the operation has done."""
    target = Unfailing(stream or sys.stdout)
    target.write(text if text.endswith("\n") else f"{text}\n")
    target.flush()
    if target.failure and not isinstance(target.failure, BrokenPipeError):  # which says that nobody wants to read it
        Unfailing(sys.stderr).write(f"the result could not be written: {target.failure}\n")


def _give_up_unwritten(stream: Any) -> None:
    """Let go of what a stream still holds and cannot write: Python's own attempt as it ends changes the exit code."""
    if stream is not None:
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _terminable() -> Iterator[None]:
    def terminate(number: int, frame: object) -> None:
        # What is cleaned up is not to be disturbed by the next one. Django goes on to set autocommit where its rollback
        # is interrupted, and MariaDB and MySQL commit then.
        for one in previous:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    heeded = [number for number in signals if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = {number: signal.getsignal(number) for number in heeded}
    for number in heeded:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def add_identity(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--identity",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="private key of age or SSH that opens an encrypted package; without it, BACKUPS_IDENTITY or "
        "BACKUPS_PASSPHRASE in the environment, or a question on the terminal",
    )


def keys_of(options: dict[str, Any]) -> Keys:
    """Return where private keys are to come from; somebody is asked only where there is a terminal."""
    may_ask = options.get("interactive", True) and sys.stdin is not None and sys.stdin.isatty()
    return Keys(files=options["identity"], ask=_ask if may_ask else None)


def _ask(prompt: str) -> str:
    try:
        return getpass(prompt)
    except (EOFError, KeyboardInterrupt) as error:
        raise Cancelled("cancelled; nothing has changed") from error
    except UnicodeDecodeError:
        raise UsageError("what was typed is not UTF-8", hint="see the locale of the terminal") from None


def new_passphrase() -> str:
    """Return the passphrase for a package to be made, from the environment or typed twice. Raises ``UsageError``."""
    if held := from_environment(PASSPHRASE_VARIABLE):
        return held
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("there is no passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or type it on a terminal")
    typed = _ask("Passphrase for the package: ")
    if not typed or _ask("The same again: ") != typed:
        raise UsageError("the passphrase is empty, or was not the same twice", hint="try again")
    return typed


class EngineCommand(BaseCommand):
    """A command whose exit code says what was done, whatever became of the streams that it tells it on."""

    operation = ""
    requires_system_checks: list[str] = []  # a system whose checks fail must still be restorable

    def __init__(self, stdout: Any = None, stderr: Any = None, **options: Any) -> None:
        shown: Any = Unfailing(stderr or sys.stderr)
        super().__init__(stdout, shown, **options)

    def execute(self, *args: Any, **options: Any) -> str | None:
        if options.get("stderr"):
            options["stderr"] = Unfailing(options["stderr"])
        return super().execute(*args, **options)

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        finally:
            for stream in (sys.stdout, sys.stderr):
                _give_up_unwritten(stream)


class OperationCommand(EngineCommand):
    """A command that calls one service and renders its report: results on stdout, progress on stderr."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="database to work on")
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object")

    def add_safeguards(self, parser: ArgumentParser) -> None:
        """Add the options of what destroys: to look first, to keep what is there, and to be asked."""
        parser.add_argument("--dry-run", action="store_true", help="print what would happen and change nothing")
        parser.add_argument(
            "--no-safety-backup",
            action="store_false",
            dest="safety_backup",
            help="do not back up what is there first",
        )
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="do not ask; for scripts"
        )

    def operate(
        self,
        options: dict[str, Any],
        call: Callable[[Progress], Report],
        *,
        confirm: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        """Call a service, print its report, and exit with the code that its verdict stands for.

        ``confirm`` gives a warning that names what will be lost, and the word that the operator has to type.
        """
        with failures_as_exit_codes(options, self.operation):
            if confirm is not None and options["interactive"]:
                self._confirm(*confirm())
            with TerminalProgress(self.stderr, verbosity=options["verbosity"]) as progress:
                report = call(progress)
        color = self.stdout.isatty()
        write(render_json(report) if options["json"] else render_text(report, color=color), self.stdout)
        if code := exit_code(report):
            sys.exit(code)

    def _confirm(self, warning: str, word: str) -> None:
        """Show what will be lost and go on only if the operator types ``word``. Raises ``Cancelled`` otherwise."""
        if sys.stdin is None or not sys.stdin.isatty():
            raise TargetNotReady(
                "this destroys data, and nobody is there to confirm it", hint="use --no-input in scripts"
            )
        try:
            self.stderr.write(warning)
            self.stderr.write(f"Type {word!r} to go on: ", ending="")
            self.stderr.flush()
            typed = input()
        except (EOFError, KeyboardInterrupt, UnicodeDecodeError) as error:
            raise Cancelled("cancelled; nothing has changed") from error
        if typed.strip() != word:
            raise Cancelled("cancelled; nothing has changed")
