"""A package as this code sees it: what of its models and records has a home here, and what the new parts become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db.models import JSONField

from backups.errors import PackageDamaged
from backups.package.manifest import ModelEntry
from backups.package.reader import PackageReader
from backups.records.record import Record, parse
from backups.records.relations import AnyField
from backups.records.table import Table
from backups.records.values import encoder
from backups.reporting import Finding, Severity
from backups.services.schema import columns, homeless, require_same_schema


class Source:
    """The models and records of a package. ``findings`` say what could not be carried over as it was.

    Raises ``PackageUnsupported`` where the schemas differ, unless ``allow_differences``: then fields that only the
    code has take their defaults, and what only the package has is left out.
    """

    def __init__(self, package: PackageReader, using: str, *, allow_differences: bool = False) -> None:
        self.package = package
        self.findings: list[Finding] = []
        self._dropped: dict[str, list[str]] = {}
        self._added: dict[str, dict[str, Any]] = {}
        if not allow_differences:
            require_same_schema(package.manifest, using)
        without_home = homeless(package.manifest, using)
        for entry in package.manifest.models:
            if entry.label in without_home:
                self._find(entry, "model_without_home", without_home[entry.label], found=entry.rows)
        self.entries = [entry for entry in package.manifest.models if entry.label not in without_home]
        if allow_differences:
            for entry in self.entries:
                self._compare(entry)

    def blocks(self, label: str) -> Iterator[bytes]:
        """Read the lines of a model as they were written."""
        return self.package.blocks(label)

    def records(self, label: str) -> Iterator[Record]:
        """Read the records of a model with the fields that it has in this code."""
        return self.records_of(label, self.package.lines(label))

    def records_of(self, label: str, lines: Iterable[bytes], after: Any = None) -> Iterator[Record]:
        """Read some of a model's records, which follow the one with the primary key ``after``."""
        table = Table(apps.get_model(label))
        last = after
        for line in lines:
            record = parse(line, label)
            if not self.is_as_written(label):
                record = self._adapt(label, record)
            table.require_shape(record)
            if table.has_automatic_key:  # other keys have their database's own order, and are given to one row anyhow
                if last is not None and record.pk <= last:
                    raise PackageDamaged(f"{label} has the primary key {record.pk} twice, or not in its place")
                last = record.pk
            yield record

    def is_as_written(self, label: str) -> bool:
        """Return whether the model's records need no change."""
        return not self._dropped.get(label) and not self._added.get(label)

    def _compare(self, entry: ModelEntry) -> None:
        table = Table(apps.get_model(entry.label))
        theirs = {column.name: column for column in entry.columns}
        ours = {column.name: column for column in columns(table)}
        self._dropped[entry.label] = sorted(theirs.keys() - ours.keys())
        for name in self._dropped[entry.label]:
            self._find(entry, "field_without_home", "the code does not have this field", field=name)
        fields = {field.name: field for field in table.columns}
        self._added[entry.label] = {}
        for name in sorted(ours.keys() - theirs.keys()):
            if name in fields:
                self._add(entry, fields[name])
        for name in sorted(theirs.keys() & ours.keys()):
            if theirs[name].type != ours[name].type:
                was, is_now = theirs[name].type, ours[name].type
                self._find(entry, "field_type_differs", "the field has another type", name, was, is_now)

    def _add(self, entry: ModelEntry, field: AnyField) -> None:
        """Let a field that only the code has take its default, the same for every row, as a migration would."""
        may_be_empty = field.null or (field.blank and field.empty_strings_allowed)
        if not (field.has_default() or may_be_empty):
            message = "the package does not have this field, and it has no default"
            self._find(entry, "field_without_default", message, field.name, severity=Severity.ERROR)
            return
        value = field.get_default()
        encode = None if isinstance(field, JSONField) else encoder(field)
        value = encode(value) if encode is not None and value is not None else value
        self._added[entry.label][field.name] = value
        message = "the package does not have this field, which takes its default"
        self._find(entry, "field_defaulted", message, field.name, severity=Severity.INFO, found=value)

    def _adapt(self, label: str, record: Record) -> Record:
        for name in self._dropped.get(label, ()):
            for part in (record.fields, record.refs, record.keys):
                part.pop(name, None)
        record.json_null = [name for name in record.json_null if name in record.fields]
        record.fields = dict(sorted((record.fields | self._added.get(label, {})).items()))
        return record

    def _find(
        self,
        entry: ModelEntry,
        code: str,
        message: str,
        field: str = "",
        expected: Any = None,
        found: Any = None,
        severity: Severity = Severity.WARNING,
    ) -> None:
        self.findings.append(
            Finding(
                severity=severity,
                code=code,
                model=entry.label,
                field=field,
                expected=expected,
                found=found,
                message=message,
            )
        )
