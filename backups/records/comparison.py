"""Two sets of rows of one model compared by identity, in bounded memory."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.db.models import Model

from backups.records.jsontext import canonical, dumps
from backups.records.pages import Page
from backups.records.record import Key, Record, parse
from backups.records.table import Table


class Scratch:
    """A private SQLite database that lives in memory until it grows, then in an unnamed temporary file.

    One thread at a time may use it.
    """

    def __init__(self) -> None:
        self.connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("PRAGMA journal_mode = OFF")  # nothing here outlives the process
        self._numbers = itertools.count()

    def new_name(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"

    def close(self) -> None:
        self.connection.close()


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the package and what becomes of it. ``ordinal`` is its place in the package.

    ``nulled`` names the references that are to become null.
    """

    ordinal: int
    identity: Key
    pk: Any
    target_pk: Any
    action: str
    nulled: Sequence[str]


_REFS = b',"refs":'
"""Within a text of JSON its quotation marks have a backslash before them."""

CREATED, CHANGED, UNCHANGED, SKIPPED = "created", "changed", "unchanged", "skipped"


class Comparison:
    """The rows of a package and of a database, one line each in ``Scratch``: identity, primary key, hash of content.

    Rows with one identity (a natural key that nothing keeps unique) are told apart by their numbers: see ``Twins``.
    """

    def __init__(self, scratch: Scratch, table: Table) -> None:
        self.table = table
        self._sql = scratch.connection
        self._package, self._target = scratch.new_name("package"), scratch.new_name("target")
        self._sql.execute(
            f"CREATE TABLE {self._package} (ordinal INTEGER PRIMARY KEY, identity BLOB, pk, hash BLOB,"
            " target_pk, action TEXT, nulled TEXT)"
        )
        self._sql.execute(f"CREATE TABLE {self._target} (ordinal INTEGER PRIMARY KEY, identity BLOB, pk, hash BLOB)")

    def fill(self, package: Side, target: Side) -> None:
        """Take both sides in and match them by identity."""
        for name, side in ((self._package, package), (self._target, target)):
            with self._transaction():
                self._sql.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?{self._padding(name)})", self._lines(side))
            self._sql.execute(f"CREATE INDEX {name}_identity ON {name} (identity)")
        if self._has_twins(self._package) or self._has_twins(self._target):
            self._tell_apart(self._package, package.twins)
            self._tell_apart(self._target, target.twins)
        self._sql.execute(
            f"UPDATE {self._package} SET target_pk = t.pk,"
            f" action = CASE WHEN t.hash = {self._package}.hash THEN '{UNCHANGED}' ELSE '{CHANGED}' END"
            f" FROM {self._target} t WHERE t.identity = {self._package}.identity"
        )
        self._sql.execute(f"UPDATE {self._package} SET action = '{CREATED}' WHERE action IS NULL")

    def count(self, action: str) -> int:
        """Count the package's rows with this action."""
        return int(self._value(f"SELECT COUNT(*) FROM {self._package} WHERE action = ?", action))

    @property
    def extra(self) -> int:
        """The rows of the database that the package does not have."""
        return int(self._value(f"SELECT COUNT(*) FROM {self._target} t WHERE {self._is_extra}"))

    def extras(self) -> Iterator[tuple[Key, Any]]:
        """Yield identity and primary key of the rows that the package does not have."""
        rows = self._sql.execute(f"SELECT identity, pk FROM {self._target} t WHERE {self._is_extra} ORDER BY ordinal")
        for identity, pk in rows:
            yield _identity(identity), _from_cell(pk)

    def pairs(self, *actions: str) -> Iterator[Pair]:
        """Yield the package's rows in their order, only those with one of ``actions`` where any is given."""
        where = f"WHERE action IN ({', '.join('?' * len(actions))})" if actions else ""
        rows = self._sql.execute(
            f"SELECT ordinal, identity, pk, target_pk, action, nulled FROM {self._package} {where} ORDER BY ordinal",
            actions,
        )
        for ordinal, identity, pk, target_pk, action, nulled in rows:
            yield Pair(
                ordinal, _identity(identity), _from_cell(pk), _from_cell(target_pk), action, (nulled or "").split()
            )

    def target_key(self, identity: list[Any]) -> Any:
        """Return the primary key of the database's row with this identity, or None."""
        row = self._sql.execute(f"SELECT pk FROM {self._target} WHERE identity = ?", (dumps(identity),)).fetchone()
        return _from_cell(row[0]) if row else None

    def extra_with(self, pk: Any) -> Key | None:
        """Return the identity of the database's row with this primary key, where the package does not have it."""
        self._index_target_keys()
        row = self._sql.execute(
            f"SELECT identity FROM {self._target} t WHERE t.pk = ? AND {self._is_extra}", (_cell(pk),)
        ).fetchone()
        return _identity(row[0]) if row else None

    def has_target_key(self, pk: Any) -> bool:
        """Return whether the database has a row with this primary key."""
        self._index_target_keys()
        return bool(self._value(f"SELECT COUNT(*) FROM {self._target} WHERE pk = ?", _cell(pk)))

    # Keys of new rows

    def keep_free_keys(self, held: HeldKeys, *, extras_stay: bool) -> Iterator[Any]:
        """Let new rows keep their primary keys where no row that stays has or holds them; yield the taken ones."""
        self._index_target_keys()
        stays = "1" if extras_stay else f"NOT ({self._is_extra})"
        taken = (
            f"(EXISTS (SELECT 1 FROM {self._target} t WHERE t.pk = p.pk AND {stays})"
            f" OR {held.has(self.table.label, 'p.pk')})"
        )
        new = f"p.action = '{CREATED}'"
        self._sql.execute(f"UPDATE {self._package} AS p SET target_pk = pk WHERE {new} AND NOT {taken}")
        rows = self._sql.execute(
            f"SELECT pk FROM {self._package} p WHERE {new} AND {taken} ORDER BY ordinal"
        ).fetchall()
        return (_from_cell(pk) for (pk,) in rows)

    def allocate(self, first: int, held: HeldKeys) -> int:
        """Give the new rows that could not keep their primary keys new ones from ``first`` on; return the next free."""
        numbered = (
            f"SELECT ordinal, ROW_NUMBER() OVER (ORDER BY ordinal) AS n FROM {self._package} WHERE target_pk IS NULL"
        )
        is_held = held.has(self.table.label, f"{self._package}.target_pk")
        while True:
            cursor = self._sql.execute(
                f"UPDATE {self._package} SET target_pk = ? + w.n - 1 FROM ({numbered}) w"
                f" WHERE w.ordinal = {self._package}.ordinal AND action = '{CREATED}'",
                (first,),
            )
            first += cursor.rowcount
            cursor = self._sql.execute(
                f"UPDATE {self._package} SET target_pk = NULL WHERE action = '{CREATED}' AND {is_held}"
            )
            if not cursor.rowcount:
                return first

    def derive_keys(self, derive: Callable[[Any], Any]) -> None:
        """Give new rows whose primary key is made of references the key that follows from them."""
        self._sql.create_function("derived", 1, lambda pk: _cell(derive(_from_cell(pk))))
        self._sql.execute(f"UPDATE {self._package} SET target_pk = derived(pk) WHERE action = '{CREATED}'")

    def will_be_used(self, pk: Any, *, extras_stay: bool) -> bool:
        """Return whether a row of the target will have this primary key."""
        self._index_target_keys()
        self._sql.execute(f"CREATE INDEX IF NOT EXISTS {self._package}_target ON {self._package} (target_pk)")
        cell = _cell(pk)
        if self._value(f"SELECT COUNT(*) FROM {self._package} WHERE target_pk = ? AND action <> '{SKIPPED}'", cell):
            return True
        stays = "1" if extras_stay else f"NOT ({self._is_extra})"
        return bool(self._value(f"SELECT COUNT(*) FROM {self._target} t WHERE t.pk = ? AND {stays}", cell))

    def skip(self, ordinal: int) -> None:
        self._sql.execute(f"UPDATE {self._package} SET action = '{SKIPPED}' WHERE ordinal = ?", (ordinal,))

    def set_null(self, ordinal: int, field: str) -> None:
        """Note that a reference of a row is to become null, which makes it differ from the package."""
        self._sql.execute(
            f"UPDATE {self._package} SET nulled = COALESCE(nulled || ' ', '') || ? WHERE ordinal = ?", (field, ordinal)
        )

    def largest_key(self) -> int:
        """Return the largest primary key on either side, 0 where there is none. For integer keys."""
        largest = f"SELECT MAX(pk) AS pk FROM {self._package} UNION ALL SELECT MAX(pk) FROM {self._target}"
        return self._value(f"SELECT MAX(pk) FROM ({largest})") or 0

    def key_map(self) -> KeyMap:
        """Return the primary keys that change, once every row has its target key."""
        changed = "target_pk IS NOT NULL AND target_pk IS NOT pk"
        self._sql.execute(f"CREATE INDEX IF NOT EXISTS {self._package}_pk ON {self._package} (pk) WHERE {changed}")
        return KeyMap(self._sql, self._package, changed)

    def drop(self) -> None:
        """Forget both sides."""
        for name in (self._package, self._target):
            self._sql.execute(f"DROP TABLE {name}")

    @property
    def _is_extra(self) -> str:
        same = f"SELECT 1 FROM {self._package} x WHERE x.identity = t.identity"
        return f"NOT EXISTS ({same} AND x.action IS NOT '{SKIPPED}')"

    def _index_target_keys(self) -> None:
        self._sql.execute(f"CREATE INDEX IF NOT EXISTS {self._target}_pk ON {self._target} (pk)")

    def _lines(self, side: Side) -> Iterator[tuple[int, bytes, Any, bytes]]:
        table = self.table
        for ordinal, record in enumerate(side.records):
            content = side.twins.content(table, record) if side.twins else table.content(record)
            yield ordinal, dumps(table.identity_of(record)), _cell(record.pk), _hash(content)

    def _has_twins(self, name: str) -> bool:
        rows = self._sql.execute(f"SELECT 1 FROM {name} GROUP BY identity HAVING COUNT(*) > 1 LIMIT 1")
        return rows.fetchone() is not None

    def _tell_apart(self, name: str, twins: Twins | None) -> None:
        numbers = twins.numbers(self.table) if twins else {}
        self._sql.create_function("number", 1, numbers.get)
        self._sql.execute(
            f"UPDATE {name} SET identity = CAST(identity || '#' || number(pk) AS BLOB) WHERE number(pk) IS NOT NULL"
        )

    def _padding(self, name: str) -> str:
        return ", NULL, NULL, NULL" if name == self._package else ""

    def _transaction(self) -> sqlite3.Connection:
        self._sql.execute("BEGIN")
        return self._sql

    def _value(self, sql: str, *parameters: Any) -> Any:
        return self._sql.execute(sql, parameters).fetchone()[0]


