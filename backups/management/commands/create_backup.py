from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from backups.management.operate import OperationCommand
from backups.services.create import CreateOptions, create_backup


class Command(OperationCommand):
    operation = "create"
    help = "Write a package of the database, its files and its configuration, and check that it can be read."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--output", type=Path, metavar="PATH", help="write to this file, not to the storage")
        parser.add_argument("--note", default="", help="a line to keep with the package in the catalogue")
        parser.add_argument(
            "--allow-missing-files",
            action="store_true",
            help="back up although rows name files that do not exist; the package says which",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = CreateOptions(
            using=options["database"],
            output=options["output"],
            note=options["note"],
            allow_missing_files=options["allow_missing_files"],
        )
        self.operate(options, lambda progress: create_backup(wanted, progress))
