"""What a package does not hold, with counts and reasons: nothing is left out without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from django.core.files.storage import FileSystemStorage, Storage
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


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """How many stored files no row names, and the directories, as storage and name, of which nobody can tell."""

    count: int
    unreadable: Sequence[tuple[str, str]]


def unreferenced_files(storages: dict[str, Storage], names: FileNames) -> Unreferenced:
    """Count the stored files that no row names, in the storages that can list theirs."""
    count = 0
    unreadable: list[tuple[str, str]] = []
    for alias, storage in storages.items():
        unread: list[str] = []
        count += sum((alias, name) not in names for name in _walk(storage, "", (), unread))
        unreadable += [(alias, directory) for directory in unread]
    return Unreferenced(count, unreadable)


def findings(
    covered: Coverage,
    excluded: tuple[ExcludedEntry, ...],
    tables: tuple[TableEntry, ...],
    unreferenced: Unreferenced,
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
    if found := unreferenced.count:
        yield _info("files_unreferenced", "stored files are not in the package: no row names them", "", found)
    if directories := unreferenced.unreadable:
        yield Finding(
            severity=Severity.INFO,
            code="directory_unreadable",
            identity=list(directories[0]),
            found=len(directories),
            message="directories of stored files cannot be read, this one first: what else they hold is not known",
        )


def _info(code: str, message: str, model: str, found: int) -> Finding:
    return Finding(severity=Severity.INFO, code=code, model=model, found=found, message=message)


def _label(model: type[Model]) -> str:
    return model._meta.label_lower


def _count_hidden(model: type[Model], using: str) -> int:
    manager = model._default_manager
    if type(manager).get_queryset is Manager.get_queryset:
        return 0
    return model._base_manager.using(using).count() - manager.using(using).count()


def _walk(storage: Storage, directory: str, above: Sequence[str], unread: list[str]) -> Iterator[str]:
    """List the files in a directory and below, and in ``unread`` the directories that cannot be read.

    A link to one of the directories ``above`` is not followed: it leads round in circles.
    """
    if isinstance(storage, FileSystemStorage):
        place = os.path.realpath(storage.path(directory))
        if place in above:
            return
        above = (*above, place)
    try:
        directories, names = storage.listdir(directory)
    except (FileNotFoundError, NotImplementedError):
        return
    except OSError:
        unread.append(directory or ".")
        return
    for name in names:
        if not name.startswith(files.CHANGES):
            yield str(PurePosixPath(directory, name))
    for name in directories:
        if not name.startswith(files.CHANGES):
            yield from _walk(storage, str(PurePosixPath(directory, name)), above, unread)