class HeldKeys:
    """Primary keys, by model, that rows that stay hold of rows that go or are gone: no other row may get them."""

    def __init__(self, scratch: Scratch) -> None:
        self._sql = scratch.connection
        self.name = scratch.new_name("held")
        self._sql.execute(f"CREATE TABLE {self.name} (label TEXT, pk, PRIMARY KEY (label, pk)) WITHOUT ROWID")

    def add(self, label: str, pk: Any) -> None:
        self._sql.execute(f"INSERT OR IGNORE INTO {self.name} VALUES (?, ?)", (label, _cell(pk)))

    def has_any(self, label: str) -> bool:
        """Return whether a key of a model is held."""
        rows = self._sql.execute(f"SELECT 1 FROM {self.name} WHERE label = ? LIMIT 1", (label,))
        return rows.fetchone() is not None

    def has(self, label: str, pk: str) -> str:
        """Write the condition that a key of a model, in the column ``pk``, is held."""
        return f"EXISTS (SELECT 1 FROM {self.name} h WHERE h.label = '{label}' AND h.pk = {pk})"


class KeyMap:
    """Primary keys of the package that are others in the target. Only those that change are in it."""

    LIMIT = 200_000
    """Up to so many are held in memory, some 20 MB; beyond, each is looked up."""

    def __init__(self, sql: sqlite3.Connection, name: str, condition: str) -> None:
        self._sql = sql
        self._statement = f"SELECT target_pk FROM {name} WHERE pk = ? AND {condition}"
        self._known: dict[Any, Any] = {}
        self.size: int = sql.execute(f"SELECT COUNT(*) FROM {name} WHERE {condition}").fetchone()[0]
        if self.size <= self.LIMIT:
            self._known = dict(sql.execute(f"SELECT pk, target_pk FROM {name} WHERE {condition}"))

    @property
    def numbers(self) -> dict[Any, Any] | None:
        """The keys that change, where all are in memory and integers."""
        is_plain = self.size <= self.LIMIT and all(type(key) is int for key in self._known.values())
        return self._known if is_plain else None

    def get(self, pk: Any) -> Any:
        """Return the target's primary key of the row that the package knows by ``pk``."""
        if not self.size:
            return pk
        cell = _cell(pk)
        if self.size <= self.LIMIT:
            return _from_cell(self._known[cell]) if cell in self._known else pk
        row = self._sql.execute(self._statement, (cell,)).fetchone()
        return _from_cell(row[0]) if row else pk


