from typing import Any

from backups.management.operate import OperationCommand, failures_as_exit_codes
from backups.services.catalogue import list_packages


class Command(OperationCommand):
    help = "List the packages: what the storage holds and what the catalogue knows. Works without a database."

    def handle(self, *args: Any, **options: Any) -> None:
        with failures_as_exit_codes():
            packages = list_packages(options["database"])
        self.print_rows(options, [package.as_data() for package in packages], empty="there is no package yet")
