"""The manifest: what a package holds, as data. Written last, read first, and refused where anything is unexpected."""

from __future__ import annotations

import hashlib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Self, cast

import orjson

from backups.errors import PackageDamaged, PackageUnsupported
from backups.package.container import FILE_INDEX, MANIFEST, is_allowed

FORMAT_NAME = "edms-package"
FORMAT_VERSION = 1
KINDS = ("backup", "safety")
MIN_LINE_BYTES = 20
"""The shortest record has some more."""
RULES = ("natural", "unique", "primary_key")

_SHA256 = re.compile("[0-9a-f]{64}")
_LABEL = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")


@dataclass(frozen=True, kw_only=True)
class Format:
    name: str = FORMAT_NAME
    version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A member of compressed lines. ``size`` is as stored, ``bytes`` uncompressed, ``sha256`` of the stored member."""

    member: str
    rows: int
    size: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ColumnEntry:
    """A field: its name, Django's internal type, and whether it may be null."""

    name: str
    type: str
    null: bool


@dataclass(frozen=True, kw_only=True)
class IdentityEntry:
    """What makes a row of the model the same thing elsewhere: see ``backups.records.identity``."""

    rule: str
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReferenceEntry:
    """A foreign key and the label of the model that it refers to."""

    field: str
    to: str


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One table. ``digest`` is of its content: equal for equal rows on any engine, in any order, under any keys.

    ``next_key`` is the primary key that the next row would have got; None where the database makes none up. Keys below
    it may have been given away and deleted, and are never given to another row.
    """

    label: str
    table: str
    rows: int
    columns: tuple[ColumnEntry, ...]
    identity: IdentityEntry
    references: tuple[ReferenceEntry, ...]
    digest: str
    next_key: int | None
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, kw_only=True)
class ExcludedEntry:
    """A model that was left out, with the rows it had and the reason."""

    label: str
    rows: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class TableEntry:
    """A table that no model knows, and the rows it had. They are not in the package."""

    table: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class FilesEntry:
    """The stored files: ``count`` names, of which ``missing`` had no file, ``bytes`` of content, and their list.

    A safety backup also names files that its operation was about to write and that no row named.

    ``unreferenced`` files were stored and named by no row; they are not in the package.
    """

    count: int
    missing: int
    unreferenced: int
    bytes: int
    index: Chunk | None


@dataclass(frozen=True, kw_only=True)
class ConfigEntry:
    """A configuration file and its permission bits."""

    member: str
    size: int
    sha256: str
    mode: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a package says about itself. ``id`` follows from the rest."""

    format: Format
    id: str
    created: datetime
    kind: str
    versions: Mapping[str, str]
    engine: Mapping[str, str]
    migrations: Mapping[str, tuple[str, ...]]
    models: tuple[ModelEntry, ...]
    excluded: tuple[ExcludedEntry, ...]
    unknown_tables: tuple[TableEntry, ...]
    files: FilesEntry
    config: tuple[ConfigEntry, ...]

    @classmethod
    def build(cls, **parts: Any) -> Self:
        """Make a manifest of this format and derive its id."""
        unnamed = cls(format=Format(), id="", **parts)
        return replace(unnamed, id=unnamed.derived_id())

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a manifest. Raises ``PackageUnsupported`` for another format version, else ``PackageDamaged``."""
        try:
            raw = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise PackageDamaged(f"{MANIFEST} is not JSON: {error}") from error
        _require_known_format(raw)
        manifest: Self = _read(cls, raw, MANIFEST)
        if manifest.to_json() != data:
            raise PackageDamaged(f"{MANIFEST} is not in its canonical form")
        manifest._require_consistency()
        return manifest

    def to_json(self) -> bytes:
        """Write the manifest in its one form: keys sorted, indented by two blanks, one line feed at the end."""
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def derived_id(self) -> str:
        return hashlib.sha256(replace(self, id="").to_json()).hexdigest()[:32]

    @property
    def chunks(self) -> list[Chunk]:
        """Every member of compressed lines."""
        index = [self.files.index] if self.files.index else []
        return [chunk for model in self.models for chunk in model.chunks] + index

    def _require_consistency(self) -> None:
        """Check what types cannot say. Raises ``PackageDamaged``."""
        _require(self.id == self.derived_id(), "its id does not follow from its content")
        _require(self.kind in KINDS, f"there is no kind {self.kind!r}")
        _require(self.created.utcoffset() is not None, "created has no time zone")
        labels = [model.label for model in self.models]
        _require(len(labels) == len(set(labels)), "a model is listed twice")
        for model in self.models:
            _require(_LABEL.fullmatch(model.label) is not None, f"{model.label!r} is not a label")
            _require(model.identity.rule in RULES, f"{model.label} has no known identity rule")
            _require(_SHA256.fullmatch(model.digest) is not None, f"{model.label} has no digest")
            _require(sum(chunk.rows for chunk in model.chunks) == model.rows, f"{model.label}'s rows do not add up")
            for number, chunk in enumerate(model.chunks):
                _require(chunk.member == chunk_name(model.label, number), f"{chunk.member} is not in its place")
        index = self.files.index
        _require(index is None or index.member == FILE_INDEX, "the list of files has another name")
        _require((index.rows if index else 0) == self.files.count, "the files do not add up")
        for chunk in self.chunks:
            # What has many more lines than could say anything is made to keep its reader busy.
            _require(chunk.rows * MIN_LINE_BYTES <= chunk.bytes, f"{chunk.member} cannot have {chunk.rows} lines")
        names = [entry.member for entry in self.config]
        held = {f"{name}/" for name in names}
        _require(len(names) == len(set(names)), "a configuration file is listed twice")
        _require(
            not any(f"{parent}/" in held for name in names for parent in _above(name)),
            "a configuration file is a directory as well",
        )
        stored: list[Chunk | ConfigEntry] = [*self.chunks, *self.config]
        for entry in stored:
            _require(_SHA256.fullmatch(entry.sha256) is not None, f"{entry.member} has no hash")
            _require(is_allowed(entry.member), f"a package has no member {entry.member!r}")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One name of a stored file. ``sha256`` is None where there was none."""

    storage: str
    name: str
    size: int | None
    sha256: str | None

    @property
    def is_missing(self) -> bool:
        """Whether a row named a file that was not there."""
        return self.size is None

    @property
    def is_absent(self) -> bool:
        """Whether there was no file and no row named one; the operation of a safety backup was about to make it."""
        return self.size == 0 and self.sha256 is None


