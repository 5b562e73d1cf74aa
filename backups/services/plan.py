"""What a restore will do with each record, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from django.apps import apps
from django.db.models import Model

from backups import conf, databases
from backups.package.reader import PackageReader
from backups.records.comparison import CHANGED, CREATED, SKIPPED, UNCHANGED, Comparison, KeyMap, Scratch
from backups.records.record import Record, parse
from backups.records.rows import KeyCache, RowReader
from backups.records.table import Reference, Table
from backups.reporting import Finding, Progress, Severity


class Mode(StrEnum):
    MERGE = "merge"
    """Rows of the package are created or overwritten, other rows stay."""
    REPLACE = "replace"
    """Afterwards the covered tables hold exactly the rows of the package."""


class OnMissing(StrEnum):
    """What becomes of a reference to something that is neither in the package nor in the target."""

    FAIL = "fail"
    NULL = "null"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A record as it is to be in the target: ``pk`` is its primary key there."""

    record: Record
    pk: Any
    action: str


class TablePlan:
    """What becomes of the rows of one table. Without a ``comparison``, every row is new and keeps its key."""

    def __init__(self, table: Table, rows: int, before: int) -> None:
        self.table = table
        self.package_rows = rows
        self.before = before
        self.comparison: Comparison | None = None
        self.keys: KeyMap | None = None
        self.deleted = 0

    def count(self, action: str) -> int:
        if self.comparison is None:
            return self.package_rows if action == CREATED else 0
        return self.comparison.count(action)

    @property
    def is_verbatim(self) -> bool:
        """Whether every row of the package goes into an empty table as it is."""
        return self.comparison is None

    @property
    def changes_anything(self) -> bool:
        return bool(self.count(CREATED) or self.count(CHANGED) or self.deleted)


