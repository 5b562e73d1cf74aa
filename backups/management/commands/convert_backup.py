from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

from backups.management.foreign import add_conversion, conversion
from backups.management.operate import OperationCommand, add_identity, keys_of
from backups.services.convert import ConvertOptions, convert
from backups.services.plan import OnMissing


class Command(OperationCommand):
    operation = "convert"
    help = "Turn a fixture of dumpdata, or a migration package, into a package, and report what it cannot carry over."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", help="a fixture (JSON, JSONL, XML, YAML; compressed or not) or migration package")
        parser.add_argument("--output", type=Path, metavar="PATH", help="write there, not to FILE.zip or FILE.zip.age")
        parser.add_argument(
            "--on-missing",
            choices=[str(policy) for policy in OnMissing],
            default=str(OnMissing.FAIL),
            help="what to do with a reference by primary key to a row that the file does not hold",
        )
        add_identity(parser)
        add_conversion(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = ConvertOptions(
            source=options["file"],
            using=options["database"],
            output=options["output"],
            keys=keys_of(options),
            conversion=replace(conversion(options, self.operation), on_missing=OnMissing(options["on_missing"])),
        )
        self.operate(options, lambda progress: convert(wanted, progress))
