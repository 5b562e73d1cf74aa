"""What the commands share: options, progress, rendering, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
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

from backups.errors import BackupError, Cancelled, TargetNotReady, UsageError
from backups.rendering import render_json, render_text
from backups.reporting import Progress, Report, Verdict, printable
from backups.services.convert import Conversion, parse_mapping
from backups.services.keys import PASSPHRASE_VARIABLE, Keys
from backups.services.redaction import cleanse, message_of
from backups.terminal import TerminalProgress, Unfailing

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
    """SIGTERM, which unwinds an operation as Ctrl-C does."""


@contextmanager
def failures_as_exit_codes(options: dict[str, Any], operation: str = "") -> Iterator[None]:
    """Turn what goes wrong into a message with a hint and an exit code; with ``--json``, into a report as well."""
    try:
        with _terminable():
            alias = options.get("database", DEFAULT_DB_ALIAS)
            if alias not in connections:
                raise UsageError(f"there is no database {alias!r} in DATABASES", hint="name one of its aliases")
            yield
    except BackupError as error:
        raise _failure(error, error, options, operation) from error
    except KeyboardInterrupt as error:
        cancelled = Cancelled("cancelled; the report says what was done, and what was not")
        raise _failure(cancelled, error, options, operation) from error
    except DatabaseError as error:
        failed = BackupError(
            f"the database failed: {message_of(error)}", hint="see that it can be reached and is sound"
        )
        raise _failure(failed, error, options, operation) from error
    except OSError as error:
        raise _failure(BackupError(f"the system failed: {error}"), error, options, operation) from error


def _failure(error: BackupError, cause: BaseException, options: dict[str, Any], operation: str) -> CommandError:
    if options.get("json") and operation:
        report = error.report or Report(operation=operation, database=options.get("database", ""), error=str(error))
        report.verdict = Verdict.FAILED
        write(render_json(report), options.get("stdout"))
    cleanse(cause)
    text = f"{error}\nhint: {error.hint}" if error.hint else str(error)
    return CommandError(printable(text), returncode=error.exit_code)


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
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
    return Keys(files=options["identity"], ask=getpass if may_ask else None)


def new_passphrase() -> str:
    """Return the passphrase for a package to be made, from the environment or typed twice. Raises ``UsageError``."""
    if held := os.environ.get(PASSPHRASE_VARIABLE):
        return held
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("there is no passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or type it on a terminal")
    typed = getpass("Passphrase for the package: ")
    if not typed or getpass("The same again: ") != typed:
        raise UsageError("the passphrase is empty, or was not the same twice", hint="try again")
    return typed


def add_conversion(parser: ArgumentParser) -> None:
    """Add the options for files that are not packages, such as the fixtures of ``dumpdata``."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="read a fixture's model old_app.model as new_app.model, or its field app.model.field under another name;"
        " without a new name it is left out",
    )
    parser.add_argument(
        "--trust-keys",
        action="store_true",
        help="a fixture's reference by primary key to a row that it does not hold means the row of this database",
    )


def conversion(options: dict[str, Any], operation: str) -> Conversion:
    """Read the options that ``add_conversion`` adds."""
    with failures_as_exit_codes(options, operation):
        return Conversion(mapping=parse_mapping(options["map"]), trust_keys=options["trust_keys"])


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
        self.stderr.write(warning)
        self.stderr.write(f"Type {word!r} to go on: ", ending="")
        self.stderr.flush()
        try:
            typed = input()
        except (EOFError, KeyboardInterrupt) as error:
            raise Cancelled("cancelled; nothing has changed") from error
        if typed.strip() != word:
            raise Cancelled("cancelled; nothing has changed")