class Plan:
    """The plan of a whole restore. ``findings`` say what stands in the way."""

    def __init__(
        self, package: PackageReader, using: str, *, mode: Mode, on_missing: OnMissing, progress: Progress
    ) -> None:
        self.package = package
        self.using = using
        self.mode = mode
        self.on_missing = on_missing
        self.database = databases.of(using)
        self.findings: list[Finding] = []
        self.scratch = Scratch()
        self.tables: dict[str, TablePlan] = {}
        self.append_only = {apps.get_model(label)._meta.label_lower for label in conf.read().append_only}
        self._progress = progress
        self._keys = KeyCache(using)
        self._outside: dict[type[Model], Comparison] = {}
        for entry in package.manifest.models:
            table = Table(apps.get_model(entry.label))
            self.tables[entry.label] = TablePlan(table, entry.rows, self.database.count(table.name))
        for label in self._parents_first():
            self._plan(self.tables[label])
        self._resolve_references()

    def close(self) -> None:
        self.scratch.close()

    @property
    def changes_anything(self) -> bool:
        return any(table.changes_anything for table in self.tables.values())

    def rows(self, label: str) -> Iterator[PlannedRow]:
        """Yield what is to become of each record, in the order of the package."""
        plan = self.tables[label]
        if plan.comparison is None:
            for record in self.records(label):
                yield PlannedRow(record, self.target_key(label, record.pk), CREATED)
            return
        for record, pair in zip(self.records(label), plan.comparison.pairs(), strict=True):
            for name in pair.nulled:
                record.fields[name] = None
                record.refs.pop(name, None)
                record.keys.pop(name, None)
            yield PlannedRow(record, pair.target_pk, pair.action)

    def records(self, label: str) -> Iterator[Record]:
        for line in self.package.lines(label):
            yield parse(line, label)

    def target_key(self, label: str, pk: Any) -> Any:
        """Return the primary key that a row of the package has in the target."""
        plan = self.tables[label]
        if plan.keys is not None:
            return plan.keys.get(pk)
        parent = plan.table.key_reference
        if parent is not None and parent.to._meta.label_lower in self.tables:
            return self.target_key(parent.to._meta.label_lower, pk)
        return pk

    def references(self, table: Table, record: Record) -> dict[str, Any]:
        """Return what the references of a record point at in the target, by field name. None: at nothing."""
        targets: dict[str, Any] = {}
        for reference in table.references:
            value = record.fields[reference.name]
            if value is None:
                continue
            label = reference.to._meta.label_lower
            value = record.refs.get(reference.name, value)
            if not reference.renumbered:
                targets[reference.name] = value
            elif label in self.tables:
                targets[reference.name] = self.target_key(label, value)
            else:
                targets[reference.name] = self._outside_key(reference, record)
        for generic in table.generics:
            value = record.fields[generic.object_id]
            key = record.keys.get(generic.object_id)
            content_type = record.fields[generic.content_type]
            if value is not None and isinstance(content_type, list):
                targets[generic.object_id] = self._generic_key(".".join(content_type), value, key)
        return targets

    # One table

    def _parents_first(self) -> list[str]:
        """Order the tables so that a primary key that is a reference comes after what it refers to."""
        ordered: dict[str, None] = {}

        def visit(label: str) -> None:
            parent = self.tables[label].table.key_reference
            if parent is not None and parent.to._meta.label_lower in self.tables:
                visit(parent.to._meta.label_lower)
            ordered[label] = None

        for label in self.tables:
            visit(label)
        return list(ordered)

    def _plan(self, plan: TablePlan) -> None:
        if plan.before:
            self._compare(plan)

    def _compare(self, plan: TablePlan) -> None:
        """Match a table with the package and give every row of the package its primary key in the target."""
        table = plan.table
        self._progress.start(f"compare {table.label}", plan.package_rows + plan.before)
        comparison = plan.comparison = Comparison(self.scratch, table)
        reader = RowReader(table, self.using, self._keys)
        comparison.fill(_counted(self.records(table.label), self._progress), _counted(reader.records(), self._progress))
        self._progress.finish()
        extras_stay = self.mode is Mode.MERGE or table.label in self.append_only
        plan.deleted = 0 if extras_stay else comparison.extra
        parent = table.key_reference
        if parent is not None:
            label = parent.to._meta.label_lower
            comparison.derive_keys(lambda pk: self.target_key(label, pk) if label in self.tables else pk)
        else:
            taken = comparison.keep_free_keys(extras_stay=extras_stay)
            if table.has_automatic_key:
                first = max(comparison.largest_key(), self.database.largest(table.name, table.key_fields[0].column))
                comparison.allocate(first + 1)
            else:
                self.findings += [_key_taken(table, pk) for pk in taken]
        if table.key_is_content:
            self.findings += [
                _key_differs(table, pair.pk, pair.target_pk)
                for pair in comparison.pairs(CHANGED)
                if pair.pk != pair.target_pk
            ]
        plan.keys = comparison.key_map()

    # References to what is not in the package

    def _resolve_references(self) -> None:
        """Find the references that lead nowhere, and skip or empty them where that was asked for."""
        skipped: set[str] = set()
        for label, plan in self.tables.items():
            outside = [
                reference
                for reference in plan.table.references
                if reference.renumbered and reference.to._meta.label_lower not in self.tables
            ]
            if outside and plan.package_rows and self._resolve(plan, outside):
                skipped.add(label)
        while skipped:
            skipped = self._skip_dependents(skipped)

    def _resolve(self, plan: TablePlan, references: list[Reference]) -> bool:
        """Apply the policy to the references of one table that the target does not know; True if rows are skipped."""
        skips = False
        for ordinal, record in enumerate(self.records(plan.table.label)):
            for reference in references:
                if record.fields[reference.name] is None or self._outside_key(reference, record) is not None:
                    continue
                skips |= self._apply_policy(plan, ordinal, record, reference)
        return skips

    def _skip_dependents(self, skipped: set[str]) -> set[str]:
        """Apply the policy to references at rows that are skipped; return the labels where that skips more."""
        more = set()
        gone = {label: {pair.pk for pair in self._compared(label).pairs(SKIPPED)} for label in skipped}
        for label, plan in self.tables.items():
            references = [reference for reference in plan.table.references if reference.to._meta.label_lower in gone]
            if not references:
                continue
            before = self._compared(label).count(SKIPPED)
            for ordinal, record in enumerate(self.records(label)):
                for reference in references:
                    key = record.refs.get(reference.name, record.fields[reference.name])
                    if key in gone[reference.to._meta.label_lower]:
                        self._apply_policy(plan, ordinal, record, reference)
            if self._compared(label).count(SKIPPED) > before:
                more.add(label)
        return more

    def _apply_policy(self, plan: TablePlan, ordinal: int, record: Record, reference: Reference) -> bool:
        """Report one reference that leads nowhere and do what the policy says; True if the row is skipped."""
        policy = self.on_missing
        if policy is OnMissing.NULL and not reference.field.null:
            policy = OnMissing.FAIL
        done = {OnMissing.FAIL: "", OnMissing.NULL: ", set to null", OnMissing.SKIP: ", row skipped"}[policy]
        self.findings.append(
            Finding(
                severity=Severity.ERROR if policy is OnMissing.FAIL else Severity.WARNING,
                code="reference_missing",
                model=plan.table.label,
                identity=plan.table.identity_of(record),
                field=reference.name,
                expected=record.keys.get(reference.name, record.fields[reference.name]),
                message=f"refers to a row of {reference.to._meta.label_lower} that is neither in the package nor in"
                f" the database{done}",
            )
        )
        if policy is OnMissing.SKIP:
            self._compared(plan.table.label).skip(ordinal)
        elif policy is OnMissing.NULL:
            self._compared(plan.table.label).set_null(ordinal, reference.name)
        return policy is OnMissing.SKIP

    def _compared(self, label: str) -> Comparison:
        """Return the comparison of a table; one whose target is empty gets it when single rows have to be marked."""
        plan = self.tables[label]
        if plan.comparison is None:
            self._compare(plan)
        return cast("Comparison", plan.comparison)

    def _outside_key(self, reference: Reference, record: Record) -> Any:
        """Find the row of the target that a reference means, by identity; by primary key where that is the identity."""
        key = record.keys.get(reference.name)
        value = record.fields[reference.name]
        if key is None and isinstance(value, list):
            key = value
        rows = self._rows_outside(reference.to)
        if key is not None:
            return rows.target_key(key)
        return value if rows.has_target_key(value) else None

    def _generic_key(self, label: str, value: Any, key: list[Any] | None) -> Any:
        """Find the key that a generic reference has in the target. One that dangles keeps its own."""
        if key is None:
            return value
        if label not in self.tables:
            found = self._rows_outside(apps.get_model(label)).target_key(key[1:])
            return value if found is None else type(value)(found)
        table = self.tables[label].table
        own = int(value) if table.has_automatic_key else value
        target = self.target_key(label, own)
        return type(value)(target)

    def _rows_outside(self, model: type[Model]) -> Comparison:
        """The target's rows of a model that the package does not have."""
        if model not in self._outside:
            table = Table(model)
            comparison = self._outside[model] = Comparison(self.scratch, table)
            comparison.fill((), RowReader(table, self.using, self._keys).records())
        return self._outside[model]


def _counted(records: Iterator[Record], progress: Progress) -> Iterator[Record]:
    for record in records:
        progress.advance(1)
        yield record


def _key_taken(table: Table, pk: Any) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="primary_key_taken",
        model=table.label,
        field=table.key_name,
        expected=pk,
        message="the primary key belongs to another row, and is not one that could be another",
    )


def _key_differs(table: Table, expected: Any, found: Any) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="primary_key_differs",
        model=table.label,
        field=table.key_name,
        expected=expected,
        found=found,
        message="the row has another primary key in the database, and it is not one that could be another",
    )


__all__ = ["CHANGED", "CREATED", "SKIPPED", "UNCHANGED", "Mode", "OnMissing", "Plan", "PlannedRow", "TablePlan"]
