from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from backups.management.operate import OperationCommand, failures_as_exit_codes, new_passphrase
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

        parser.add_argument(
            "--encrypt-to",
            action="append",
            default=[],
            metavar="RECIPIENT",
            help="public key of age or SSH that can open the package, beside those in BACKUPS['RECIPIENTS']",
        )
        parser.add_argument(
            "--passphrase",
            action="store_true",
            help="encrypt with a passphrase alone: BACKUPS_PASSPHRASE in the environment, or typed on the terminal",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with failures_as_exit_codes(options, self.operation):
            passphrase = new_passphrase() if options["passphrase"] else ""
        wanted = CreateOptions(
            using=options["database"],
            output=options["output"],
            note=options["note"],
            allow_missing_files=options["allow_missing_files"],
            encrypt_to=options["encrypt_to"],
            passphrase=passphrase,
        )
        self.operate(options, lambda progress: create_backup(wanted, progress))
