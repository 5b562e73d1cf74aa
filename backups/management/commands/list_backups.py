from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from backups.management.operate import EngineCommand, failures_as_exit_codes, write
from backups.rendering import as_json, table, with_unit
from backups.services.catalogue import Listed, list_packages


class Command(EngineCommand):
    operation = "list"
    help = "List the packages: what the storage holds and the catalogue remembers. Works without a database."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="database of the catalogue")
        parser.add_argument("--json", action="store_true", help="print a JSON list")

    def handle(self, *args: Any, **options: Any) -> None:
        with failures_as_exit_codes(options, self.operation):
            packages, trouble = list_packages(options["database"])
        if trouble:
            self.stderr.write(f"the catalogue cannot be read, this is what the storage holds: {trouble}")
        if options["json"]:
            write(as_json([asdict(package) for package in packages]), self.stdout)
        elif packages:
            head = ("package", "kind", "created", "size", "rows", "files", "state", "note")
            write(table(head, [_row(package) for package in packages], right=(3, 4, 5)), self.stdout)
        else:
            write("there is no package yet; create one with create_backup", self.stdout)


def _row(package: Listed) -> tuple[str, ...]:
    state = "stored" if package.stored and package.catalogued else "lost" if not package.stored else "not catalogued"
    state += ", pinned" if package.pinned else ""
    counts = ("" if count is None else str(count) for count in (package.rows, package.files))
    created = f"{package.created:%Y-%m-%d %H:%M:%S}"
    return (package.name, package.kind, created, with_unit(package.size), *counts, state, package.note)
