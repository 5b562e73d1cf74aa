"""The objects of a fixture turned into records: identities, references, and the keys that a fixture does not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

from django.db.models import IntegerField, Model

from backups.records.foreign_objects import FixtureObjects
from backups.records.foreign_rows import BY_KEY, BY_NATURAL_KEY, BY_PLACE, ObjectRows, Row, Unresolved
from backups.records.identity import Part, Rule, natural_key_of, natural_key_parts
from backups.records.jsontext import dumps, loads
from backups.records.record import Key, Record
from backups.records.relations import AnyField, final_field, get_field, has_constraint, target_field
from backups.records.table import GenericReference, Reference, Table, is_key_number
from backups.reporting import Finding, Severity

BY_KEY_ONLY = "reference_by_key_only"
_SKIPPED = "; row skipped"


class FixtureRecords:
    """Gives the records of each model of a fixture, once all its objects are there.

    What stands in the way of a reference is added to the objects' ``findings``.
    """

    def __init__(self, objects: FixtureObjects) -> None:
        self._objects = objects
        self._policy = objects.policy

    def rows_of(self, model: type[Model]) -> int:
        return self._objects.rows[model].kept

    def finish(self) -> None:
        """Give every row its primary key, and leave out what the policy skips."""
        for model in self._key_order():
            self._complete_keys(self._objects.rows[model])
        if self._policy.skip:
            while self._skip_unresolved():
                pass

    def records(self, model: type[Model]) -> Iterator[Record]:
        """Yield the records of a model in the order of their primary keys."""
        rows = self._objects.rows[model]
        for row in rows.rows():
            record, problems = self._record(row)
            self._objects.findings += problems
            yield record

    def _key_order(self) -> list[type[Model]]:
        ordered: dict[type[Model], None] = {}

        def visit(model: type[Model]) -> None:
            for reference in self._objects.rows[model].table.key_follows:
                if reference is not None and reference.to in self._objects.rows and reference.to is not model:
                    visit(reference.to)
            ordered[model] = None

        for model in self._objects.models:
            visit(model)
        return list(ordered)

    def _complete_keys(self, rows: ObjectRows) -> None:
        """Make up the keys that a database would make up, derive those that follow from others, refuse the rest."""
        table = rows.table
        missing = rows.without_key
        if not missing:
            return
        if table.key_reference is not None or len(table.key_fields) > 1:
            self._derive_keys(rows)
        elif table.has_automatic_key and table.identity.rule is not Rule.PRIMARY_KEY:
            rows.make_up_keys(max(rows.largest_key, 0) + 1)
            if not table.model._meta.auto_created:  # no fixture has the keys of automatic tables
                self._key_finding(
                    table, missing, Severity.INFO, "rows come without their primary keys; they are known by identity"
                )
        else:
            rows.skip_without_key()
            self._key_finding(
                table,
                missing,
                Severity.ERROR,
                "rows come without their primary keys, and nothing else gives these back",
            )

    def _derive_keys(self, rows: ObjectRows) -> None:
        table = rows.table
        lost = 0
        for row in rows.rows("pk IS NULL", "ordinal"):
            own = True
            try:
                values = [self._raw(row, one.name) for one in table.key_fields]
                for reference in filter(None, table.key_follows):
                    target = self._find(row, reference)
                    own = own and (target is None or target.has_own_key)
            except Unresolved:
                values = [None]
            if None in values:
                lost += 1
                rows.skip(row.ordinal)
            else:
                rows.set_key(row.ordinal, values if len(values) > 1 else values[0], own=own)
        if lost:
            self._key_finding(
                table,
                lost,
                Severity.ERROR,
                "rows come without their primary keys, and what these refer to is not known",
            )

    def _key_finding(self, table: Table, count: int, severity: Severity, message: str) -> None:
        self._objects.findings.append(
            Finding(
                severity=severity,
                code="primary_key_absent",
                model=table.label,
                field=table.key_name,
                found=count,
                message=f"{count} {message}",
            )
        )

    def _skip_unresolved(self) -> bool:
        skipped = False
        for rows in self._objects.rows.values():
            for row in rows.rows(order="ordinal"):
                _, problems = self._record(row)
                if any(one.message.endswith(_SKIPPED) for one in problems):
                    rows.skip(row.ordinal)
                    skipped = True
                    self._objects.findings += problems
        return skipped

    def _record(self, row: Row) -> tuple[Record, list[Finding]]:
        """Put a record together. Problems are what stands in its references' way."""
        table = row.store.table
        record = Record(row.pk, dict(row.fields), json_null=row.json_null)
        problems: list[Finding] = []
        for reference in table.references:
            if row.fields[reference.name] is not None:
                self._add_reference(row, reference, record, problems)
        for generic in table.generics:
            self._add_generic(row, generic, record, problems)
        if table.stores_key:
            try:
                record.key = self._key(row, table.identity.parts)
            except Unresolved:
                problems.append(self._problem(row, "", None, "its own natural key leads out of the file"))
        return record, problems

    def _add_reference(self, row: Row, reference: Reference, record: Record, problems: list[Finding]) -> None:
        name = reference.name
        kind, value = row.fields[name]
        target = self._find(row, reference)
        if target is not None:
            try:
                raw = self._raw(target, target_field(reference.field).name)
                key = self._key_referred(target, reference)
            except Unresolved:
                record.fields[name] = None
                problems.append(self._problem(row, name, value, "what it refers to leads out of the file"))
                return
            self._hold(record, reference, raw, key)
        elif kind == BY_NATURAL_KEY and self._is_enough(reference) and not self._candidates(row, reference):
            record.fields[name] = value
            # Without the key at the source, the identity is what the row is found by.
            record.refs[name] = None if reference.keys_of else value[0]
        elif kind == BY_KEY and self._may_be_bare(row, reference):
            record.fields[name] = value
        elif kind == BY_KEY and (outside := self._outside(reference, value)) is not None:
            # With its own key it could be taken for a row of the file; the identity is what it is found by.
            self._hold(record, reference, None if reference.natural else value, outside)
            problems.append(self._taken(row, name, value, outside))
        else:
            record.fields[name] = None  # as asked for, or beside a finding that keeps it out of any database
            problems.append(self._unresolved(row, reference.field, name, value, kind))

    def _hold(self, record: Record, reference: Reference, raw: Any, key: Key) -> None:
        name = reference.name
        if reference.natural:
            record.fields[name], record.refs[name] = key, raw
        else:
            record.fields[name] = raw
            if reference.parts:
                record.keys[name] = key

    def _is_enough(self, reference: Reference) -> bool:
        """Whether a natural key alone says what a column is to hold: the row's key, found by it, or the key itself."""
        if reference.keys_of is not None:
            return reference.keys_of is reference.to
        return [part.path[1:] for part in reference.parts] == [(target_field(reference.field).name,)]

    def _may_be_bare(self, row: Row, reference: Reference) -> bool:
        """Whether a primary key may stand for itself: it is not one that a database made up, or it dangles rightly."""
        to = reference.keys_of or reference.to
        if reference.to in self._objects.rows:
            return not has_constraint(reference.field) and not self._objects.rows[reference.to].has_made_up_keys
        return not reference.parts and not Table(to).has_automatic_key

    def _outside(self, reference: Reference, value: Any) -> Key | None:
        if self._policy.outside is None or reference.keys_of is not reference.to:
            return None
        if reference.to in self._objects.rows and not reference.natural:
            return None
        return self._policy.outside(reference.to, value, reference.natural)

    def _add_generic(self, row: Row, generic: GenericReference, record: Record, problems: list[Finding]) -> None:
        value = row.fields.get(generic.object_id)
        if value is None or row.fields.get(generic.content_type) is None:
            return
        try:
            app_label, name = (self._follow(row, (generic.content_type, part)) for part in ("app_label", "model"))
        except Unresolved:
            return  # the content type is not known, and that is told
        model = self._objects.model(f"{app_label}.{name}")
        if model is None:
            return
        table = self._objects.rows[model].table if model in self._objects.rows else Table(model)
        if len(table.key_fields) > 1 or (table.identity.rule is Rule.PRIMARY_KEY and table.key_reference is None):
            return  # the bare key is the identity
        if not isinstance(final_field(table.key_fields[0]), IntegerField) or not is_key_number(value):
            return
        key: Key | None = None
        if model in self._objects.rows:
            target = self._objects.rows[model].with_key(int(value))
            if target is not None:
                with suppress(Unresolved):
                    key = self._key(target, table.identity.parts)
            elif not self._objects.rows[model].has_made_up_keys:
                return  # it dangles, and the file shows it
        elif self._policy.outside is not None:
            key = self._policy.outside(model, int(value), False)
            if key is not None:
                problems.append(self._taken(row, generic.object_id, value, key))
        if key is not None:
            record.keys[generic.object_id] = [table.label, *key]
            return
        content_type = get_field(row.store.table.model, generic.content_type)
        problems.append(self._unresolved(row, content_type, generic.object_id, value, BY_KEY))
        record.fields[generic.content_type] = None
        record.refs.pop(generic.content_type, None)

    # Following references inside the file

    def _find(self, row: Row, reference: Reference) -> Row | None:
        """Return the row of the file that a reference means, or None."""
        found = self._candidates(row, reference)
        return found[0] if len(found) == 1 else None

    def _candidates(self, row: Row, reference: Reference) -> list[Row]:
        """Return the rows of the file, two at most, that a reference may mean."""
        pointer = row.fields[reference.name]
        if pointer is None or reference.to not in self._objects.rows:
            return []
        rows = self._objects.rows[reference.to]
        kind, value = pointer
        if kind == BY_PLACE:
            found = rows.at(value)
            return [found] if found else []
        if kind == BY_KEY:
            target = target_field(reference.field)
            if target.name == rows.table.key_name:
                found = rows.with_key(value)
                return [found] if found else []
            return rows.with_value(target.name, value, lambda one: self._raw(one, target.name))
        parts = natural_key_parts(reference.to) or ()
        called = any(part.called for part in parts)
        # XML has text for each part of a key, and only the model's own method knows what these are.
        as_text = (lambda key: list(map(str, key))) if called else list
        return rows.with_value("natural key", as_text(value), lambda one: as_text(self._key(one, parts)))

    def _raw(self, row: Row, name: str) -> Any:
        """Return what a row's column holds."""
        reference = row.store.by_name.get(name)
        if reference is None:
            return row.fields.get(name, row.pk)
        pointer = row.fields[name]
        if pointer is None:
            return None
        if pointer[0] == BY_KEY:
            return pointer[1]
        target = self._find(row, reference)
        if target is None:
            raise Unresolved
        return self._raw(target, target_field(reference.field).name)

    def _key_referred(self, target: Row, reference: Reference) -> Key:
        parts = [Part(part.path[1:], part.called) for part in reference.parts]
        return self._key(target, parts)

    def _key(self, row: Row, parts: Iterable[Part]) -> Key:
        """Put an identity together. Raises ``Unresolved`` where it leads out of the file."""
        key: Key = []
        for part in parts:
            if part.called is None:
                key.append(self._follow(row, part.path))
                continue
            owner = row if part.path == ("pk",) else self._walk(row, part.path)
            instance = self._instance(owner)
            key += loads(dumps(natural_key_of(instance)))
        return key

    def _walk(self, row: Row, path: tuple[str, ...]) -> Row:
        for name in path:
            if name == "pk":
                break
            reference = row.store.by_name.get(name)
            target = self._find(row, reference) if reference else None
            if target is None:
                raise Unresolved
            row = target
        return row

    def _follow(self, row: Row, path: tuple[str, ...]) -> Any:
        """Return the value at the end of a path of references."""
        name, *rest = path
        model = row.store.table.model
        column = get_field(model, name)
        if column not in model._meta.local_concrete_fields:
            link = cast("AnyField", model._meta.get_ancestor_link(column.model))
            return self._follow(self._walk(row, (link.name,)), path)
        if not rest:
            return self._raw(row, column.name)
        reference = row.store.by_name[name]
        pointer = row.fields[name]
        if pointer is None:
            return None
        if pointer[0] == BY_NATURAL_KEY:
            paths = [part.path for part in natural_key_parts(reference.to) or () if not part.called]
            if tuple(rest) in paths:
                return pointer[1][paths.index(tuple(rest))]
        target = self._find(row, reference)
        if target is not None:
            return self._follow(target, tuple(rest))
        if pointer[0] == BY_KEY and tuple(rest) in (("pk",), (target_field(reference.field).name,)):
            return pointer[1]
        raise Unresolved

    def _instance(self, row: Row, depth: int = 0) -> Model:
        """Build the object that a hand-written ``natural_key()`` is asked of, with the objects that it refers to."""
        table = row.store.table
        instance = table.model()
        for column in table.model._meta.local_concrete_fields:
            if column.name in row.store.by_name:
                reference = row.store.by_name[column.name]
                target = self._find(row, reference) if depth < 3 else None
                raw = self._raw(row, column.name)
                setattr(instance, str(column.attname), final_field(column).to_python(raw))
                if target is not None:
                    column.set_cached_value(instance, self._instance(target, depth + 1))  # type: ignore[attr-defined]
            else:
                value = row.fields.get(column.name, row.pk if column.primary_key else None)
                setattr(instance, str(column.attname), column.to_python(value))
        return instance

    # Findings

    def _unresolved(self, row: Row, column: AnyField, name: str, value: Any, kind: str) -> Finding:
        if kind == BY_NATURAL_KEY:
            code, what = "reference_missing", "refers by natural key to a row that the file does not have, or has twice"
        else:
            code, what = BY_KEY_ONLY, "refers by primary key, which is another row's elsewhere, to none in the file"
        if self._policy.null and column.null:
            return self._problem(row, name, value, f"{what}; set to null", code=code, severity=Severity.WARNING)
        if self._policy.skip:
            return self._problem(row, name, value, f"{what}{_SKIPPED}", code=code, severity=Severity.WARNING)
        return self._problem(row, name, value, what, code=code)

    def _taken(self, row: Row, name: str, value: Any, key: Key) -> Finding:
        message = f"refers by primary key {value!r} to a row that is not in the file, taken for that of the database"
        return self._problem(row, name, key, message, severity=Severity.WARNING)

    def _problem(
        self,
        row: Row,
        name: str,
        value: Any,
        message: str,
        *,
        code: str = BY_KEY_ONLY,
        severity: Severity = Severity.ERROR,
    ) -> Finding:
        table = row.store.table
        try:
            identity = self._key(row, table.identity.parts)
        except Unresolved:
            identity = [row.pk]
        return Finding(
            severity=severity,
            code=code,
            model=table.label,
            identity=identity,
            field=name,
            expected=value,
            message=f"{row.place}: {message}",
        )
