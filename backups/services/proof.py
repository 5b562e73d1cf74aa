"""The row by row comparison of a package with a database: all of a validation, and a restore's last step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from enum import Enum, auto
from itertools import islice
from typing import Any

from django.db.models import Model

from backups import conf
from backups.records.comparison import CHANGED, CREATED, UNCHANGED, Comparison, Pair, Side, differing_fields
from backups.records.digest import digest_of
from backups.records.pages import Page
from backups.records.record import Key, Record
from backups.records.rows import KeyCache, RowReader
from backups.records.scratch import Scratch
from backups.records.table import Table
from backups.records.twins import Twins
from backups.records.verbatim import LinesInOrder
from backups.reporting import Finding, Progress, Severity

FINDINGS_PER_MODEL = 1000
"""Differences named one by one; the rest is counted. A report of millions would help nobody."""
REDACTED = "[redacted]"
QUOTED_CHARACTERS = 64
"""Of a value, in an error message of MySQL."""


class Extras(Enum):
    """What rows that the package does not have mean."""

    DIFFER = auto()
    MAY_STAY = auto()
    APPENDED = auto()
    """Newer rows of a table that only grows: noted, no difference."""


class Prover:
    """Compares tables of one database with what they should hold."""

    def __init__(self, using: str, scratch: Scratch, twins: Twins, progress: Progress) -> None:
        """``twins`` are those of the package."""
        self.using = using
        self._package_twins = twins
        self._scratch = scratch
        self._progress = progress
        self._keys = KeyCache(using)
        self._moved: dict[type[Model], Mapping[Any, Any]] = {}
        self._twins = Twins(scratch, lambda table: RowReader(table, using, self._keys).records(), twins)

    def is_verbatim(
        self,
        table: Table,
        rows: int,
        blocks: Iterable[bytes],
        expected_keys: Callable[[Record], tuple[Any, dict[str, Any]]],
        moved: Mapping[str, Mapping[Any, Any]] | None,
    ) -> bool:
        """Return whether the table holds exactly the rows of ``blocks`` of lines, under the primary keys expected.

        ``rows`` is how many the table has, for those who watch; ``moved`` as ``LinesInOrder`` takes it.
        """
        expected = LinesInOrder(blocks, table, expected_keys, moved)
        with closing(self._pages(table, rows, is_digested=False)) as pages:
            return all(map(expected.are_next, pages)) and expected.are_all

    def digest(self, table: Table, rows: int) -> str:
        """Return the digest of a table's content."""
        with closing(self._pages(table, rows)) as pages:
            return digest_of(sum(page.content for page in pages))

    def moved(self, table: Table) -> Mapping[str, Mapping[Any, Any]]:
        """Return, for each reference of a table, the keys that ``differences`` has found changed where it leads."""
        return {
            reference.name: self._moved[reference.keys_of]
            for reference in table.references
            if reference.parts and reference.keys_of in self._moved
        }

    def differences(
        self, table: Table, rows: int, records: Callable[[], Iterable[Record]], extras: Extras
    ) -> tuple[list[Finding], int]:
        """Name what the table lacks, has besides, or has otherwise than ``records`` (called twice) say.

        The second value counts the rows that are as they should be.
        """
        reader = RowReader(table, self.using, self._keys)
        comparison = Comparison(self._scratch, table)
        comparison.fill(
            Side(records(), self._package_twins),
            Side(self._counted(table, rows, reader.records()), self._twins),
        )
        missing = (_missing(table, pair) for pair in comparison.pairs(CREATED))
        extra = _extras(table, comparison, extras)
        different = _different(table, records(), reader, comparison)
        findings: list[Finding] = []
        for kind in (missing, different, extra):
            findings += _capped(table, kind)
        unchanged = comparison.count(UNCHANGED)
        if moved := comparison.key_map().numbers:
            self._moved[table.model] = moved
        comparison.drop()
        return findings, unchanged

    def _pages(self, table: Table, rows: int, *, is_digested: bool = True) -> Generator[Page]:
        self._progress.start(f"verify {table.label}", rows)
        with closing(RowReader(table, self.using, self._keys).pages(is_digested=is_digested)) as pages:
            for page in pages:
                self._progress.advance(page.rows)
                yield page
        self._progress.finish()

    def _counted(self, table: Table, rows: int, records: Iterable[Record]) -> Iterator[Record]:
        self._progress.start(f"verify {table.label}", rows)
        for record in records:
            self._progress.advance(1)
            yield record
        self._progress.finish()


def shown(field: str, value: Any) -> Any:
    """Return a value as a finding may show it."""
    if value is not None and any(word in field.lower() for word in conf.read().sensitive):
        return REDACTED
    return value


def without_secrets(message: str, values: Mapping[str, Any]) -> str:
    """Take the sensitive ones of a row's values, by column, out of what a database says about the row."""
    for column, value in values.items():
        if value and shown(column, value) == REDACTED:
            # MySQL and MariaDB cut what they quote.
            message = message.replace(str(value), REDACTED).replace(str(value)[:QUOTED_CHARACTERS], REDACTED)
    return message


def _missing(table: Table, pair: Pair) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="row_missing",
        model=table.label,
        identity=pair.identity,
        message="the row is in the package and not in the database",
    )


def _extras(table: Table, comparison: Comparison, extras: Extras) -> Iterator[Finding]:
    if extras is Extras.DIFFER:
        for identity, _ in comparison.extras():
            yield Finding(
                severity=Severity.ERROR,
                code="row_extra",
                model=table.label,
                identity=identity,
                message="the row is in the database and not in the package",
            )
    elif extras is Extras.APPENDED and (count := comparison.extra):
        yield Finding(
            severity=Severity.INFO,
            code="rows_appended",
            model=table.label,
            found=count,
            message="rows that the package does not have were appended",
        )


def _different(table: Table, records: Iterable[Record], reader: RowReader, comparison: Comparison) -> Iterator[Finding]:
    """Fetch both sides of each row whose content differs, and name the fields."""
    changed = comparison.pairs(CHANGED)
    pair = next(changed, None)
    for ordinal, expected in enumerate(records):
        if pair is None:
            return
        if ordinal == pair.ordinal:
            found = next(reader.records_with([pair.target_pk]))
            fields = list(differing_fields(expected, found, table))
            for field, expected_value, found_value in fields or [("", None, None)]:  # a difference is never passed over
                yield _difference(table, pair.identity, field, expected_value, found_value)
            pair = next(changed, None)


def _difference(table: Table, identity: Key, field: str, expected: Any, found: Any) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="value_differs",
        model=table.label,
        identity=identity,
        field=field,
        expected=shown(field, expected),
        found=shown(field, found),
        message="the value is not the package's",
    )


def _capped(table: Table, findings: Iterator[Finding]) -> Iterator[Finding]:
    yield from islice(findings, FINDINGS_PER_MODEL)
    first = next(findings, None)
    if first is not None:
        more = 1 + sum(1 for _ in findings)
        yield Finding(
            severity=first.severity,
            code=first.code,
            model=table.label,
            found=more,
            message=f"and {more} more like these",
        )
