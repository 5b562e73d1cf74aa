"""One model as the engine sees it: columns, references and identity. Built from Django's model, once per use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.db.models import FileField, IntegerField, JSONField, Model

from backups import conf
from backups.errors import PackageDamaged
from backups.records import identity
from backups.records.identity import Identity, Part, Rule
from backups.records.jsontext import canonical, dumps
from backups.records.record import Key, Record
from backups.records.relations import AnyField, column_of, final_field, has_constraint, key_model, related_model
from backups.records.selection import primary_key_fields

ADMIN_LOG = "admin.logentry"

# Numbers in JSON that have another form in another engine. In its texts they mean nothing: a closer look does no harm.
_CANONICAL_DIFFERS = re.compile(rb"[\d.]{16}|\d[eE]\+?\d|-0\.0")

_INTEGER = re.compile("-?0*[1-9][0-9]*|0+")
_MOST_DIGITS = 1000
"""Of a text that stands for a key: Python refuses to read some thousands of them."""


@dataclass(frozen=True)
class Reference:
    """A foreign key or one-to-one of a table.

    ``parts`` make the identity of the row referred to, () where only its primary key is one. With ``natural``, a
    record's ``fields`` hold that identity in place of the key. ``keys_of`` is the model whose primary key the column
    holds, which may be another one in another database; None where it holds another column's value.
    """

    field: AnyField
    to: type[Model]
    parts: tuple[Part, ...]
    natural: bool
    keys_of: type[Model] | None

    @cached_property
    def name(self) -> str:
        return self.field.name


@dataclass(frozen=True)
class GenericReference:
    """A column with the primary key of a row of a model that another column says, or of the only one there is.

    ``content_type`` names the foreign key to a content type of a generic foreign key, "" where ``to`` is the model.
    """

    content_type: str
    object_id: str
    to: type[Model] | None = None


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
        self.json_fields = [field.name for field in self.columns if isinstance(final_field(field), JSONField)]
        self.file_fields = [field for field in self.columns if isinstance(field, FileField)]
        self.has_automatic_key = identity.has_automatic_key(model)

    @property
    def has_free_references(self) -> bool:
        """Whether a foreign key may lead nowhere, because no constraint keeps it from that."""
        return any(not has_constraint(reference.field) for reference in self.references)

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
        return next((one for one in self.references if one.field.primary_key and one.keys_of), None)

    @cached_property
    def key_follows(self) -> list[Reference | None]:
        """For each part of the primary key, the reference that it is; the key of a row in the target follows them."""
        by_field = {one.field: one for one in self.references if one.keys_of}
        return [by_field.get(field) for field in self.key_fields]

    @cached_property
    def key_is_content(self) -> bool:
        """Whether the primary key is part of what a row says: a code or a UUID, or an only identity."""
        if self.key_reference or len(self.key_fields) > 1:
            return False  # its parts are among the fields
        return not self.has_automatic_key or self.identity.rule is Rule.PRIMARY_KEY

    @cached_property
    def may_have_twins(self) -> bool:
        """Whether nothing keeps two rows from having one identity."""
        return self.identity.rule is Rule.NATURAL and not identity.keeps_natural_key_unique(self.model)

    def require_shape(self, record: Record) -> None:
        """Raise ``PackageDamaged`` for what cannot be a row of this table: other fields, keys of other types."""
        names, referring, generic = self._shape
        is_sound = record.fields.keys() == names and self._is_key(record.pk)
        for name, key in record.refs.items():
            is_known = is_sound and name in referring
            is_sound = is_known and (key is None or (type(key) in referring[name] and _is_plain(key)))
        if is_sound and record.keys:
            is_sound = (
                record.keys.keys() <= (referring.keys() | generic)
                and all(isinstance(key, list) and key for key in record.keys.values())
                and all(self._is_generic(record, name) for name in generic & record.keys.keys())
            )
        if not is_sound or not all(isinstance(name, str) and name in names for name in record.json_null):
            pk = "hidden" if conf.read().hides(self.label, self.key_name) else repr(record.pk)
            raise PackageDamaged(f"a record of {self.label} with the primary key {pk} cannot be one of its rows")

    def _is_generic(self, record: Record, name: str) -> bool:
        """Whether a generic reference is a number, and its identity one of a model that there is."""
        return is_key_number(record.fields[name]) and record.keys[name][0] in self._labels

    @cached_property
    def _labels(self) -> list[str]:
        return [model._meta.label_lower for model in apps.get_models(include_auto_created=True)]

    def _is_key(self, pk: Any) -> bool:
        if len(self.key_fields) > 1:
            return isinstance(pk, list) and len(pk) == len(self.key_fields) and all(map(_is_plain, pk))
        return type(pk) is int and _fits(pk, 63) if self.has_automatic_key else _is_plain(pk)

    @cached_property
    def _shape(self) -> tuple[set[str], dict[str, set[Any]], set[str]]:
        names = {field.name for field in self.columns}
        referring: dict[str, set[Any]] = {
            one.name: {int} if _holds_integers(one) else {int, float, str} for one in self.references
        }
        return names, referring, {one.object_id for one in self.generics}

    @cached_property
    def may_refer_to_twins(self) -> bool:
        return any(one.natural and not identity.keeps_natural_key_unique(one.to) for one in self.references) or bool(
            self.generics
        )

    def referred(self, record: Record) -> Iterator[tuple[str, type[Model], Any]]:
        """Yield field, model and primary key at the source of the rows that a record refers to by identity."""
        for reference in self.references:
            if reference.keys_of is not None and reference.name in record.refs:
                yield reference.name, reference.to, record.refs[reference.name]
        for generic in self.generics:
            if generic.object_id in record.keys:
                label = record.keys[generic.object_id][0]
                yield generic.object_id, apps.get_model(label), int(record.fields[generic.object_id])

    def content_in(self, line: bytes, record: Record) -> bytes:
        """Do what ``content`` does for a record whose line is there already: most lines hold it as it is."""
        if record.keys or record.json_null or not self._line_holds_content or not line.startswith(b'{"model":"'):
            return self.content(record)
        # Within a text every quotation mark has a backslash before it, and no reference's number is an object.
        beginning = line.index(b'"fields":') + len(b'"fields":')
        end = line.index(b',"refs":{', beginning) if record.refs else len(line) - 1
        return line[beginning:end]

    @cached_property
    def _line_holds_content(self) -> bool:
        return not (self.key_is_content or self.json_fields or self.stores_key)

    def content(self, record: Record, twins: Mapping[str, int] = MappingProxyType({})) -> bytes:
        """Write what a row says, apart from the keys that a database made up: equal rows have equal bytes.

        ``twins`` has a number for each reference to a row that shares its identity with others.
        """
        fields = record.fields
        if record.keys or twins:
            fields = fields | {name: {"key": key} for name, key in record.keys.items()}
            fields |= {name: {"key": fields[name], "twin": number} for name, number in twins.items()}
            for generic in self.generics:
                if zeros := self.zeros(record, generic.object_id):
                    fields[generic.object_id] |= {"zeros": zeros}
        if any(_CANONICAL_DIFFERS.search(dumps(fields[name])) for name in self.json_fields):
            fields = fields | {name: canonical(fields[name]) for name in self.json_fields}
        return self._content(record, fields)

    def zeros(self, record: Record, name: str) -> str:
        """Return the zeros before the number of a generic reference: "01" means 1, and is not "1"."""
        is_generic = name in record.keys and any(generic.object_id == name for generic in self.generics)
        digits = str(record.fields.get(name)).lstrip("-")
        return digits[: -len(str(int(digits)))] if is_generic else ""

    def generic_value(self, record: Record, name: str, key: int) -> int | str:
        """Return what a generic reference holds for a row with this key, which a text column holds as text."""
        if type(record.fields[name]) is int:
            return key
        return f"{'-' if key < 0 else ''}{self.zeros(record, name)}{abs(key)}"

    def _content(self, record: Record, fields: dict[str, Any]) -> bytes:
        if self.key_is_content or record.json_null:
            return dumps([fields, record.pk if self.key_is_content else None, record.json_null], sort_keys=True)
        return dumps(fields, sort_keys=True)

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
            held = name == self.key_name or any(field.name == name for field in self.columns)
            return (name, None) if held else None
        reference = next((reference for reference in self.references if reference.name == name), None)
        if reference is None or any(part.called for part in reference.parts):
            return None
        if reference.keys_of and not reference.natural and tuple(rest) == (reference.to._meta.pk.name,):
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


def label_followed(reference: Reference | None) -> str:
    """Return the label of the model whose primary key a reference holds, "" where there is none."""
    return reference.keys_of._meta.label_lower if reference is not None and reference.keys_of is not None else ""


def is_key_number(key: Any) -> bool:
    """Whether a key, or a text that stands for one, is an integer that a database can hold; "01" is one as well."""
    text = str(key)
    return len(text) <= _MOST_DIGITS and _INTEGER.fullmatch(text) is not None and _fits(int(text), 63)


def _is_plain(key: Any) -> bool:
    return type(key) in {float, str} or (type(key) is int and _fits(key, 64))


def _fits(number: int, bits: int) -> bool:
    return -(2**63) <= number < 1 << bits


def _holds_integers(reference: Reference) -> bool:
    return isinstance(final_field(reference.field), IntegerField)


def _reference(field: AnyField) -> Reference:
    to, keys_of = related_model(field), key_model(field)
    natural = identity.natural_key_parts(to)
    parts = natural or ()
    if natural is None and keys_of is not None:
        own = identity.of_model(to)
        if own.rule is not Rule.PRIMARY_KEY or to._meta.pk.remote_field:
            parts = own.parts
    return Reference(
        field=field,
        to=to,
        parts=tuple(part.below((field.name,)) for part in parts),
        natural=natural is not None,
        keys_of=keys_of,
    )


def _generic_references(model: type[Model]) -> list[GenericReference]:
    if model._meta.label_lower == ADMIN_LOG:  # has the columns of a generic foreign key, without the field
        return [GenericReference("content_type", "object_id")]
    references = [GenericReference(*names) for names in identity.generic_columns(model)]
    if tracked := _tracked_model(model):
        references.append(GenericReference("", tracked._meta.pk.name, tracked))
    return references


def _tracked_model(model: type[Model]) -> type[Model] | None:
    """Return the model whose rows' history a table of django-simple-history keeps, under their primary keys.

    None where that column is a foreign key, as it is for a primary key that is one.
    """
    tracked: type[Model] | None = getattr(model, "instance_type", None)
    if tracked is None or not hasattr(model, "history_object"):
        return None
    fields = {field.name for field in model._meta.local_concrete_fields if field.remote_field is None}
    return tracked if tracked._meta.pk.name in fields else None
