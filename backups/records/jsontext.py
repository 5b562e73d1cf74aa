"""JSON as text: nothing is rounded, refused or lost that JSON can say. Knows no Django."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

MAX_DIGITS = 4000
"""Of integers that Python converts to text; 1e999999999 is JSON, and would fill the memory as an integer."""
# More digits than a float holds, what JSON has no word for, and lone surrogates: orjson rounds or refuses them.
_BEYOND_ORJSON = re.compile(r"[\d.]{16}|NaN|Infinity|\\u[dD][89a-fA-F]")


class NonFinite(float):
    """NaN or an infinity. A type of its own, which orjson refuses, where it would write a plain one as null."""


class Number:
    """A number in JSON that no float holds, as it is written. No dataclass: orjson would write one as an object."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def loads(text: str | bytes) -> Any:
    """Parse JSON text without losing digits, NaN, infinities or lone surrogates."""
    as_text = text if isinstance(text, str) else text.decode("utf-8", "surrogatepass")
    if not _BEYOND_ORJSON.search(as_text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass  # 1e400 is JSON, and no float
    return exact_loads(as_text)


def loads_many(texts: Sequence[bytes]) -> list[Any]:
    """Do what ``loads`` does for many texts at once."""
    whole = b"[%b]" % b',"\\u0001",'.join(texts)
    marks = (b"NaN", b"Infinity", b"\\ud", b"\\uD")
    if LONG_NUMBER in number_shapes(whole) or any(mark in whole for mark in marks):
        return list(map(loads, texts))
    values: list[Any] = orjson.loads(whole)
    if len(values) != 2 * len(texts) - 1 or any(mark != _BETWEEN for mark in values[1::2]):
        raise ValueError("a text that is no JSON value")
    return values[::2]


def number_shapes(text: bytes) -> bytes:
    """Write digits and points as 0, the letters of exponents as e, signs as they are, and blanks for all else.

    To look for a sequence in this takes a twentieth of the time that a pattern takes.
    """
    return text.translate(_SHAPES)


LONG_NUMBER = b"0" * 16
"""The shape of more digits than a float holds."""
_SHAPES = bytes(
    ord("0") if chr(byte) in "0123456789." else ord("e") if chr(byte) in "eE" else byte if chr(byte) in "+-" else 32
    for byte in range(256)
)


def exact_loads(text: str | bytes) -> Any:
    """Parse JSON text as ``loads`` does, in the slow way that loses nothing."""
    return json.loads(text, parse_constant=NonFinite, parse_float=_parse_float)


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write JSON: with orjson, and by the standard library what orjson would round or refuse."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        return exact_dumps(value, sort_keys=sort_keys).encode("ascii")


def dumps_many(values: Sequence[Any], *, sort_keys: bool = False) -> list[bytes]:
    """Do what ``dumps`` does for many values at once: each call of orjson costs more than a value does."""
    try:
        return plain_dumps_many(values, sort_keys=sort_keys)
    except TypeError:
        return [dumps(value, sort_keys=sort_keys) for value in values]


def plain_dumps_many(values: Sequence[Any], *, sort_keys: bool = False) -> list[bytes]:
    """Write many values as JSON. Raises ``TypeError`` where orjson would round or refuse one."""
    option = orjson.OPT_SORT_KEYS if sort_keys else None
    marked = [_BETWEEN] * (2 * len(values) - 1)
    marked[::2] = values
    found = orjson.dumps(marked, option=option)[1:-1].split(b',"\\u0001",')
    # Where a value has such a text between two others, pieces are too many.
    return found if len(found) == len(values) else [orjson.dumps(value, option=option) for value in values]


_BETWEEN = "\x01"


def exact_dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Write JSON with the standard library, which has a blank after each separator, and numbers as they were."""
    return _MARKED.sub(r"\1", json.dumps(value, sort_keys=sort_keys, default=_mark))


def canonical(value: Any) -> Any:
    """Return JSON data with one form for numbers that some engines cannot tell apart, such as 1e16 and -0.0."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, Number):
        exact = _exactly(value.text)
        is_integer = exact.is_finite() and exact.adjusted() < MAX_DIGITS and exact == exact.to_integral_value()
        return int(exact) if is_integer else value
    if type(value) is float and abs(value) >= 1e16:
        return int(Decimal(repr(value)))
    return value + 0.0 if type(value) is float else value  # -0.0 + 0.0 is 0.0


def canonical_json(values: Sequence[Any]) -> list[bytes]:
    """Write values of JSON columns as they are in contents. Raises ``TypeError`` where orjson refuses one."""
    written = plain_dumps_many(values, sort_keys=True)
    whole = b"\n".join(written)
    shapes = number_shapes(whole)
    if not any(shape in shapes for shape in (LONG_NUMBER, b"0e0", b"0e+0")) and b"-0.0" not in whole:
        return written
    return plain_dumps_many(list(map(canonical, values)), sort_keys=True)


def for_json_column(value: Any) -> str:
    """Write what a JSON column holds as text, as Django's encoder does."""
    # The text is the parameter, not the object: the field's own encoder might write the object another way.
    try:
        return _ENCODER.encode(value)
    except TypeError:  # a number that no float holds
        return exact_dumps(value)


def for_jsonb_column(value: Any) -> str:
    """Write what PostgreSQL is to read."""
    try:
        text = orjson.dumps(value)  # how it is written does not matter
    except TypeError:
        return for_json_column(value)
    # It writes numbers out, so that 1e19 comes back as an integer; 10000000000000000000.0 stays a float.
    return for_json_column(_written_out(value)) if _EXPONENT.search(text) else text.decode()


_EXPONENT = re.compile(rb"\de\+?\d")
_ENCODER = json.JSONEncoder()


def _written_out(value: Any) -> Any:
    """Return JSON data whose large floats have no exponent, and a fraction."""
    if isinstance(value, dict):
        return {key: _written_out(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written_out(item) for item in value]
    if type(value) is float and abs(value) >= 1e16:
        return Number(f"{Decimal(repr(value)):f}.0")
    return value


_MARK = uuid.uuid4().hex
_MARKED = re.compile(f'"{_MARK}([^"]+)"')


def _mark(value: Any) -> str:
    """Stand in for a value that the standard library has no way to write."""
    if isinstance(value, Number):
        return f"{_MARK}{value.text}"
    if isinstance(value, bytes | memoryview):
        raise TypeError(f"{type(value)} is no JSON value")
    return str(value.isoformat())


def _parse_float(text: str) -> float | Number:
    value = float(text)
    if math.isfinite(value) and _exactly(text) == Decimal(repr(value)):
        return value
    return Number(text)


def _exactly(text: str) -> Decimal:
    """Return what a number means; NaN where its exponent is beyond what can be told."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


EXACT_DECODER = json.JSONDecoder(parse_constant=NonFinite, parse_float=_parse_float)
"""Does what ``exact_loads`` does, for those who read a text piece by piece."""
