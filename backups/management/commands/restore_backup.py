from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from backups.errors import UsageError
from backups.management.foreign import add_conversion, conversion
from backups.management.operate import OperationCommand, add_identity, failures_as_exit_codes, keys_of
from backups.services.catalogue import Undoing, find_undo
from backups.services.plan import Mode, OnMissing
from backups.services.reinit import describe_loss
from backups.services.restore import RestoreOptions, restore

CONSEQUENCE = "rows that the package does not have will be deleted"


class Command(OperationCommand):
    operation = "restore"
    help = "Restore a package, prove it row by row, and commit; or change nothing and say what stood in the way."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("package", nargs="?", help="a path, a name that list_backups shows, or latest")
        parser.add_argument(
            "--undo",
            action="store_true",
            help="in place of a package: bring back, in mode replace, what was there before the last restore or "
            "re-initialisation, from its safety backup",
        )
        parser.add_argument(
            "--mode",
            choices=[str(mode) for mode in Mode],
            help="merge (default): other rows stay; replace: afterwards the tables hold exactly the package's rows",
        )
        parser.add_argument(
            "--on-missing",
            choices=[str(policy) for policy in OnMissing],
            default=str(OnMissing.FAIL),
            help="what to do with a reference to something that is neither in the package nor in the database",
        )
        parser.add_argument(
            "--config-to", type=Path, metavar="DIRECTORY", help="put the package's configuration files there"
        )
        add_identity(parser)
        parser.add_argument(
            "--allow-schema-differences",
            action="store_true",
            help="carry over what fits from a package of another schema, and report what does not",
        )
        add_conversion(parser)
        self.add_safeguards(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with failures_as_exit_codes(options, self.operation):
            package, mode, undo = _wanted(options)
        wanted = RestoreOptions(
            package=package,
            using=options["database"],
            mode=mode,
            undo=undo,
            on_missing=OnMissing(options["on_missing"]),
            dry_run=options["dry_run"],
            safety_backup=options["safety_backup"],
            config_to=options["config_to"],
            allow_schema_differences=options["allow_schema_differences"],
            keys=keys_of(options),
            conversion=conversion(options, self.operation),
        )
        destroys = wanted.mode is Mode.REPLACE and not wanted.dry_run
        self.operate(
            options,
            lambda progress: restore(wanted, progress),
            confirm=(lambda: (_warning(wanted), "replace")) if destroys else None,
        )


def _warning(wanted: RestoreOptions) -> str:
    loss = describe_loss(wanted.using, CONSEQUENCE)
    return f"{loss}\nThis undoes {wanted.undo}." if wanted.undo else loss


def _wanted(options: dict[str, Any]) -> tuple[str, Mode, Undoing | None]:
    if not options["undo"]:
        if options["package"] is None:
            raise UsageError("no package is named", hint="give a path, a name that list_backups shows, or latest")
        return options["package"], Mode(options["mode"] or Mode.MERGE), None
    if options["package"] is not None or options["mode"] == Mode.MERGE:
        raise UsageError("--undo takes neither a package nor --mode merge", hint="it finds the package, and replaces")
    undo = find_undo(options["database"])
    return undo.package, Mode.REPLACE, undo
