"""Writing what a plan says: in bulk, and row by row where the database refuses a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from django.db import DataError, IntegrityError, ProgrammingError

from backups import databases
from backups.databases.base import Row, limited
from backups.records.identity import unique_sets
from backups.records.parameters import LineParser
from backups.records.parsing import Lines, Parsed
from backups.records.record import Key, parse
from backups.records.relations import column_of, get_field, has_constraint, is_emptied, target_field
from backups.records.rows import RowReader, RowWriter, ValueRefused
from backups.records.table import Table
from backups.records.values import decoder
from backups.reporting import Finding, Progress, Severity
from backups.services.plan import CHANGED, CREATED, Plan, PlannedRow, TablePlan
from backups.services.proof import shown, without_secrets

BATCH_ROWS = 2000
"""Rows in one statement or COPY, fewer where they are large: what is searched row by row when a database refuses it."""
BATCH_BYTES = 512 * 1024
"""Lines that are loaded as they are, where nobody counts them: about as many."""


REFUSALS = (IntegrityError, DataError, ProgrammingError, ValueError, OverflowError)
"""What engines and drivers raise for a row that they do not take."""


BULK_ROWS = 10_000
"""Rows of an empty table from which preparing it for a bulk load pays."""

_Batch = tuple[Parsed | None, Lines]
"""What a database takes for some lines, None where one of them wants a closer look, and the lines."""


class Loader:
    """Carries out a plan inside the transaction that the caller has opened. Collects findings; raises for none."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan = plan
        self.database = databases.of(plan.using)
        self.findings: list[Finding] = []
        self._progress = progress

    def load(self) -> None:
        """Write every table and repair sequences."""
        large = [one for one in self.plan.tables.values() if one.is_verbatim and one.package_rows >= BULK_ROWS]
        self.database.begin_bulk_load([one.table.name for one in large])
        shrinking = [one for one in self.plan.tables.values() if one.deleted or one.count(CHANGED)]
        self.database.suspend_actions([one.table.name for one in shrinking])
        for table in self.plan.tables.values():
            self._let_go(table)
        # Deleted first: a row that goes may hold a unique value that another one brings.
        for table in self.plan.tables.values():
            self._delete(table)
        for table in self.plan.tables.values():
            self._insert(table)
        self.database.reset_sequences(self.plan.next_keys)

    def _let_go(self, plan: TablePlan) -> None:
        """Empty the references to rows that go, in a table whose rows stay, as deleting those rows by hand would.

        Before anything is written: another row may get the key.
        """
        if not plan.extras_stay or plan.comparison is None:
            return
        for reference in plan.table.references:
            gone = self.plan.tables.get(reference.keys_of._meta.label_lower) if reference.keys_of else None
            if gone is None or not gone.deleted or not is_emptied(reference.field):
                continue
            decode = decoder(gone.table.key_fields[0], self.database.connection)
            keys = (decode(pk) for pk in gone.extra_keys())
            emptied = self.database.empty_references(plan.table.name, column_of(reference.field), keys)
            if emptied:
                self.findings.append(
                    Finding(
                        severity=Severity.INFO,
                        code="reference_emptied",
                        model=plan.table.label,
                        field=reference.name,
                        found=emptied,
                        message=f"rows that stay referred to rows of {gone.table.label} that the package does not have",
                    )
                )

    def _delete(self, plan: TablePlan) -> None:
        """Delete the rows that are to go, and those to be overwritten: they are inserted again, whole.

        An UPDATE could not exchange two rows' unique values; foreign keys wait until the end of the transaction.
        """
        if plan.comparison is None:
            return
        table = plan.table
        decode = [decoder(field, self.database.connection) for field in table.key_fields]
        many = len(decode) > 1

        def parameters() -> Iterator[Row]:
            for key in self._keys_to_delete(plan):
                values = key if many else [key]
                yield [one(value) for one, value in zip(decode, values, strict=True)]

        self.database.delete(table.name, table.key_columns, parameters())

    def _keys_to_delete(self, plan: TablePlan) -> Iterator[Any]:
        if plan.comparison is None:
            return
        yield from plan.extra_keys()
        yield from (pair.target_pk for pair in plan.comparison.pairs(CHANGED))

    def _insert(self, plan: TablePlan) -> None:
        total = plan.count(CREATED) + plan.count(CHANGED)
        if not total:
            return
        table = plan.table
        self._progress.start(f"load {table.label}", total)
        writer = RowWriter(table, self.plan.using)
        if plan.is_verbatim and self.plan.source.is_as_written(table.label):
            self._insert_lines(table, writer, total)
        else:
            wanted = (row for row in self.plan.rows(table.label) if row.action in (CREATED, CHANGED))
            for rows in limited(wanted, BATCH_ROWS, lambda row: row.record.weight):
                self._insert_rows(table, writer, rows)
        self._progress.finish()

    def _insert_lines(self, table: Table, writer: RowWriter, total: int) -> None:
        """Insert all rows of a table as they are in the package, but for the keys in their references."""
        if self.database.takes_text:
            if self._is_streamed(table, writer):
                return
            self._progress.start(f"load {table.label} in batches", total)
        self._insert_batches(table, writer, self._parsed(table, writer))

    def _is_streamed(self, table: Table, writer: RowWriter) -> bool:
        """Insert all rows by as few statements as there can be, or none where the database refuses one.

        It takes rows while the next ones are made: loads take 0.7 to 0.8 times as long as batch by batch, each of
        which one side waits for.
        """
        found = len(self.findings)
        try:
            with self.database.savepoint():
                for is_text, batches in groupby(self._parsed(table, writer), key=_is_text):
                    if is_text:
                        self.database.insert_text(table.name, writer.columns, self._texts(batches))
                    else:
                        self._insert_batches(table, writer, batches)
        except REFUSALS:
            del self.findings[found:]
            return False
        return True

    def _texts(self, batches: Iterable[tuple[Any, Lines]]) -> Iterator[bytes]:
        for parsed, _ in batches:
            yield parsed.rows
            self._progress.advance(parsed.count)

    def _insert_batches(self, table: Table, writer: RowWriter, batches: Iterable[_Batch]) -> None:
        for parsed, lines in batches:
            if parsed is not None and self._is_inserted(table, writer, parsed.rows):
                self._progress.advance(parsed.count)
            else:
                self._insert_rows(table, writer, self.plan.rows_of(table.label, lines.lines, lines.after))

    def _parsed(self, table: Table, writer: RowWriter) -> Iterator[_Batch]:
        """Parse the lines of a table, batch by batch."""
        parser = LineParser(table, writer, self.plan.keys_held(table), is_text=self.database.takes_text)
        waiting: deque[Lines] = deque()
        for parsed in parser.parsed(self._batches(table, waiting)):
            yield parsed, waiting.popleft()

    def _batches(self, table: Table, waiting: deque[Lines]) -> Iterator[Lines]:
        """Read lines of the package; who parses them may be behind, so that they are kept in ``waiting``."""
        after = None
        for blocks in limited(self.plan.source.package.blocks(table.label), BATCH_ROWS, len, BATCH_BYTES):
            lines = Lines(block=b"".join(blocks), after=after)
            waiting.append(lines)
            yield lines
            after = parse(lines.last, table.label).pk

    def _insert_rows(self, table: Table, writer: RowWriter, rows: Iterable[PlannedRow]) -> None:
        batch = list(self._parameters(table, writer, rows))
        if not self._is_inserted(table, writer, [parameters for _, parameters in batch]):
            self._insert_one_by_one(table, writer, batch)
        self._progress.advance(len(batch))

    def _is_inserted(self, table: Table, writer: RowWriter, rows: Sequence[Row] | bytes) -> bool:
        """Insert all rows, which may be text, or none."""
        try:
            with self.database.savepoint():
                if isinstance(rows, bytes):
                    self.database.insert_text(table.name, writer.columns, [rows])
                else:
                    self.database.insert(table.name, writer.columns, rows)
        except REFUSALS:
            return False
        return True

    def _parameters(
        self, table: Table, writer: RowWriter, rows: Iterable[PlannedRow]
    ) -> Iterator[tuple[PlannedRow, Row]]:
        for row in rows:
            try:
                yield row, writer.row(row.record, row.pk, self.plan.references(table, row.record))
            except ValueRefused as refused:
                self._refuse(
                    table,
                    row,
                    code="value_invalid",
                    field=refused.field,
                    expected=shown(refused.field, refused.value),
                    message=f"the field does not take the value: {shown(refused.field, refused.reason)}",
                )

    def _insert_one_by_one(self, table: Table, writer: RowWriter, batch: Sequence[tuple[PlannedRow, Row]]) -> None:
        """Find the very rows of a batch that the database refuses, and say why."""
        for row, parameters in batch:
            try:
                with self.database.savepoint():
                    self.database.insert(table.name, writer.columns, [parameters])
            except REFUSALS as error:
                self._explain(table, writer, row, parameters, error)

    def _explain(self, table: Table, writer: RowWriter, row: PlannedRow, parameters: Row, error: Exception) -> None:
        values = dict(zip(writer.columns, parameters, strict=True))
        for fields in unique_sets(table.model):
            columns = {column_of(get_field(table.model, name)): name for name in fields}
            if not columns.keys() <= values.keys():
                continue
            if other := self._row_with(table, {column: values[column] for column in columns}):
                name = ", ".join(fields)
                self._refuse(
                    table,
                    row,
                    code="unique_taken",
                    field=name,
                    expected=shown(name, [row.record.fields.get(field, row.pk) for field in fields]),
                    found=other,
                    message=f"{name} must be unique and belongs to another row of {table.label}",
                )
                return
        self._refuse(
            table,
            row,
            code="row_refused",
            message=f"the database refuses the row: {without_secrets(str(error).strip().splitlines()[0], values)}",
        )

    def _row_with(self, table: Table, values: dict[str, Any]) -> Key | None:
        """Return the identity of the row that has these values, by column."""
        if None in values.values():
            return None
        try:
            with self.database.savepoint():
                record = next(RowReader(table, self.plan.using).records_where(values), None)
        except REFUSALS:  # a value that the database does not even take for a search
            return None
        return table.identity_of(record) if record else None

    def violations(self) -> list[Finding]:
        """Have the database check what waits for the end of the transaction, and name every row that it minds."""
        try:
            with self.database.savepoint():
                self.database.end_bulk_load()
                self.database.check_constraints()
        except IntegrityError as error:
            unnamed = Finding(severity=Severity.ERROR, code="constraint_violated", message=str(error).strip())
            return list(self._dangling_references()) or [unnamed]
        return []

    def _dangling_references(self) -> Iterator[Finding]:
        """Find the rows whose foreign keys lead nowhere, where the database names only the first."""
        for plan in self.plan.tables.values():
            if not plan.package_rows and not plan.before:
                continue
            for reference in plan.table.references:
                field = reference.field
                if not has_constraint(field):
                    continue
                dangling = self.database.dangling(
                    plan.table.name,
                    plan.table.key_columns[0],
                    column_of(field),
                    reference.to._meta.db_table,
                    column_of(target_field(field)),
                )
                for pk, value in dangling:
                    yield Finding(
                        severity=Severity.ERROR,
                        code="reference_dangling",
                        model=plan.table.label,
                        identity=[str(pk)],
                        field=reference.name,
                        expected=str(value),
                        message=f"refers to a row of {reference.to._meta.label_lower} that would not exist",
                    )

    def _refuse(self, table: Table, row: PlannedRow, **details: Any) -> None:
        self.findings.append(
            Finding(
                severity=Severity.ERROR,
                model=table.label,
                identity=table.identity_of(row.record),
                **details,
            )
        )


def _is_text(batch: _Batch) -> bool:
    parsed, _ = batch
    return parsed is not None and isinstance(parsed.rows, bytes)
