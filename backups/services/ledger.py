"""What a package does not hold, with counts and reasons: nothing is left out without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from django.core.files.storage import Storage
from django.db.models import Manager, Model

from backups import databases, files
from backups.package.manifest import ExcludedEntry, TableEntry
from backups.records.coverage import Coverage
from backups.reporting import Finding, Severity
from backups.services.stored import FileNames


def excluded_models(covered: Coverage, using: str) -> tuple[ExcludedEntry, ...]:
    """Count the rows of the models that are left out."""
    database = databases.of(using)
    return tuple(
        ExcludedEntry(
            label=one.model._meta.label_lower,
            rows=database.count(one.model._meta.db_table) if one.has_table else 0,
            reason=one.reason,
        )
        for one in covered.excluded
    )


def unknown_tables(covered: Coverage, using: str) -> tuple[TableEntry, ...]:
    """Count the rows of the tables that no model knows."""
    database = databases.of(using)
    return tuple(TableEntry(table=name, rows=database.count(name)) for name in covered.unknown_tables)


def count_unreferenced(storages: dict[str, Storage], names: FileNames) -> int:
    """Count the stored files that no row names, in the storages that can list theirs."""
    return sum(
        1
        for alias, storage in storages.items()
        for name in _walk(storage, "")
        if not name.startswith(files.CHANGES) and (alias, name) not in names
    )


def findings(
    covered: Coverage,
    excluded: tuple[ExcludedEntry, ...],
    tables: tuple[TableEntry, ...],
    unreferenced: int,
    using: str,
) -> Iterator[Finding]:
    """Tell what is left out, and which rows only the base manager shows; those are in the package."""
    unreadable = {_label(one.model) for one in covered.excluded if not one.has_table}
    for entry in excluded:
        if entry.rows or entry.label in unreadable:
            yield _info("model_left_out", f"not in the package: {entry.reason}", entry.label, entry.rows)
    for table in tables:
        yield _info("table_unknown", "not in the package: no model has this table", table.table, table.rows)
    for model in covered.models:
        hidden = _count_hidden(model, using)
        if hidden:
            yield _info("rows_hidden", "in the package, though the default manager hides them", _label(model), hidden)
    if unreferenced:
        yield _info("files_unreferenced", "stored files are not in the package: no row names them", "", unreferenced)


def _info(code: str, message: str, model: str, found: int) -> Finding:
    return Finding(severity=Severity.INFO, code=code, model=model, found=found, message=message)


def _label(model: type[Model]) -> str:
    return model._meta.label_lower


def _count_hidden(model: type[Model], using: str) -> int:
    manager = model._default_manager
    if type(manager).get_queryset is Manager.get_queryset:
        return 0
    return model._base_manager.using(using).count() - manager.using(using).count()


def _walk(storage: Storage, directory: str) -> Iterator[str]:
    try:
        directories, names = storage.listdir(directory)
    except (FileNotFoundError, NotImplementedError):
        return
    for name in names:
        yield str(PurePosixPath(directory, name))
    for name in directories:
        yield from _walk(storage, str(PurePosixPath(directory, name)))
