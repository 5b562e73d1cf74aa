"""Whether a table holds the lines of a package, without a look at each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from backups.records.pages import Page
from backups.records.record import Record, parse
from backups.records.scratch import as_cell
from backups.records.table import Table

_REFS = b',"refs":'
"""Within a text of JSON its quotation marks have a backslash before them."""


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
        return as_cell(pk) == as_cell(found.pk) and all(
            as_cell(value) == as_cell(found.refs.get(name, found.fields[name])) for name, value in references.items()
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
