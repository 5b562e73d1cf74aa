from argparse import ArgumentParser
from typing import Any

from backups.management.foreign import add_conversion, conversion
from backups.management.operate import OperationCommand, add_identity, keys_of
from backups.services.validate import ValidateOptions, validate_restore


class Command(OperationCommand):
    operation = "validate"
    help = "Compare every row, value, relation and file of a package with the live system. Changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("package", help="a path, a name that list_backups shows, or latest")
        parser.add_argument(
            "--allow-extra", action="store_true", help="rows that the package does not have are no difference"
        )
        add_identity(parser)
        parser.add_argument(
            "--quick", action="store_true", help="compare digests: says which tables differ, and not which rows"
        )
        parser.add_argument(
            "--allow-schema-differences",
            action="store_true",
            help="carry over what fits from a package of another schema, and report what does not",
        )
        add_conversion(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = ValidateOptions(
            package=options["package"],
            using=options["database"],
            allow_extra=options["allow_extra"],
            quick=options["quick"],
            allow_schema_differences=options["allow_schema_differences"],
            keys=keys_of(options),
            conversion=conversion(options, self.operation),
        )
        self.operate(options, lambda progress: validate_restore(wanted, progress))
