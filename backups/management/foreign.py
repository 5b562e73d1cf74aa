"""The options of the commands that read files which are not packages. The others need not wait for what reads these."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from backups.management.operate import failures_as_exit_codes
from backups.services.convert import Conversion, parse_mapping


def add_conversion(parser: ArgumentParser) -> None:
    """Add the options for files that are not packages, such as the fixtures of ``dumpdata``."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="read a fixture's model old_app.model as new_app.model, or its field app.model.field under another name;"
        " without a new name it is left out",
    )
    parser.add_argument(
        "--trust-keys",
        action="store_true",
        help="a fixture's reference by primary key to a row that it does not hold means the row of this database",
    )


def conversion(options: dict[str, Any], operation: str) -> Conversion:
    """Read the options that ``add_conversion`` adds."""
    with failures_as_exit_codes(options, operation):
        return Conversion(mapping=parse_mapping(options["map"]), trust_keys=options["trust_keys"])