def _above(name: str) -> Iterator[str]:
    return (str(parent) for parent in PurePosixPath(name).parents)


def chunk_name(label: str, number: int) -> str:
    return f"data/{label}/{number:05d}.jsonl.zst"


def parse_file_record(line: bytes) -> FileRecord:
    """Read one line of the list of files."""
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise PackageDamaged(f"{FILE_INDEX} has a line that is not JSON") from error
    record: FileRecord = _read(FileRecord, raw, FILE_INDEX)
    is_stored = record.size is not None and _SHA256.fullmatch(record.sha256 or "") is not None
    if not is_stored and (record.sha256 is not None or record.size):
        raise PackageDamaged(f"{FILE_INDEX} has an entry without a hash: {record.name!r}")
    if "\0" in record.name or not record.name.strip("./"):
        raise PackageDamaged(f"{FILE_INDEX} has a name that no file has: {record.name!r}")
    return record


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise PackageDamaged(f"{MANIFEST} contradicts itself: {complaint}")


def _require_known_format(raw: Any) -> None:
    found = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(found, dict) or found.get("name") != FORMAT_NAME or not isinstance(found.get("version"), int):
        raise PackageDamaged(f"{MANIFEST} does not say that this is a package")
    if found["version"] != FORMAT_VERSION:
        raise PackageUnsupported(
            f"the package has format version {found['version']}, and this code reads version {FORMAT_VERSION}",
            hint="use the release that made the package, or a newer one",
        )


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, value: Any, place: str) -> Any:
    """Turn JSON into ``kind``: a dataclass, tuple, mapping, optional or plain type, and nothing beside it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        hints = _hints(cast("type", kind))
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise PackageDamaged(f"{place} should have the keys {', '.join(sorted(hints))}")
        return kind(**{name: _read(hint, value[name], f"{place}: {name}") for name, hint in hints.items()})  # type: ignore[operator]
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, place) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(arguments[1], item, f"{place}: {key}") for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _read(arguments[0], value, place)
    if kind is datetime and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError as error:
            raise PackageDamaged(f"{place} is not a time: {value!r}") from error
    if type(value) is not kind or (kind is int and value < 0):
        raise PackageDamaged(f"{place} is not a {getattr(kind, '__name__', kind)}: {value!r}")
    return value
