"""What a restore will do with each record, decided before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, cast

from django.apps import apps
from django.db.models import Model

from backups import conf, databases
from backups.package.reader import PackageReader
from backups.records import coverage
from backups.records.comparison import CHANGED, CREATED, SKIPPED, UNCHANGED, Comparison, KeyMap, Scratch
from backups.records.record import Key, Record, parse
from backups.records.rows import KeyCache, RowReader
from backups.records.table import Table
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
        generic = {reference.object_id for reference in plan.table.generics}
        for record, pair in zip(self.records(label), plan.comparison.pairs(), strict=True):
            for name in pair.nulled:
                record.keys.pop(name, None)
                if record.refs.pop(name, None) is not None or name not in generic:
                    record.fields[name] = None
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
        """Return what the references of a record hold in the target, by field name."""
        held = {}
        for reference in table.references:
            if not reference.renumbered and record.fields[reference.name] is not None:
                held[reference.name] = record.refs.get(reference.name, record.fields[reference.name])
        for target in _targets(table, record):
            if target.label in self.tables:
                found = self.target_key(target.label, target.value)
            else:
                found = self._outside_key(target.label, target.value, target.key)
            if target.generic:  # a text column holds any model's key as text
                held[target.field] = type(record.fields[target.field])(target.value if found is None else found)
            else:
                held[target.field] = found
        return held

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
                first = max(comparison.largest_key(), self.database.largest(table.name, table.key_columns[0]))
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

    # References to what is neither in the package nor in the target

    def _resolve_references(self) -> None:
        """Find the references that lead nowhere, and skip or empty them where that was asked for."""
        left_out = {model._meta.label_lower for model in coverage.of_database(self.using).models} - self.tables.keys()
        skipped = {}
        for label, plan in self.tables.items():
            outside = {reference.to._meta.label_lower for reference in plan.table.references} - self.tables.keys()
            # Generic references may lead anywhere: they are followed only where the package leaves a model out.
            if plan.package_rows and (outside or (plan.table.generics and left_out)):
                skipped[label] = self._apply_policy(plan, self._leads_nowhere)
        # Rows that are skipped may be referred to, and those referring to them, until nothing more is skipped.
        while gone := {label: keys for label, keys in skipped.items() if keys}:
            skipped = {
                label: self._apply_policy(plan, partial(_is_gone, gone))
                for label, plan in self.tables.items()
                if plan.table.generics or any(one.to._meta.label_lower in gone for one in plan.table.references)
            }

    def _apply_policy(self, plan: TablePlan, is_missing: Callable[[str, Any, Key | None], bool]) -> set[Any]:
        """Treat the references of one table that are missing; return the primary keys of the rows that are skipped."""
        table = plan.table
        skipped: set[Any] = set()
        before = {pair.pk for pair in plan.comparison.pairs(SKIPPED)} if plan.comparison else set()
        for ordinal, record in enumerate(self.records(table.label)):
            if record.pk in before:
                continue
            for target in _targets(table, record):
                if is_missing(target.label, target.value, target.key):
                    policy = self._policy_for(target)
                    self.findings.append(_reference_missing(table, record, target, policy))
                    if policy is OnMissing.SKIP:
                        self._compared(table.label).skip(ordinal)
                        skipped.add(record.pk)
                    elif policy is OnMissing.NULL:
                        self._compared(table.label).set_null(ordinal, target.field)
        return skipped

    def _policy_for(self, target: _Target) -> OnMissing:
        if self.on_missing is OnMissing.FAIL:
            return OnMissing.FAIL
        if target.generic:  # no constraint forbids that it dangles, and a row such as a log entry is worth keeping
            return OnMissing.NULL
        if self.on_missing is OnMissing.NULL and not target.nullable:
            return OnMissing.FAIL
        return self.on_missing

    def _leads_nowhere(self, label: str, value: Any, key: Key | None) -> bool:
        return label not in self.tables and self._outside_key(label, value, key) is None

    def _compared(self, label: str) -> Comparison:
        """Return the comparison of a table; one whose target is empty gets it when single rows have to be marked."""
        plan = self.tables[label]
        if plan.comparison is None:
            self._compare(plan)
        return cast("Comparison", plan.comparison)

    def _outside_key(self, label: str, value: Any, key: Key | None) -> Any:
        """Find the row of the target that a reference means, by identity; by primary key where that is the identity."""
        rows = self._rows_outside(apps.get_model(label))
        if key is not None:
            return rows.target_key(key)
        return value if rows.has_target_key(value) else None

    def _rows_outside(self, model: type[Model]) -> Comparison:
        """The target's rows of a model that the package does not have."""
        if model not in self._outside:
            table = Table(model)
            comparison = self._outside[model] = Comparison(self.scratch, table)
            comparison.fill((), RowReader(table, self.using, self._keys).records())
        return self._outside[model]


@dataclass(frozen=True, slots=True)
class _Target:
    """What one reference of a record means: the primary key at the source, and the identity where there is one."""

    field: str
    label: str
    value: Any
    key: Key | None
    nullable: bool
    generic: bool


def _targets(table: Table, record: Record) -> Iterator[_Target]:
    """Yield what the references of a record mean. One that dangled at the source means nothing."""
    for reference in table.references:
        name = reference.name
        value = record.fields[name]
        if value is None or not reference.renumbered:
            continue
        key = value if name in record.refs else record.keys.get(name)
        label = reference.to._meta.label_lower
        yield _Target(name, label, record.refs.get(name, value), key, reference.field.null, generic=False)
    for generic in table.generics:
        key = record.keys.get(generic.object_id)
        if key is not None:
            label, *identity = key
            model = apps.get_model(label)
            value = model._meta.pk.to_python(record.fields[generic.object_id])
            yield _Target(generic.object_id, label, value, identity, nullable=False, generic=True)


def _is_gone(gone: dict[str, set[Any]], label: str, value: Any, key: Key | None) -> bool:
    return value in gone.get(label, ())


def _reference_missing(table: Table, record: Record, target: _Target, policy: OnMissing) -> Finding:
    done = {
        OnMissing.FAIL: "",
        OnMissing.NULL: ", left leading nowhere" if target.generic else ", set to null",
        OnMissing.SKIP: ", row skipped",
    }
    return Finding(
        severity=Severity.ERROR if policy is OnMissing.FAIL else Severity.WARNING,
        code="reference_missing",
        model=table.label,
        identity=table.identity_of(record),
        field=target.field,
        expected=target.key or target.value,
        message=f"refers to a row of {target.label} that is neither in the package nor in the database{done[policy]}",
    )


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
