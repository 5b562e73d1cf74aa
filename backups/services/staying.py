"""Rows that a restore leaves as they are, and that refer to what goes or is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from django.apps import apps
from django.db import router

from backups.records.comparison import Comparison
from backups.records.record import Record
from backups.records.relations import has_constraint, is_emptied
from backups.records.rows import RowReader
from backups.records.table import Reference, Table, label_followed
from backups.records.targets import Target, dangling, targets
from backups.services.plan_findings import still_referred_to

if TYPE_CHECKING:
    from backups.services.plan import Plan


def hold_keys(plan: Plan) -> None:
    """Keep the keys to which rows that stay refer, and that will mean nothing, from meaning another row."""
    going = {label for label, table_plan in plan.tables.items() if table_plan.deleted}
    for table, records in _staying(plan, going):
        for record in records:
            for target in (*targets(table, record), *dangling(table, record)):
                if target.dangled:
                    _hold(plan, target)
                elif target.label in going:
                    gone = cast("Comparison", plan.tables[target.label].comparison).extra_with(target.value)
                    if gone is not None and not _is_let_go(plan, table, target):
                        _hold(plan, target)
                        if not target.generic and has_constraint(_reference(table, target).field):
                            plan.findings.append(still_referred_to(table, record, target, gone))


def _staying(plan: Plan, going: set[str]) -> Iterator[tuple[Table, Iterator[Record]]]:
    """Yield the tables with rows that the package does not have, which may hold keys of what goes or is gone."""
    for table_plan in plan.tables.values():
        table, comparison = table_plan.table, table_plan.comparison
        if comparison is not None and table_plan.extras_stay and _may_hold_keys(table, going):
            reader = RowReader(table, plan.using, plan.key_cache)
            yield table, reader.records_with(pk for _, pk in comparison.extras())
    others = set(plan.database.connection.introspection.table_names())
    others -= {table_plan.table.name for table_plan in plan.tables.values()}
    for model in apps.get_models(include_auto_created=True):
        is_here = model._meta.db_table in others and router.allow_migrate_model(plan.using, model)
        if is_here and not model._meta.proxy and _may_hold_keys(table := Table(model), going):
            yield table, RowReader(table, plan.using, plan.key_cache).records()


def _may_hold_keys(table: Table, going: set[str]) -> bool:
    """Return whether rows of a table may refer to rows of the tables ``going``, or to nothing."""
    return (
        bool(table.generics)
        or table.has_free_references
        or any(label_followed(reference) in going for reference in table.references)
    )


def _hold(plan: Plan, target: Target) -> None:
    """Hold a key, unless it is by that that a row is known."""
    made = plan.where_keys_are_made(target.label)
    if made is not None and made.table.has_automatic_key and not made.table.key_is_content:
        plan.held.add(made.table.label, target.value)


def _is_let_go(plan: Plan, table: Table, target: Target) -> bool:
    """Return whether a reference to a row that goes is emptied."""
    return table.label in plan.tables and not target.generic and is_emptied(_reference(table, target).field)


def _reference(table: Table, target: Target) -> Reference:
    return next(reference for reference in table.references if reference.name == target.field)