class Twins:
    """Tells apart, on one side, the rows of an identity that nothing keeps unique: the later ones have a number.

    A row of the database has the number of the row of ``package`` that it is: the one of the same content, failing
    that of the same primary key, failing that the only one where it is the only one as well. Any other row of the
    identity is one that the package does not have, so that nothing overwrites it.
    """

    def __init__(
        self, scratch: Scratch, read: Callable[[Table], Iterable[Record]], package: Twins | None = None
    ) -> None:
        self._scratch = scratch
        self._read = read
        self._package = package
        self._rows: dict[type[Model], str] = {}
        self._numbers: dict[type[Model], dict[Any, int]] = {}
        self._are_possible: dict[type[Model], bool] = {}

    def content(self, table: Table, record: Record) -> bytes:
        """Write what a row says, with the number of each twin that it refers to."""
        return table.content(record, self._referred(table, record) if table.may_refer_to_twins else {})

    def numbers(self, table: Table) -> dict[Any, int]:
        """Return the numbers above 1, by primary key as ``Scratch`` holds it."""
        if table.model not in self._numbers:
            rows = self.rows(table)
            numbered = self._scratch.connection.execute(f"SELECT pk, number FROM {rows} WHERE number > 1")
            self._numbers[table.model] = dict(numbered)
        return self._numbers[table.model]

    def rows(self, table: Table) -> str:
        """Return the name of a table in ``Scratch`` with the numbered rows of a table."""
        if table.model not in self._rows:
            sql, name = self._scratch.connection, self._scratch.new_name("twins")
            sql.execute(f"CREATE TABLE {name} (pk, identity BLOB, hash BLOB, number INTEGER)")
            lines = (
                (_cell(record.pk), dumps(table.identity_of(record)), _hash(table.content(record)))
                for record in self._read(table)
            )
            sql.executemany(f"INSERT INTO {name} (pk, identity, hash) VALUES (?, ?, ?)", lines)
            sql.execute(f"CREATE INDEX {name}_identity ON {name} (identity, number)")
            if self._package is not None:
                _pair(sql, self._package.rows(table), name)
            _number(sql, name, self._package.rows(table) if self._package else None)
            self._rows[table.model] = name
        return self._rows[table.model]

    def _referred(self, table: Table, record: Record) -> dict[str, int]:
        numbers = {}
        for name, model, pk in table.referred(record):
            if self._may_be(model) and (number := self.numbers(Table(model)).get(_cell(pk))):
                numbers[name] = number
        return numbers

    def _may_be(self, model: type[Model]) -> bool:
        if model not in self._are_possible:
            self._are_possible[model] = Table(model).may_have_twins
        return self._are_possible[model]


