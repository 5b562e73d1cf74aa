from argparse import ArgumentParser
from typing import Any

from backups.management.operate import OperationCommand, add_identity, keys_of
from backups.services.catalogue import LATEST
from backups.services.drill import DrillOptions, recovery_drill


class Command(OperationCommand):
    operation = "drill"
    help = "Rehearse a recovery in a scratch database on the same engine. The live system is not touched."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "package", nargs="?", default=LATEST, help="a path, a name that list_backups shows, or latest (default)"
        )
        parser.add_argument(
            "--demo",
            action="store_true",
            help="play the whole story from nothing: seed, back up, re-initialise, restore, validate",
        )
        add_identity(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = DrillOptions(
            package=options["package"], using=options["database"], demo=options["demo"], keys=keys_of(options)
        )
        self.operate(options, lambda progress: recovery_drill(wanted, progress))
