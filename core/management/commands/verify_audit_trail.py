from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from core import audit


class Command(BaseCommand):
    help = "Prove that no event of the audit trail was altered. Exit code 3: some were."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database (default: %(default)s)")

    def handle(self, *args: Any, database: str, **options: Any) -> None:
        check = audit.verify(database)
        for problem in check.problems:
            self.stdout.write(problem.message)
        self.stdout.write(f"{check.events} events, {len(check.heads)} heads, {len(check.problems)} problems")
        if check.problems:
            raise CommandError("the audit trail was altered", returncode=3)