@dataclass(frozen=True)
class Side:
    """One of the two sets of rows: the records, and what tells apart those that share an identity."""

    records: Iterable[Record]
    twins: Twins | None = None


def _pair(sql: sqlite3.Connection, package: str, target: str) -> None:
    """Give rows of a database the numbers of the rows of a package that they are, the surest first."""
    used = f"SELECT 1 FROM {target} t WHERE t.identity = p.identity AND t.number = p.number"
    for same in ("identity, hash, pk", "identity, hash", "identity, pk"):
        window = f"ROW_NUMBER() OVER (PARTITION BY {same} ORDER BY pk) AS place"
        sql.execute(
            f"UPDATE {target} SET number = pair.number FROM ("
            f" SELECT theirs.number, ours.line FROM"
            f" (SELECT number, {same}, {window} FROM {package} p WHERE NOT EXISTS ({used})) theirs"
            f" JOIN (SELECT rowid AS line, {same}, {window} FROM {target} WHERE number IS NULL) ours"
            f" USING ({same}, place)) pair WHERE pair.line = {target}.rowid"
        )
    single = f"identity = {target}.identity GROUP BY identity HAVING COUNT(*) = 1"
    sql.execute(
        f"UPDATE {target} SET number = 1 WHERE number IS NULL AND EXISTS (SELECT 1 FROM {package} p WHERE p.{single})"
        f" AND EXISTS (SELECT 1 FROM {target} t WHERE t.{single})"
    )


