"""Django fixtures as streams of objects: JSON, JSONL, XML and YAML, none of them held in memory whole.

Only what a file says is read here; what it means is for those who know the models. Whatever cannot be read raises
``PackageDamaged`` with the line or the number of the object.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, TextIO, cast
from xml.parsers import expat

from backups.errors import BackupError, PackageDamaged
from backups.package.bounds import MAX_OBJECT_CHARACTERS, require_few_values

READ_CHARACTERS = 64 * 1024
MAX_DEPTH = 64
"""Of nested collections in YAML, and of elements in XML. Fixtures of deeper JSON columns exist in JSON alone."""
MAX_NODES = 1_000_000
"""In one object of YAML or XML, which has as many as its fields, and its JSON."""
MAX_TAG_BYTES = 1024 * 1024
"""Of XML without an end in sight, which its parser reads again and again."""
XML_VERSION = "1.0"

_BLANK = " \t\r\n"
_BLANKS = re.compile(f"[{_BLANK}]*")


@dataclass(frozen=True, slots=True)
class FixtureObject:
    """One object of a fixture. ``place`` says where it is.

    A reference among ``fields`` is a list where it is a natural key, and else a primary key; a many-to-many is a list
    of these. With ``text``, which XML gives, every value is text and only its field knows of what type.
    """

    place: str
    model: str
    pk: Any
    has_pk: bool
    fields: Mapping[str, Any]
    text: bool = False


Reader = Callable[[BinaryIO, json.JSONDecoder], Iterator[FixtureObject]]


def detect_format(beginning: bytes) -> str | None:
    """Tell the format of a fixture from its first bytes. None where it is none that Django writes."""
    text = beginning.decode(_encoding(beginning), "ignore").lstrip("\ufeff" + _BLANK)
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl"
    if text.startswith(("<?xml", "<django-objects")):
        return "xml"
    if text.startswith(("- ", "-\n", "---", "%YAML", "#")):
        return "yaml"
    return None


def read_objects(stream: BinaryIO, form: str, decoder: json.JSONDecoder) -> Iterator[FixtureObject]:
    """Read the objects of a fixture in the format that ``detect_format`` told. ``decoder`` is for JSON."""
    return _READERS[form](stream, decoder)


# JSON


class _Text:
    """A window on a text that is read as far as it is needed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.buffer = ""
        self.position = 0
        self.line = 1
        self.ended = False

    def more(self) -> bool:
        """Read on; a window that has to grow doubles, so that a large object is not parsed too often."""
        pending = len(self.buffer) - self.position
        if pending > MAX_OBJECT_CHARACTERS:
            raise PackageDamaged(f"line {self.line}: an object has more than {MAX_OBJECT_CHARACTERS} characters")
        try:
            data = self._stream.read(max(READ_CHARACTERS, pending))
        except UnicodeDecodeError as error:
            raise PackageDamaged(f"after line {self.line}: the text is not UTF-8") from error
        require_few_values(self.buffer, f"line {self.line}: an object")
        self.line += self.buffer.count("\n", 0, self.position)
        self.buffer, self.position = self.buffer[self.position :] + data, 0
        self.ended = not data
        return bool(data)

    def next_character(self) -> str:
        """Skip blanks and return the next character without taking it; empty at the end."""
        while True:
            self.position = cast("re.Match[str]", _BLANKS.match(self.buffer, self.position)).end()
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if not self.more():
                return ""

    def line_at(self, position: int) -> int:
        return self.line + self.buffer.count("\n", 0, position)

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Parse the JSON value that begins here."""
        while True:
            try:
                value, self.position = decoder.raw_decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                if not self._is_cut(error) or not self.more():
                    raise PackageDamaged(f"line {self.line_at(error.pos)}: {_lower(error.msg)}") from error
            except (ValueError, RecursionError) as error:  # a number with more digits than Python converts
                raise PackageDamaged(f"line {self.line_at(self.position)}: {error}") from error
            else:
                return value

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the value may only seem wrong because the window ends inside it."""
        # The longest token that is reported by its beginning, strings apart, is -Infinity; an escape is \uD83D\uDE00.
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - 16


def _read_json(stream: BinaryIO, decoder: json.JSONDecoder) -> Iterator[FixtureObject]:
    with _as_text(stream) as whole:
        text = _Text(whole)
        _expect(text, "[")
        if text.next_character() == "]":
            text.position += 1
        else:
            yield from _items(text, decoder)
        if text.next_character():
            raise PackageDamaged(f"line {text.line_at(text.position)}: something follows the end of the list")


