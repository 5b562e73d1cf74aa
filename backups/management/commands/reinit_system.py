from argparse import ArgumentParser
from typing import Any

from backups.management.operate import OperationCommand
from backups.services.reinit import ReinitOptions, describe_loss, reinit_system

CONSEQUENCE = "all of it will be deleted"


class Command(OperationCommand):
    operation = "reinit"
    help = "Take a safety backup, empty every covered table and its files, and rebuild the baseline."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--allow-missing-files",
            action="store_true",
            help="take the safety backup although rows name files that do not exist",
        )
        self.add_safeguards(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = ReinitOptions(
            using=options["database"],
            safety_backup=options["safety_backup"],
            allow_missing_files=options["allow_missing_files"],
            dry_run=options["dry_run"],
        )
        self.operate(
            options,
            lambda progress: reinit_system(wanted, progress),
            confirm=None if wanted.dry_run else lambda: (describe_loss(wanted.using, CONSEQUENCE), "delete"),
        )
