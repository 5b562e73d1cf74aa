"""What code and database look like, as a manifest says it, and where a package and this code do not fit together."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import django
from django.apps import apps
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from backups.errors import PackageUnsupported
from backups.package.manifest import ColumnEntry, IdentityEntry, Manifest, ReferenceEntry
from backups.records import coverage
from backups.records.table import Table


def versions() -> dict[str, str]:
    """Return the versions that a package was made with."""
    try:
        own = version("edms")
    except PackageNotFoundError:  # run from a directory, not installed
        own = "unknown"
    return {"python": platform.python_version(), "django": django.get_version(), "backups": own}


def applied_migrations(using: str) -> dict[str, list[str]]:
    """Return the names of the applied migrations by app, of the apps whose models packages cover."""
    labels = {model._meta.app_label for model in coverage.of_database(using).models}
    applied: dict[str, list[str]] = {}
    for app_label, name in sorted(MigrationRecorder(connections[using]).applied_migrations()):
        if app_label in labels:
            applied.setdefault(app_label, []).append(name)
    return applied


def columns(table: Table) -> tuple[ColumnEntry, ...]:
    keys = [field for field in table.key_fields if field not in table.columns]
    return tuple(
        ColumnEntry(name=field.name, type=field.get_internal_type(), null=field.null)
        for field in (*keys, *table.columns)
    )


def identity(table: Table) -> IdentityEntry:
    return IdentityEntry(rule=str(table.identity.rule), fields=tuple(table.identity.fields))


def references(table: Table) -> tuple[ReferenceEntry, ...]:
    return tuple(
        ReferenceEntry(field=reference.name, to=reference.to._meta.label_lower) for reference in table.references
    )


def require_same_schema(manifest: Manifest, using: str) -> None:
    """Raise ``PackageUnsupported`` where the package's models or migrations are not those of this code."""
    differences = [*_model_differences(manifest, using), *_migration_differences(manifest, using)]
    if differences:
        raise PackageUnsupported(
            "the package was made with another schema:\n  " + "\n  ".join(differences),
            hint="check out the code that made it (the manifest has its versions), restore there, then migrate",
        )


def homeless(manifest: Manifest, using: str) -> dict[str, str]:
    """Return the models of a package that have no place in a database, by label, and why.

    A package that somebody made up may have records of what packages leave out, such as sessions and reports.
    """
    covered = coverage.of_database(using)
    at_home = {model._meta.label_lower for model in covered.models}
    reasons = {one.model._meta.label_lower: one.reason for one in covered.excluded}
    return {
        entry.label: f"packages leave this model out here: {reasons[entry.label]}"
        if entry.label in reasons
        else "the package has this model, the code does not"
        for entry in manifest.models
        if entry.label not in at_home
    }


def _model_differences(manifest: Manifest, using: str) -> Iterator[str]:
    without_home = homeless(manifest, using)
    for entry in manifest.models:
        if entry.label in without_home:
            yield f"{entry.label}: {without_home[entry.label]}"
            continue
        table = Table(apps.get_model(entry.label))
        theirs = {column.name: column for column in entry.columns}
        ours = {column.name: column for column in columns(table)}
        yield from (f"{entry.label}.{name}: only in the package" for name in theirs.keys() - ours.keys())
        yield from (f"{entry.label}.{name}: only in the code" for name in ours.keys() - theirs.keys())
        for name in theirs.keys() & ours.keys():
            if theirs[name] != ours[name]:
                was, is_now = (f"{one.type}{' null' if one.null else ''}" for one in (theirs[name], ours[name]))
                yield f"{entry.label}.{name}: {was} in the package, {is_now} in the code"


def _migration_differences(manifest: Manifest, using: str) -> Iterator[str]:
    ours = applied_migrations(using)
    for app_label in sorted(manifest.migrations.keys() | ours.keys()):
        theirs, own = set(manifest.migrations.get(app_label, ())), set(ours.get(app_label, ()))
        if manifest.migrations.get(app_label) is None and app_label in ours:
            yield f"{app_label}: the package does not have this app"
            continue
        yield from (f"{app_label}: migration {name} only in the package" for name in sorted(theirs - own))
        yield from (f"{app_label}: migration {name} only in the code" for name in sorted(own - theirs))