def _items(text: _Text, decoder: json.JSONDecoder) -> Iterator[FixtureObject]:
    number = 0
    while True:
        text.next_character()
        number += 1
        place = f"object {number}, line {text.line_at(text.position)}"
        yield _object(text.value(decoder), place)
        if text.next_character() == "]":
            text.position += 1
            return
        _expect(text, ",")


def _expect(text: _Text, character: str) -> None:
    if (found := text.next_character()) != character:
        what = repr(found) if found else "the end of the file"
        raise PackageDamaged(f"line {text.line_at(text.position)}: {character!r} should be here, not {what}")
    text.position += 1


def _read_jsonl(stream: BinaryIO, decoder: json.JSONDecoder) -> Iterator[FixtureObject]:
    number = 0
    try:
        with _as_text(stream) as text:
            while line := text.readline(MAX_OBJECT_CHARACTERS):
                number += 1
                require_few_values(line, f"line {number}")
                if line.strip():
                    yield _object(decoder.decode(line), f"line {number}")
    except UnicodeDecodeError as error:
        raise PackageDamaged(f"after line {number}: the text is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise PackageDamaged(f"line {number}: {_lower(error.msg)}") from error
    except (ValueError, RecursionError) as error:
        raise PackageDamaged(f"line {number}: {error}") from error


def _object(value: Any, place: str) -> FixtureObject:
    """Take what Django's serialisers for Python data make of an object, and nothing else."""
    if not isinstance(value, dict):
        raise PackageDamaged(f"{place}: not an object of a fixture")
    model, fields = value.get("model"), value.get("fields", {})
    if not isinstance(model, str) or model.count(".") != 1 or not isinstance(fields, dict):
        raise PackageDamaged(f"{place}: not an object of a fixture, which has a model and fields")
    if not all(isinstance(name, str) for name in fields):
        raise PackageDamaged(f"{place}: a field's name is not text")
    # loaddata, too, takes null for no primary key.
    return FixtureObject(place, model.lower(), value.get("pk"), value.get("pk") is not None, fields)


# YAML


def _read_yaml(stream: BinaryIO, _: json.JSONDecoder) -> Iterator[FixtureObject]:
    try:
        import yaml
    except ImportError as error:
        raise BackupError("reading YAML needs PyYAML", hint="pip install edms[yaml]") from error
    number = 0
    with _as_text(stream) as text:
        loader: Any = None
        try:
            loader = _yaml_loader(yaml)(text)
            loader.get_event()  # the stream's beginning
            if loader.check_event(yaml.StreamEndEvent):
                return
            loader.get_event()  # the document's
            _require_event(loader, yaml.SequenceStartEvent, "not a list of objects")
            loader.get_event()
            while not loader.check_event(yaml.SequenceEndEvent):
                number += 1
                place = f"object {number}, line {loader.peek_event().start_mark.line + 1}"
                node = loader.compose_node(None, number)
                _require_shallow(node, place)
                yield _object(loader.construct_document(node), place)
            loader.get_event()
            loader.get_event()
            _require_event(loader, yaml.StreamEndEvent, "something follows the end of the list")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"line {mark.line + 1}" if mark else f"object {number}"
            raise PackageDamaged(f"{place}: {error.problem or error.context}") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # whatever PyYAML trips over
            raise PackageDamaged(f"after object {number}: a value does not fit its tag") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise PackageDamaged(f"after object {number}: {error}") from error
        finally:
            if loader is not None:
                loader.dispose()


def _yaml_loader(yaml: Any) -> Any:
    """Return a safe loader whose objects can be composed one by one, on top of libyaml where that is there."""
    if not hasattr(yaml, "CSafeLoader"):
        return yaml.SafeLoader

    class Loader(yaml.composer.Composer, yaml.CSafeLoader):  # type: ignore[misc]
        def __init__(self, stream: TextIO) -> None:
            yaml.CSafeLoader.__init__(self, stream)
            yaml.composer.Composer.__init__(self)

    return Loader


def _require_event(loader: Any, kind: type, complaint: str) -> None:
    if not loader.check_event(kind):
        raise PackageDamaged(f"line {loader.peek_event().start_mark.line + 1}: {complaint}")


def _require_shallow(node: Any, place: str) -> None:
    """Refuse an object whose aliases multiply, or that nests too deep."""
    budget = MAX_NODES

    def count(one: Any, depth: int) -> None:
        nonlocal budget
        budget -= 1
        if depth > MAX_DEPTH or budget < 0:
            raise PackageDamaged(f"{place}: nested too deep, or too large through aliases")
        if isinstance(one.value, list):
            for item in one.value:
                for part in item if isinstance(item, tuple) else (item,):
                    count(part, depth + 1)

    count(node, 0)


# XML


class _Element:
    __slots__ = ("attributes", "children", "name", "place", "text")

    def __init__(self, name: str, attributes: dict[str, str], place: str) -> None:
        self.name = name
        self.attributes = attributes
        self.place = place
        self.text: list[str] = []
        self.children: list[_Element] = []


class _XmlParser:
    """Builds one small tree for each object. A DTD is refused, and with it every entity of its own."""

    def __init__(self) -> None:
        self.objects: list[_Element] = []
        self._open: list[_Element] = []
        self._number = 0
        self._size = 0
        self._nodes = 0
        self._silent = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.CommentHandler = self._parser.ProcessingInstructionHandler = self._skip
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse
        self._parser.ExternalEntityRefHandler = self._refuse

    def feed(self, data: bytes, *, final: bool) -> list[_Element]:
        self._silent += len(data)
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            raise PackageDamaged(f"line {error.lineno}: {expat.ErrorString(error.code)}") from error
        except (LookupError, ValueError) as error:  # the encoding that the text says it is in
            raise PackageDamaged(f"line {self._parser.CurrentLineNumber}: {error}") from error
        if self._silent > MAX_TAG_BYTES:
            raise PackageDamaged(f"line {self._parser.CurrentLineNumber}: a tag or comment is too long")
        complete, self.objects = self.objects, []
        return complete

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        self._silent = 0
        self._nodes += 1
        if len(self._open) > MAX_DEPTH or self._nodes > MAX_NODES:
            raise PackageDamaged(f"line {line}: an object is nested too deep, or too large")
        if not self._open:
            if name != "django-objects" or attributes.get("version") != XML_VERSION:
                raise PackageDamaged(f'line {line}: not a package or fixture: not <django-objects version="1.0">')
        elif len(self._open) == 1:
            self._number += 1
            self._size = self._nodes = 0
        element = _Element(name, attributes, f"object {self._number}, line {line}")
        if len(self._open) > 1:
            self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._silent = 0
        element = self._open.pop()
        if len(self._open) == 1:
            self.objects.append(element)

    def _skip(self, *_: Any) -> None:
        self._silent = 0

    def _characters(self, data: str) -> None:
        self._silent = 0
        self._size += len(data)
        if self._size > MAX_OBJECT_CHARACTERS:
            raise PackageDamaged(f"line {self._parser.CurrentLineNumber}: an object is too large")
        if len(self._open) > 1:
            self._open[-1].text.append(data)

    def _refuse(self, *_: Any) -> NoReturn:
        raise PackageDamaged(f"line {self._parser.CurrentLineNumber}: a fixture has no document type and no entities")


def _read_xml(stream: BinaryIO, _: json.JSONDecoder) -> Iterator[FixtureObject]:
    parser = _XmlParser()
    while data := stream.read(READ_CHARACTERS):
        yield from map(_xml_object, parser.feed(data, final=False))
    yield from map(_xml_object, parser.feed(b"", final=True))


def _xml_object(element: _Element) -> FixtureObject:
    model = element.attributes.get("model", "")
    if element.name != "object" or model.count(".") != 1:
        raise PackageDamaged(f"{element.place}: not an object of a fixture")
    fields = {}
    for field in element.children:
        if field.name != "field" or "name" not in field.attributes:
            raise PackageDamaged(f"{field.place}: not a field of an object")
        fields[field.attributes["name"]] = _xml_value(field)
    pk = element.attributes.get("pk")
    return FixtureObject(element.place, model.lower(), pk, pk is not None, fields, text=True)


def _xml_value(field: _Element) -> Any:
    """Read a value: text, None, a natural key as a list, or the list of a many-to-many."""
    if field.attributes.get("rel") == "ManyToManyRel":
        return [_natural_key(one) if one.children else one.attributes.get("pk") for one in field.children]
    if [one.name for one in field.children] == ["None"]:
        return None
    if field.children:
        return _natural_key(field)
    return "".join(field.text)


def _natural_key(element: _Element) -> list[str]:
    if any(one.name != "natural" for one in element.children):
        raise PackageDamaged(f"{element.place}: holds something that is no value")
    return ["".join(one.text) for one in element.children]


def _encoding(beginning: bytes) -> str:
    """Return the encoding that a byte order mark names: shells write UTF-16, and editors mark UTF-8."""
    return "utf-16" if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _as_text(stream: BinaryIO) -> io.TextIOWrapper:
    buffered = io.BufferedReader(cast("io.RawIOBase", stream))
    # No translation of line ends: within values they are escaped, and between them blanks.
    return io.TextIOWrapper(buffered, encoding=_encoding(buffered.peek(4)), newline="\n")


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


_READERS: dict[str, Reader] = {"json": _read_json, "jsonl": _read_jsonl, "xml": _read_xml, "yaml": _read_yaml}
