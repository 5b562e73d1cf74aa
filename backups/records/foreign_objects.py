"""The objects of a fixture taken in: their values as records hold them, their references as the file names them.

They wait in a private SQLite database, so that a reference finds its row wherever in the file it is, and memory stays
bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db.models import ManyToManyField, Model

from backups.package.fixtures import FixtureObject
from backups.records.foreign_rows import BY_KEY, BY_NATURAL_KEY, BY_PLACE, ObjectRows, Pointer
from backups.records.foreign_values import (
    REFUSED,
    content_type_places,
    default_of,
    lacks_time_zone,
    natural_key_normaliser,
)
from backups.records.identity import natural_key_parts
from backups.records.record import Key
from backups.records.relations import AnyField
from backups.records.scratch import Scratch
from backups.records.table import Reference, Table
from backups.reporting import Finding, Severity


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What becomes of what a fixture says.

    ``mapping`` renames models (``app.model``) and fields (``app.model.field``); a name that becomes empty is left
    out. A reference by primary key to a row that is not in the file may mean any row: it is an error, or with
    ``null`` becomes null where it may be, or ``skip`` leaves its row out. ``outside``, where it is given, returns what
    such a reference means: the identity of a row, which is a natural key where the reference is natural.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    null: bool = False
    skip: bool = False
    outside: Callable[[type[Model], Any, bool], Key | None] | None = None


class FixtureObjects:
    """Takes the objects of a fixture in.

    ``findings`` say what could not be carried over. What is not covered is counted in ``excluded``, ``dropped`` and
    ``unknown``.
    """

    def __init__(self, covered: Iterable[type[Model]], policy: Policy) -> None:
        self.covered = list(covered)
        self.policy = policy
        self.findings: list[Finding] = []
        self.excluded: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.rows: dict[type[Model], ObjectRows] = {}
        self._scratch = Scratch()
        self._scratch.connection.execute("BEGIN")
        self._known: set[type[Model]] = set(self.covered)
        self._models: dict[str, type[Model] | None] = {}
        self._counted: dict[tuple[str, str, str], _Counted] = {}

    def close(self) -> None:
        self._scratch.close()

    @property
    def models(self) -> list[type[Model]]:
        """The models that the fixture holds, parents before those that refer to them."""
        return [model for model in self.covered if model in self.rows]

    def finish(self) -> None:
        """Tell what many rows share, once everything is there."""
        self._tell_precision()
        self.findings += [one.finding() for one in self._counted.values()]

    def add(self, given: FixtureObject) -> None:
        """Take one object in."""
        label = self.policy.mapping.get(given.model, given.model)
        if not label:
            self.dropped[given.model] = self.dropped.get(given.model, 0) + 1
            return
        model = self.model(label)
        if model is None:
            self.unknown[label] = self.unknown.get(label, 0) + 1
            return
        if model not in self._known:
            label = model._meta.label_lower
            self.excluded[label] = self.excluded.get(label, 0) + 1
            return
        self._add(self._store(model), given)

    def model(self, label: str) -> type[Model] | None:
        """Return the concrete model of this name, or None where the code has none."""
        if label not in self._models:
            try:
                found = apps.get_model(label)
            except (LookupError, ValueError):
                self._models[label] = None
            else:
                self._models[label] = cast("type[Model]", found._meta.concrete_model)
        return self._models[label]

    def _store(self, model: type[Model]) -> ObjectRows:
        if model not in self.rows:
            self.rows[model] = ObjectRows(self._scratch, Table(model))
        return self.rows[model]

    def _add(self, rows: ObjectRows, given: FixtureObject) -> None:
        table = rows.table
        values, many = self._split(rows, given)
        fields: dict[str, Any] = {}
        json_null: list[str] = []
        pk = None
        name = table.key_name
        try:
            if given.has_pk:
                pk = self._given_key(rows, given)
                if table.key_reference is not None and name not in values:
                    values[name] = given.pk
            for column in table.columns:
                name = column.name
                if name not in values:
                    fields[name] = self._absent(table, column)
                    continue
                fields[name] = self._value(rows, column, values[name], given, json_null)
        except REFUSED as error:
            self._refuse_value(table, given, name, values.get(name, given.pk), error)
            return
        if len(table.key_fields) > 1:
            pk = None  # follows from its parts
        if pk is not None and rows.with_key(pk) is not None:
            self._error(
                "primary_key_twice", table, [pk], table.key_name, f"{given.place}: the file has this primary key twice"
            )
            return
        ordinal = rows.add(pk, pk is not None, fields, json_null, given.place)
        for relation, targets in many:
            self._add_many(rows, relation, ordinal, targets, given)

    def _split(
        self, rows: ObjectRows, given: FixtureObject
    ) -> tuple[dict[str, Any], list[tuple[ManyToManyField[Any, Any], Any]]]:
        """Divide an object's fields into those of its row, by their present names, and its many-to-many relations."""
        columns = {column.name for column in rows.table.columns} | {rows.table.key_name}
        values: dict[str, Any] = {}
        many: list[tuple[ManyToManyField[Any, Any], Any]] = []
        for given_name, value in given.fields.items():
            name = self.policy.mapping.get(f"{rows.table.label}.{given_name}", given_name)
            relation = rows.many_to_many.get(name)
            if name in columns:
                values[name] = value
            elif relation is not None and cast("Any", relation.remote_field).through._meta.auto_created:
                many.append((relation, value))
            elif not name:
                self._count("field_left_out", Severity.WARNING, rows.table.label, given_name, "left out, as was asked")
            elif not _is_generated(rows.table.model, name):
                self._count(
                    "field_unknown",
                    Severity.ERROR,
                    rows.table.label,
                    given_name,
                    "the code does not have this field; --map MODEL.FIELD=NEW_FIELD renames it, --map MODEL.FIELD= "
                    "leaves it out",
                )
        if rows.table.model is ContentType and {"app_label", "model"} <= values.keys():
            values["app_label"], values["model"] = self._renamed(values["app_label"], values["model"])
        return values, many

    def _renamed(self, app_label: Any, model: Any) -> tuple[Any, Any]:
        """Rename what a content type names, where the model is renamed."""
        new = self.policy.mapping.get(f"{app_label}.{model}")
        return tuple(new.split(".")) if new else (app_label, model)  # type: ignore[return-value]

    def _given_key(self, rows: ObjectRows, given: FixtureObject) -> Any:
        if rows.normalise_key is None:
            return None
        value = given.pk
        if isinstance(value, list):
            raise TypeError("the primary key is a list")
        key = rows.normalise_key(value, given.text)
        if isinstance(key, int) and abs(key) >= 2**63:
            raise ValueError("no database has keys that large")
        return key

    def _value(self, rows: ObjectRows, column: AnyField, value: Any, given: FixtureObject, json_null: list[str]) -> Any:
        if column.remote_field is not None:
            return self._pointer(rows, rows.by_name[column.name], value, text=given.text)
        if value is None:
            if column.name in rows.table.json_fields:
                if not column.null:
                    json_null.append(column.name)  # all that a required column can hold
                else:
                    self._count(
                        "json_null_unknown",
                        Severity.INFO,
                        rows.table.label,
                        column.name,
                        "a fixture does not tell JSON null from SQL NULL; it is read as SQL NULL",
                    )
            return None
        if given.text and isinstance(value, str) and "\n" in value:
            self._count(
                "line_ends_unknown",
                Severity.INFO,
                rows.table.label,
                column.name,
                "XML turns every end of a line into a line feed; texts that had carriage returns have lost them",
            )
        if column.name in rows.precision:
            rows.precision[column.name].see(value)
            if lacks_time_zone(column, value):
                self._count(
                    "time_zone_absent",
                    Severity.WARNING,
                    rows.table.label,
                    column.name,
                    "times without a time zone are read in the project's",
                )
        return rows.normalise[column.name](value, given.text)

    def _pointer(self, rows: ObjectRows, reference: Reference, value: Any, *, text: bool) -> Pointer | None:
        """Read a reference: a natural key is a list, anything else a primary key."""
        if value is None:
            return None
        if not isinstance(value, list):
            return [BY_KEY, rows.normalise[reference.name](value, text)]
        parts = natural_key_parts(reference.to)
        if parts is None:
            raise ValueError(f"{reference.to._meta.label_lower} has no natural key")
        if reference.name not in rows.natural_keys:
            rows.natural_keys[reference.name] = natural_key_normaliser(reference.to, parts)
        key = rows.natural_keys[reference.name](value, text)
        for app_label, model in content_type_places(reference.to, parts):
            key[app_label], key[model] = self._renamed(key[app_label], key[model])
        return [BY_NATURAL_KEY, key]

    def _absent(self, table: Table, column: AnyField) -> Any:
        """Give a field that the object does not have its default."""
        if column.primary_key:
            return None  # told where the key is
        known, value = default_of(column)
        if known:
            self._count(
                "field_absent",
                Severity.WARNING,
                table.label,
                column.name,
                f"the file does not have this field; it takes its default, {value!r}",
            )
        else:
            self._count(
                "field_absent",
                Severity.ERROR,
                table.label,
                column.name,
                "the file does not have this field, which has no default that is always the same",
            )
        return [BY_KEY, value] if column.remote_field is not None and value is not None else value

    def _add_many(
        self, rows: ObjectRows, relation: ManyToManyField[Any, Any], ordinal: int, targets: Any, given: FixtureObject
    ) -> None:
        """Make the rows of an automatic many-to-many table, in the order of the list."""
        model = cast("Any", relation.remote_field).through
        if model not in self._known:
            self.excluded[model._meta.label_lower] = self.excluded.get(model._meta.label_lower, 0) + len(targets or ())
            return
        through = self._store(model)
        own = cast("Any", relation).m2m_field_name()
        other = cast("Any", relation).m2m_reverse_field_name()
        try:
            if not isinstance(targets, list):
                raise TypeError("not a list")
            for value in targets:
                pointer = self._pointer(through, through.by_name[other], value, text=given.text)
                through.add(None, False, {own: [BY_PLACE, ordinal], other: pointer}, [], given.place)
        except REFUSED as error:
            self._refuse_value(rows.table, given, relation.name, targets, error)

    def _tell_precision(self) -> None:
        for rows in self.rows.values():
            for name, precision in rows.precision.items():
                if precision.is_reduced:
                    self.findings.append(
                        Finding(
                            severity=Severity.WARNING,
                            code="precision_reduced",
                            model=rows.table.label,
                            field=name,
                            found=precision.milliseconds,
                            message="every time has milliseconds where the column has microseconds: dumpdata cut them",
                        )
                    )

    def _refuse_value(self, table: Table, given: FixtureObject, name: str, value: Any, error: Exception) -> None:
        reason = "; ".join(error.messages) if hasattr(error, "messages") else str(error)
        self.findings.append(
            Finding(
                severity=Severity.ERROR,
                code="value_invalid",
                model=table.label,
                identity=[given.pk] if given.has_pk else [],
                field=name,
                expected=value,
                found=reason,
                message=f"{given.place}: the field does not take the value",
            )
        )

    def _error(self, code: str, table: Table, identity: Key, name: str, message: str) -> None:
        self.findings.append(
            Finding(
                severity=Severity.ERROR, code=code, model=table.label, identity=identity, field=name, message=message
            )
        )

    def _count(self, code: str, severity: Severity, label: str, name: str, message: str) -> None:
        key = (code, label, name)
        if key not in self._counted:
            self._counted[key] = _Counted(code, severity, label, name, message)
        self._counted[key].rows += 1


@dataclass
class _Counted:
    """A finding that many rows share: told once, with their number."""

    code: str
    severity: Severity
    model: str
    field: str
    message: str
    rows: int = 0

    def finding(self) -> Finding:
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return Finding(
            severity=self.severity,
            code=self.code,
            model=self.model,
            field=self.field,
            found=self.rows,
            message=f"{self.message} ({rows})",
        )


def _is_generated(model: type[Model], name: str) -> bool:
    """Whether a field follows from others, so that nothing is lost with its value."""
    return any(one.name == name and one.generated for one in model._meta.local_concrete_fields)
