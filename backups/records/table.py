"""One model as the engine sees it: columns, references and identity. Built from Django's model, once per use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey
from django.db.models import FileField, Model

from backups.records import identity
from backups.records.identity import Identity, Part, Rule
from backups.records.record import Key, Record
from backups.records.relations import AnyField, column_of, related_model, target_field
from backups.records.selection import primary_key_fields

ADMIN_LOG = "admin.logentry"


@dataclass(frozen=True)
class Reference:
    """A foreign key or one-to-one of a table.

    ``parts`` make the identity of the row referred to, () where only its primary key is one. With ``natural``, a
    record's ``fields`` hold that identity in place of the key. With ``renumbered``, the column holds a primary key,
    which may be another one in another database.
    """

    field: AnyField
    to: type[Model]
    parts: tuple[Part, ...]
    natural: bool
    renumbered: bool

    @property
    def name(self) -> str:
        return self.field.name


@dataclass(frozen=True)
class GenericReference:
    """A generic foreign key: the name of its foreign key to a content type, and of the column with the object's key."""

    content_type: str
    object_id: str


class Table:
    """A concrete model's own table; a multi-table child's parents are tables of their own."""

    def __init__(self, model: type[Model]) -> None:
        self.model = model
        self.label = model._meta.label_lower
        self.name = model._meta.db_table
        self.key_fields = tuple(primary_key_fields(model))
        self.key_name = model._meta.pk.name
        # By name: the order of declaration may change without a migration, and the same row has the same bytes.
        self.columns = sorted(
            (
                field
                for field in model._meta.local_concrete_fields
                if not field.generated and (not field.primary_key or field.remote_field or len(self.key_fields) > 1)
            ),
            key=lambda field: field.name,
        )
        self.references = [_reference(field) for field in self.columns if field.remote_field]
        self.generics = _generic_references(model)
        self.file_fields = [field for field in self.columns if isinstance(field, FileField)]
        self.has_automatic_key = identity.has_automatic_key(model)

    @property
    def key_columns(self) -> list[str]:
        return [column_of(field) for field in self.key_fields]

    def __repr__(self) -> str:
        return f"<Table {self.label}>"

    @cached_property
    def identity(self) -> Identity:
        return identity.of_model(self.model)

    @cached_property
    def key_reference(self) -> Reference | None:
        """The reference that is the primary key: a one-to-one, or a multi-table child's link to its parent."""
        return next((reference for reference in self.references if reference.field.primary_key), None)

    @property
    def key_is_content(self) -> bool:
        """Whether the primary key is part of what a row says: a code or a UUID, or an only identity."""
        if self.key_reference or len(self.key_fields) > 1:
            return False  # its parts are among the fields
        return not self.has_automatic_key or self.identity.rule is Rule.PRIMARY_KEY

    @cached_property
    def stores_key(self) -> bool:
        """Whether records carry their natural key, because their fields do not hold it."""
        return any(self._locate(part) is None for part in self.identity.parts)

    def identity_of(self, record: Record) -> Key:
        """Return what makes the record's row the same thing in another database."""
        if record.key is not None:
            return record.key
        return [self._value_at(record, place) for place in self._places]

    @cached_property
    def _places(self) -> list[tuple[str, int | None]]:
        return [place for part in self.identity.parts if (place := self._locate(part))]

    def _locate(self, part: Part) -> tuple[str, int | None] | None:
        """Find where a record holds one part of its identity: a field, or a place in a reference's key."""
        name, *rest = part.path
        if part.called and name == "pk":
            return None
        if not rest and part.called is None:
            return name, None
        reference = next((reference for reference in self.references if reference.name == name), None)
        if reference is None or any(part.called for part in reference.parts):
            return None
        if reference.renumbered and not reference.natural and tuple(rest) == (reference.to._meta.pk.name,):
            return name, None  # the bare key itself
        paths = [part.path[1:] for part in reference.parts]
        return (name, paths.index(tuple(rest))) if tuple(rest) in paths else None

    def _value_at(self, record: Record, place: tuple[str, int | None]) -> Any:
        name, index = place
        if name == self.key_name and name not in record.fields:
            return record.pk
        value = record.keys.get(name, record.fields.get(name))
        if index is None or not isinstance(value, list):  # not a list: a reference that dangles
            return value
        return value[index] if index < len(value) else None


def _reference(field: AnyField) -> Reference:
    to = related_model(field)
    renumbered = target_field(field).name == to._meta.pk.name
    natural = identity.natural_key_parts(to)
    parts = natural or ()
    if natural is None and renumbered:
        own = identity.of_model(to)
        if own.rule is not Rule.PRIMARY_KEY or to._meta.pk.remote_field:
            parts = own.parts
    return Reference(
        field=field,
        to=to,
        parts=tuple(part.below((field.name,)) for part in parts),
        natural=natural is not None,
        renumbered=renumbered,
    )


def _generic_references(model: type[Model]) -> list[GenericReference]:
    if model._meta.label_lower == ADMIN_LOG:  # has the columns of a generic foreign key, without the field
        return [GenericReference("content_type", "object_id")]
    local = {field.name for field in model._meta.local_concrete_fields}
    return [
        GenericReference(field.ct_field, field.fk_field)
        for field in model._meta.private_fields
        if isinstance(field, GenericForeignKey) and {field.ct_field, field.fk_field} <= local
    ]
