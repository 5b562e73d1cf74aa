"""Which models a package covers, and which it leaves out and why."""

from __future__ import annotations

from dataclasses import dataclass

from django.apps import apps
from django.db import DatabaseError, connections, router
from django.db.backends.base.introspection import TableInfo
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model

from backups import conf, databases
from backups.records.relations import related_model

ALWAYS_EXCLUDED = {
    "sessions.session": "sessions belong to one running system",
}


@dataclass(frozen=True)
class Excluded:
    """A model that packages leave out."""

    model: type[Model]
    reason: str
    has_table: bool


@dataclass(frozen=True)
class Coverage:
    """The models of one database: ``models`` in dump order, parents before the rows that refer to them.

    ``unknown_tables`` are those that no model has.
    """

    models: tuple[type[Model], ...]
    excluded: tuple[Excluded, ...]
    unknown_tables: tuple[str, ...]


def of_database(using: str) -> Coverage:
    """Return what a package of the database ``using`` covers."""
    connection = connections[using]
    with connection.cursor() as cursor:
        listed = {one.name: one.type for one in connection.introspection.get_table_list(cursor)}
    taken: dict[str, str] = {}
    excluded_by_setting = {apps.get_model(label)._meta.label_lower for label in conf.read().exclude}
    models: list[type[Model]] = []
    excluded: list[Excluded] = []
    known = {model._meta.db_table for model in _concrete_models()} | {MigrationRecorder.Migration._meta.db_table}

    for model in _concrete_models():
        if not router.allow_migrate_model(using, model):
            continue
        label = model._meta.label_lower
        unreadable = ""
        try:
            table = databases.of(using).table_of(model._meta.db_table, listed)
            known.add(table.name)
        except DatabaseError as error:
            table, unreadable = TableInfo(model._meta.db_table, "t"), str(error).splitlines()[0]
        if model._meta.app_label == "backups":
            reason = "reports and catalogue belong to one running system"
        elif label in ALWAYS_EXCLUDED:
            reason = ALWAYS_EXCLUDED[label]
        elif label in excluded_by_setting:
            reason = "BACKUPS['EXCLUDE']"
        elif unreadable and not model._meta.managed:
            reason = f"unmanaged, and its table cannot be read: {unreadable}"
        elif table.type == "v":
            reason = "a view, whose rows are those of other tables"
        elif table.name in taken:
            reason = f"its table is that of {taken[table.name]}"
        else:
            taken[table.name] = label
            models.append(model)
            continue
        excluded.append(Excluded(model, reason, has_table=not unreadable))
    models.sort(key=lambda model: model._meta.label_lower)
    # The rows of a partition are those of its table.
    unknown = sorted(name for name, kind in listed.items() if kind == "t" and name not in known)
    return Coverage(tuple(_parents_first(models)), tuple(excluded), tuple(unknown))


def _concrete_models() -> list[type[Model]]:
    """Every model with a table, automatic many-to-many tables included; those that own theirs come first."""
    models = apps.get_models(include_auto_created=True)
    return sorted(
        (model for model in models if not model._meta.proxy),
        key=lambda model: (not model._meta.managed, model._meta.label_lower),
    )


def _parents_first(models: list[type[Model]]) -> list[type[Model]]:
    """Order models so that ``loaddata`` finds the rows that are referred to.

    A reference that may be null can wait for a row that comes later, so that a cycle is broken there.
    """
    required = {model: set(_referred(model, models, null=False)) for model in models}
    ordered: dict[type[Model], None] = {}
    visiting: set[type[Model]] = set()

    def needs(model: type[Model], other: type[Model], seen: set[type[Model]]) -> bool:
        seen.add(model)
        return other in required[model] or any(needs(one, other, seen) for one in required[model] - seen)

    def visit(model: type[Model]) -> None:
        if model in ordered or model in visiting:
            return
        visiting.add(model)
        for target in _referred(model, models, null=False):
            visit(target)
        for target in _referred(model, models, null=True):
            if not needs(target, model, set()):
                visit(target)
        visiting.discard(model)
        ordered[model] = None

    for model in models:
        visit(model)
    return list(ordered)


def _referred(model: type[Model], covered: list[type[Model]], *, null: bool) -> list[type[Model]]:
    """Return the covered models that a model's foreign keys refer to, of those that may be null, or of the others."""
    fields = [field for field in model._meta.local_concrete_fields if field.remote_field and field.null is null]
    return [target for target in map(related_model, fields) if target in covered]