def _number(sql: sqlite3.Connection, name: str, package: str | None) -> None:
    """Number the rows of each identity that have no number yet, in their order, after those of the package."""
    first = f"(SELECT COUNT(*) FROM {package} p WHERE p.identity = {name}.identity)" if package else "0"
    place = f"SELECT rowid AS line, ROW_NUMBER() OVER (PARTITION BY identity ORDER BY pk) AS n FROM {name}"
    sql.execute(
        f"UPDATE {name} SET number = {first} + w.n FROM ({place} WHERE number IS NULL) w WHERE w.line = {name}.rowid"
    )


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _cell(pk: Any) -> Any:
    """A primary key as SQLite holds it: a composite one or one of 64 bits as JSON, another type as JSON has it."""
    if isinstance(pk, list) or (type(pk) is int and pk >= 2**63):
        return dumps(pk)
    return pk if pk is None or isinstance(pk, int | float | str) else json.loads(dumps(pk))


def _identity(cell: bytes) -> Key:
    """Read an identity back, less the mark that tells equal ones apart."""
    return list(json.loads(cell[: cell.rindex(b"]") + 1]))


def _from_cell(cell: Any) -> Any:
    return json.loads(cell) if isinstance(cell, bytes) else cell


class LinesInOrder:
    """The lines of a package beside those of a table, in the order of their primary keys.

    Far faster than a comparison by identity, where it applies: lines that are equal, which nearly all are, are not
    even looked at one by one. It proves that every row is there with its content, with the primary key and the keys in
    its references that ``expected_keys`` gives; that something else is there is all that it says otherwise.
    ``moved`` has, by reference, the keys of ``refs`` that change, where nothing else on a line may; else None.
    """

    def __init__(
        self,
        blocks: Iterable[bytes],
        table: Table,
        expected_keys: Callable[[Record], tuple[Any, dict[str, Any]]],
        moved: Mapping[str, Mapping[Any, Any]] | None = None,
    ) -> None:
        self._blocks = iter(blocks)
        self._table = table
        self._expected_keys = expected_keys
        self._moved = moved
        self._data, self._position = b"", 0

    def are_next(self, page: Page) -> bool:
        """Return whether the lines that follow mean the same rows as those of a page."""
        block = page.block
        self._have(len(block))
        if self._data.startswith(block, self._position):
            self._position += len(block)
            return True
        differing = [pair for pair in zip(self._take(page.rows), page.lines, strict=True) if pair[0] != pair[1]]
        return self._have_only_moved(differing) or all(itertools.starmap(self._is_same, differing))

    @property
    def are_all(self) -> bool:
        """Whether no line is left."""
        self._have(1)
        return self._position == len(self._data)

    def _have(self, size: int) -> None:
        """Read on until there are so many bytes, or all."""
        while len(self._data) - self._position < size and (block := next(self._blocks, None)) is not None:
            self._data = self._data[self._position :] + block
            self._position = 0

    def _take(self, count: int) -> list[bytes]:
        """Return the next lines, and ones that no row is like in the place of those that are not there."""
        lines: list[bytes] = []
        while len(lines) < count:
            self._have(1)
            end = self._data.find(b"\n", self._position)
            if end < 0:
                return [*lines, *[b""] * (count - len(lines))]
            lines.append(self._data[self._position : end])
            self._position = end + 1
        return lines

    def _have_only_moved(self, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether lines are known to differ in no more than the keys in ``refs``, and these as they should.

        Where the rows of a baseline have other keys, that is every line that refers to one: a third of the time of
        parsing them.
        """
        if self._moved is None or not pairs:
            return False
        heads, refs = _refs_apart([line for line, _ in pairs])
        found_heads, found_refs = _refs_apart([line for _, line in pairs])
        if not refs or heads != found_heads:
            return False
        for name, keys in self._moved.items():
            for held in refs:
                if name in held:
                    held[name] = keys.get(held[name], held[name])
        return refs == found_refs

    def _is_same(self, line: bytes, found_line: bytes) -> bool:
        if not line:
            return False
        table = self._table
        expected, found = parse(line, table.label), parse(found_line, table.label)
        if table.content_in(line, expected) != table.content_in(found_line, found):
            return False
        pk, references = self._expected_keys(expected)
        return _cell(pk) == _cell(found.pk) and all(
            _cell(value) == _cell(found.refs.get(name, found.fields[name])) for name, value in references.items()
        )


def _refs_apart(lines: Sequence[bytes]) -> tuple[list[bytes], list[dict[str, int]]]:
    """Return what stands before the ``refs`` of each line, and these; nothing where a line does not end with them."""
    parted = [line.rpartition(_REFS) for line in lines]
    tails = [tail[:-1] for _, _, tail in parted]  # less the end of the line's own object
    written = b",".join(tails)
    # With as many objects as lines, and one at the beginning of each, none is within or across others.
    if written.count(b"{") != len(tails) or not all(tail.startswith(b"{") for tail in tails):
        return [], []
    try:
        refs = orjson.loads(b"[" + written + b"]")
    except ValueError:
        return [], []
    is_plain = len(refs) == len(tails) and all(type(key) is int for held in refs for key in held.values())
    return ([head for head, _, _ in parted], refs) if is_plain else ([], [])


def differing_fields(expected: Record, found: Record, table: Table) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, expected and found value of what two rows of one identity do not have in common.

    Where nothing shows, the rows refer to different ones that share an identity: their keys are told.
    """
    expected, found = (_as_read(record, table) for record in (expected, found))
    if table.key_is_content and expected.pk != found.pk:
        yield table.key_name, expected.pk, found.pk
    names = sorted(expected.fields.keys() | found.fields.keys())
    differing = [name for name in names if _side(expected, name, table) != _side(found, name, table)]
    for name in differing:
        was, is_now = (record.keys.get(name, record.fields.get(name)) for record in (expected, found))
        if was == is_now:
            was, is_now = (record.fields.get(name) for record in (expected, found))
        yield name, was, is_now
    if not differing:
        for name in expected.refs:
            if expected.refs[name] != found.refs.get(name):
                yield name, [*expected.fields[name], expected.refs[name]], [*found.fields[name], found.refs.get(name)]


def _as_read(record: Record, table: Table) -> Record:
    return parse(record.line(table.label), table.label)


def _side(record: Record, name: str, table: Table) -> bytes:
    """All that one field says: present or not, its value or identity, and which null."""
    value = record.keys[name] if name in record.keys else record.fields.get(name)
    value = canonical(value) if name in table.json_fields else value
    zeros = table.zeros(record, name)
    return dumps([name in record.fields, name in record.keys, value, zeros, name in record.json_null], sort_keys=True)
