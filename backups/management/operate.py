"""What the commands share: options, progress, rendering, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from backups.errors import BackupError, Cancelled, TargetNotReady
from backups.rendering import render_json, render_text
from backups.reporting import Progress, Report, Verdict
from backups.services.convert import Conversion, parse_mapping
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


def conversion(options: dict[str, Any]) -> Conversion:
    """Read the options that ``add_conversion`` adds."""
    with failures_as_exit_codes():
        return Conversion(mapping=parse_mapping(options["map"]), trust_keys=options["trust_keys"])


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
