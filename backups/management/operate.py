"""What the commands share: options, progress, rendering, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import getpass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from backups.errors import BackupError, Cancelled, TargetNotReady, UsageError
from backups.rendering import render_json, render_text
from backups.reporting import Progress, Report, Verdict
from backups.services.keys import PASSPHRASE_VARIABLE, Keys
from backups.terminal import TerminalProgress

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


@contextmanager
def failures_as_exit_codes() -> Iterator[None]:
    """Turn the engine's errors into Django's, with message, hint and exit code."""
    try:
        yield
    except BackupError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        raise CommandError(f"{error}{hint}", returncode=error.exit_code) from error


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
    may_ask = options.get("interactive", True) and sys.stdin.isatty()
    return Keys(files=options["identity"], ask=getpass if may_ask else None)


def new_passphrase() -> str:
    """Return the passphrase for a package to be made, from the environment or typed twice. Raises ``UsageError``."""
    if held := os.environ.get(PASSPHRASE_VARIABLE):
        return held
    if not sys.stdin.isatty():
        raise UsageError("there is no passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or type it on a terminal")
    typed = getpass("Passphrase for the package: ")
    if not typed or getpass("The same again: ") != typed:
        raise UsageError("the passphrase is empty, or was not the same twice", hint="try again")
    return typed


class OperationCommand(BaseCommand):
    """A command that calls one service and renders its report: results on stdout, progress on stderr."""

    requires_system_checks: list[str] = []  # a system whose checks fail must still be restorable

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="database to work on")
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object")

    def add_no_input(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="do not ask; for scripts"
        )

    def operate(self, options: dict[str, Any], call: Callable[[Progress], Report]) -> None:
        """Call a service, print its report, and exit with the code that its verdict stands for."""
        if options["database"] not in connections:
            raise CommandError(f"there is no database {options['database']!r} in DATABASES", returncode=2)
        with failures_as_exit_codes(), TerminalProgress(self.stderr, verbosity=options["verbosity"]) as progress:
            report = call(progress)
        self.stdout.write(render_json(report) if options["json"] else render_text(report, color=self.stdout.isatty()))
        if code := exit_code(report):
            sys.exit(code)

    def confirm(self, options: dict[str, Any], warning: str, word: str) -> None:
        """Show what will be lost and go on only if the operator types ``word``. Raises ``Cancelled`` otherwise."""
        if not options["interactive"]:
            return
        if not sys.stdin.isatty():
            raise TargetNotReady(
                "this destroys data, and nobody is there to confirm it", hint="use --no-input in scripts"
            )
        self.stderr.write(warning)
        if input(f"Type {word!r} to go on: ").strip() != word:
            raise Cancelled("cancelled; nothing has changed")
