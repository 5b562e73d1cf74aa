from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from documents.models import Document
from workflows import demo, scale


class Command(BaseCommand):
    help = "Fill a freshly migrated database with a small company's documents, and with many more on demand."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database (default: %(default)s)")
        parser.add_argument("--scale", type=int, default=0, metavar="N", help="add generated data up to about N rows")
        parser.add_argument("--force", action="store_true", help="add to a database that already has documents")

    def handle(self, *args: Any, database: str, **options: Any) -> None:
        if Document.objects.using(database).exists() and not options["force"]:
            raise CommandError(f"database {database!r} already has documents; hint: --force adds to them")
        demo.Story(database).tell()
        if options["scale"]:
            scale.generate(options["scale"], database)
        if options["verbosity"] >= 1:
            self.stdout.write(f"{Document.objects.using(database).count()} documents are there.")
            self.stdout.write(f"The user alice has the password {demo.PASSWORD!r}: not for a system that others reach.")
