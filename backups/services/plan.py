"""What a restore will do with each record, decided before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property, partial
from typing import Any, cast

from django.apps import apps
from django.db.models import Model

from backups import conf, databases
from backups.package.foreign import FIXTURE, MIGRATION_PACKAGE
from backups.records.comparison import CHANGED, CREATED, SKIPPED, UNCHANGED, Comparison, Side
from backups.records.identity import natural_key_parts, of_model
from backups.records.key_maps import HeldKeys
from backups.records.parameters import Keys
from backups.records.record import Key, Record
from backups.records.rows import KeyCache, RowReader
from backups.records.scratch import Scratch
from backups.records.table import Reference, Table, label_followed
from backups.records.targets import Target, dangling, generic_targets, has_dangled, target_of, targets
from backups.records.twins import Twins
from backups.reporting import Finding, Progress
from backups.services.plan_findings import OnMissing, key_differs, key_taken, reference_missing
from backups.services.source import Source
from backups.services.staying import hold_keys
from backups.services.table_plan import PlannedRow, TablePlan


class Mode(StrEnum):
    MERGE = "merge"
    """Rows of the package are created or overwritten, other rows stay."""
    REPLACE = "replace"
    """Afterwards the covered tables hold exactly the rows of the package."""


class Plan:
    """The plan of a whole restore. ``findings`` say what stands in the way."""

    def __init__(self, source: Source, using: str, *, mode: Mode, on_missing: OnMissing, progress: Progress) -> None:
        self.source = source
        self.using = using
        self.mode = mode
        self.on_missing = on_missing
        self.database = databases.of(using)
        self.findings: list[Finding] = []
        self.scratch = Scratch()
        self.tables: dict[str, TablePlan] = {}
        self.append_only = {apps.get_model(label)._meta.label_lower for label in conf.read().append_only}
        self._progress = progress
        self.key_cache = KeyCache(using)
        self.twins = Twins(self.scratch, lambda table: self.records(table.label) if table.label in self.tables else ())
        self._target_twins = Twins(
            self.scratch, lambda table: RowReader(table, using, self.key_cache).records(), self.twins
        )
        self._outside: dict[type[Model], Comparison] = {}
        self._known_ways: dict[str, list[tuple[Reference, str, Callable[[Any], Any] | None]]] = {}
        # A fixture may refer by natural key to a row of one of its models that it does not hold.
        self._is_converted = source.package.manifest.engine.get("vendor") in (FIXTURE, MIGRATION_PACKAGE)
        for entry in source.entries:
            table = Table(apps.get_model(entry.label))
            self.tables[entry.label] = TablePlan(
                table, entry.rows, self.database.count(table.name), entry.next_key or 0
            )
        for plan in self.tables.values():
            if plan.before:
                self._match(plan)
        self.held = HeldKeys(self.scratch)
        hold_keys(self)
        for label in self._parents_first():
            self._assign_keys(self.tables[label])
        self._resolve_references()

    def close(self) -> None:
        self.scratch.close()

    @property
    def changes_anything(self) -> bool:
        return any(table.changes_anything for table in self.tables.values())

    @property
    def next_keys(self) -> dict[type[Model], int]:
        """The least that the next automatic primary key of each model may be: the package's rows never lend theirs."""
        return {plan.table.model: plan.next_key for plan in self.tables.values() if plan.table.has_automatic_key}

    def rows(self, label: str) -> Iterator[PlannedRow]:
        """Yield what is to become of each record, in the order of the package."""
        plan = self.tables[label]
        if plan.comparison is None:
            yield from self.rows_of(label, self.source.package.lines(label))
            return
        generic = {reference.object_id for reference in plan.table.generics}
        for record, pair in zip(self.records(label), plan.comparison.pairs(), strict=True):
            for name in pair.nulled:
                was_followed = record.keys.pop(name, None) is not None
                record.refs.pop(name, None)
                if name not in generic or not was_followed:
                    record.fields[name] = None
            yield PlannedRow(record, pair.target_pk, pair.action)

    def rows_of(self, label: str, lines: Iterable[bytes], after: Any = None) -> Iterator[PlannedRow]:
        """Yield what is to become of some records of a table that is empty, which follow the key ``after``."""
        for record in self.source.records_of(label, lines, after):
            yield PlannedRow(record, self.target_key(label, record.pk), CREATED)

    def keys_held(self, table: Table) -> dict[str, Keys | None]:
        """Return, for each reference by name, what turns the key that it held into the one that it gets.

        None where that is the same key; no entry where it takes the identity of the row referred to.
        """
        held: dict[str, Keys | None] = {}
        for reference, name, keys in self._ways(table):
            plan = self.tables.get(label_followed(reference))
            if reference.keys_of is None:
                held[name] = None
            elif plan is not None:
                if plan.keys is None:
                    held[name] = keys if any(plan.table.key_follows) else None
                else:
                    held[name] = (plan.keys.numbers or keys) if plan.keys.size else None
        return held

    def moved(self, table: Table) -> Mapping[str, Mapping[Any, Any]] | None:
        """Return the keys that change in ``refs``, by reference, where all other keys of a table's rows stay."""
        held = self.keys_held(table)
        if len(held) < len(table.references) or table.generics or any(table.key_follows):
            return None
        changing = {name: keys for name, keys in held.items() if keys is not None}
        natural = {reference.name for reference in table.references if reference.parts}
        maps = {name: keys for name, keys in changing.items() if isinstance(keys, dict) and name in natural}
        return maps if len(maps) == len(changing) else None

    def records(self, label: str) -> Iterator[Record]:
        return self.source.records(label)

    def target_key(self, label: str, pk: Any) -> Any:
        """Return the primary key that a row of the package has in the target."""
        plan = self.tables[label]
        return self._derived_key(plan.table, pk) if plan.keys is None else plan.keys.get(pk)

    def _derived_key(self, table: Table, pk: Any) -> Any:
        """Return the primary key in the target of a row whose key is made of references, others as they are."""
        if not any(table.key_follows):
            return pk
        values = pk if len(table.key_fields) > 1 else [pk]
        derived = [
            self.target_key(label, value) if (label := label_followed(reference)) in self.tables else value
            for reference, value in zip(table.key_follows, values, strict=True)
        ]
        return derived if len(derived) > 1 else derived[0]

    def references(self, table: Table, record: Record) -> dict[str, Any]:
        """Return what the references of a record hold in the target, by field name."""
        fields, refs = record.fields, record.refs
        held = {}
        for reference, name, keys in self._ways(table):
            value = fields[name]
            if value is None:
                continue
            number = refs.get(name) if reference.parts else value
            if keys is not None and number is not None:
                held[name] = keys(number)  # nearly every one: it needs no more than its number
            elif reference.keys_of is None:
                held[name] = refs.get(name, value)
            elif not has_dangled(reference, record):
                held[name] = self._key_of(target_of(reference, record))
        if not table.generics:
            return held
        for target in generic_targets(table, record):
            found = self._key_of(target)
            if found not in (None, target.value):
                held[target.field] = table.generic_value(record, target.field, found)
        return held

    def _ways(self, table: Table) -> list[tuple[Reference, str, Callable[[Any], Any] | None]]:
        """Return for each reference of a table what turns the number that it had into the one that it gets.

        None where that takes the identity: the row referred to is not one of the package.
        """
        if table.label not in self._known_ways:
            labels = [(one, label_followed(one)) for one in table.references]
            self._known_ways[table.label] = [
                (one, one.name, partial(self.target_key, label) if label in self.tables else None)
                for one, label in labels
            ]
        return self._known_ways[table.label]

    def _key_of(self, target: Target) -> Any:
        if target.label in self.tables and target.value is not None:
            return self.target_key(target.label, target.value)
        return self._outside_key(target.label, target.value, target.key)

    # One table

    def _parents_first(self) -> list[str]:
        """Order the tables so that a primary key that is a reference comes after what it refers to."""
        ordered: dict[str, None] = {}

        def visit(label: str) -> None:
            for parent in map(label_followed, self.tables[label].table.key_follows):
                if parent in self.tables and parent != label:
                    visit(parent)
            ordered[label] = None

        for label in self.tables:
            visit(label)
        return list(ordered)

    def _match(self, plan: TablePlan) -> None:
        """Match the rows of a table with those of the package."""
        table = plan.table
        self._progress.start(f"compare {table.label}", plan.package_rows + plan.before)
        comparison = plan.comparison = Comparison(self.scratch, table)
        reader = RowReader(table, self.using, self.key_cache)
        comparison.fill(
            Side(_counted(self.records(table.label), self._progress), self.twins),
            Side(_counted(reader.records(), self._progress), self._target_twins),
        )
        self._progress.finish()
        plan.extras_stay = self.mode is Mode.MERGE or table.label in self.append_only

    def _assign_keys(self, plan: TablePlan) -> None:
        """Give every row of the package its primary key in the target."""
        table = plan.table
        if plan.comparison is None:
            if not self.held.has_any(table.label):
                return
            self._match(plan)
        comparison = cast("Comparison", plan.comparison)
        if any(table.key_follows):
            comparison.derive_keys(partial(self._derived_key, table))
        else:
            taken = comparison.keep_free_keys(self.held, extras_stay=plan.extras_stay)
            if table.has_automatic_key:
                largest = max(comparison.largest_key(), self.database.largest(table.name, table.key_columns[0]))
                if any(True for _ in taken):
                    largest = max(largest, self._largest_dangling(table, plan.package_rows))
                comparison.allocate(max(largest + 1, plan.next_key), self.held)
            else:
                self.findings += [key_taken(table, pk) for pk in taken]
        if table.key_is_content:
            self.findings += [
                key_differs(table, pair.pk, pair.target_pk)
                for pair in comparison.pairs(CHANGED)
                if pair.pk != pair.target_pk
            ]
        plan.keys = comparison.key_map()

    def where_keys_are_made(self, label: str) -> TablePlan | None:
        """Return the plan of a table, or of the one that its primary keys come from."""
        plan = self.tables.get(label)
        while plan is not None and plan.table.key_reference is not None:
            plan = self.tables.get(label_followed(plan.table.key_reference))
        return plan

    # References to what is neither in the package nor in the target

    def _largest_dangling(self, table: Table, rows: int) -> int:
        """Return the largest key that a reference to a table held and that meant nothing at the source.

        New keys lie beyond: no reference that led nowhere, such as the history of what is gone, may lead to them.
        0 where there is no room for new rows beyond it.
        """
        largest = self._dangling_keys.get(table.label, 0)
        _, limit = self.database.connection.ops.integer_field_range(table.key_fields[0].get_internal_type())
        return largest if limit is None or largest + rows < limit else 0

    @cached_property
    def _dangling_keys(self) -> dict[str, int]:
        largest: dict[str, int] = {}
        for plan in self.tables.values():
            table = plan.table
            if plan.package_rows and (table.generics or table.has_free_references):
                for record in self.records(table.label):
                    for target in dangling(table, record):
                        made = self.where_keys_are_made(target.label)
                        if type(target.value) is int and made is not None:
                            label = made.table.label
                            largest[label] = max(target.value, largest.get(label, 0))
        return largest

    def _resolve_references(self) -> None:
        """Find the references that lead nowhere, and skip or empty them where that was asked for."""
        skipped = {}
        for label, plan in self.tables.items():
            outside = {reference.to._meta.label_lower for reference in plan.table.references} - self.tables.keys()
            # Generic references may lead anywhere.
            free = plan.table.has_free_references or plan.table.generics
            if plan.package_rows and (outside or free or self._is_converted):
                skipped[label] = self._apply_policy(plan, self._leads_nowhere)
        # Rows that are skipped may be referred to, and those referring to them, until nothing more is skipped.
        while gone := {label: keys for label, keys in skipped.items() if keys}:
            skipped = {
                label: self._apply_policy(plan, partial(_is_gone, gone))
                for label, plan in self.tables.items()
                if plan.table.generics or any(one.to._meta.label_lower in gone for one in plan.table.references)
            }

    def _apply_policy(self, plan: TablePlan, is_missing: Callable[[Target], bool]) -> set[Any]:
        """Treat the references of one table that are missing; return the primary keys of the rows that are skipped."""
        table = plan.table
        skipped: set[Any] = set()
        before = {_hashable(pair.pk) for pair in plan.comparison.pairs(SKIPPED)} if plan.comparison else set()
        for ordinal, record in enumerate(self.records(table.label)):
            if _hashable(record.pk) in before:
                continue
            for target in (*targets(table, record), *dangling(table, record)):
                if is_missing(target):
                    policy = self._policy_for(target)
                    self.findings.append(reference_missing(table, record, target, policy))
                    if policy is OnMissing.SKIP:
                        self._compared(table.label).skip(ordinal)
                        skipped.add(_hashable(record.pk))
                    elif policy is OnMissing.NULL:
                        self._compared(table.label).set_null(ordinal, target.field)
        return skipped

    def _policy_for(self, target: Target) -> OnMissing:
        if self.on_missing is OnMissing.FAIL:
            return OnMissing.FAIL
        if target.generic and not target.dangled:
            return OnMissing.NULL  # it may dangle, and a row such as a log entry is worth keeping
        if target.generic and target.nullable:
            return OnMissing.NULL
        if self.on_missing is OnMissing.NULL and not target.nullable:
            return OnMissing.FAIL
        return self.on_missing

    def _leads_nowhere(self, target: Target) -> bool:
        """Return whether what a reference means is nowhere; of one that dangled, whether it would mean something."""
        plan = self.tables.get(target.label)
        if target.dangled:
            if plan is None:
                return self._rows_outside(apps.get_model(target.label)).has_target_key(target.value)
            return plan.comparison is not None and plan.comparison.will_be_used(
                target.value, extras_stay=plan.extras_stay
            )
        if plan is not None and target.value is not None:
            return False
        return self._outside_key(target.label, target.value, target.key) is None

    def _compared(self, label: str) -> Comparison:
        """Return the comparison of a table; one whose target is empty gets it when single rows have to be marked."""
        plan = self.tables[label]
        if plan.comparison is None:
            self._match(plan)
            self._assign_keys(plan)
        return cast("Comparison", plan.comparison)

    def _outside_key(self, label: str, value: Any, key: Key | None) -> Any:
        """Find the row of the target that a reference means, by identity; by primary key where that is the identity."""
        model = apps.get_model(label)
        rows = self._rows_outside(model)
        if key is None:
            return value if rows.has_target_key(value) else None
        natural = natural_key_parts(cast("Any", model))
        if natural and natural != of_model(cast("Any", model)).parts:
            try:
                return cast("Any", model._default_manager.db_manager(self.using)).get_by_natural_key(*key).pk
            except (model.DoesNotExist, model.MultipleObjectsReturned):
                return None
        return rows.target_key(key)

    def _rows_outside(self, model: type[Model]) -> Comparison:
        """The target's rows of a model that the package does not have."""
        if model not in self._outside:
            table = Table(model)
            comparison = self._outside[model] = Comparison(self.scratch, table)
            comparison.fill(Side(()), Side(RowReader(table, self.using, self.key_cache).records(), self._target_twins))
        return self._outside[model]


def _hashable(pk: Any) -> Any:
    return tuple(pk) if isinstance(pk, list) else pk


def _is_gone(gone: dict[str, set[Any]], target: Target) -> bool:
    return not target.dangled and target.value in gone.get(target.label, ())


def _counted(records: Iterator[Record], progress: Progress) -> Iterator[Record]:
    for record in records:
        progress.advance(1)
        yield record


__all__ = ["CHANGED", "CREATED", "SKIPPED", "UNCHANGED", "Mode", "OnMissing", "Plan", "PlannedRow", "TablePlan"]
