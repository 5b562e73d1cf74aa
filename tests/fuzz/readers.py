"""Everything that reads what a stranger may have written, as functions of bytes, each with something to begin from."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.apps import apps

from backups.package import age, passphrase
from backups.package.container import SIGNATURE, ContainerWriter
from backups.package.fixtures import read_objects
from backups.package.foreign import ForeignMember, contents, recognise
from backups.package.manifest import Manifest, parse_file_record
from backups.package.reader import PackageReader
from backups.package.signature import Signature
from backups.package.survey import survey
from backups.records.jsontext import EXACT_DECODER
from backups.records.record import parse
from backups.records.table import Table
from backups.reporting import NoProgress
from backups.services.inspect import inspect
from backups.services.keys import Keys
from tests.package.conftest import write

GOLDEN = Path(__file__).parent.parent / "golden"
WORDS = "correct horse"
LABEL = "core.auditevent"  # has JSON, a foreign key and a generic one


@dataclass(frozen=True)
class Reader:
    """``read`` raises nothing but ``BackupError``; with ``exact``, for everything but the seeds."""

    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    exact: bool = False


def readers(directory: Path) -> dict[str, Reader]:
    """Return the readers by name. Their files are in ``directory``."""
    path = directory / "input"
    identity = pyrage.x25519.Identity.generate()
    key = Ed25519PrivateKey.generate()
    passphrase.WORK_FACTOR = 1  # a second for each of thousands is too long
    passphrase.MAX_WORK_FACTOR = 3

    def on_disk(read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def call(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return call

    plain, signed = _package(directory), _package(directory, key)
    manifest, signature = _members(plain, directory)["manifest.json"], _members(signed, directory)[SIGNATURE]
    locked = io.BytesIO()
    passphrase.encrypt(io.BytesIO(plain), locked, WORDS)
    fixture = gzip.decompress((GOLDEN / "fixture-pk.json.gz").read_bytes())
    xml = gzip.decompress((GOLDEN / "fixture-natural.xml.gz").read_bytes())
    objects = json.loads(fixture)
    lines = [json.dumps(one).encode() for one in objects]
    yaml = "".join(f"- model: {one['model']}\n  pk: 1\n  fields: {json.dumps(one['fields'])}\n" for one in objects)
    hostile = [one.read_bytes() for one in sorted((GOLDEN / "hostile").iterdir()) if "bomb" not in one.name]
    archive = (GOLDEN / "migration-package.tar.gz").read_bytes()
    chunk = _members(plain, directory)["data/app.thing/00000.jsonl.zst"]
    index = b'{"name":"a","sha256":null,"size":null,"storage":"x"}'
    dates = [b"2026-01-01", b"null", b"NaN", b"1e400", b"\\ud800"]
    parts = [
        b"[]",
        b"{}",
        b"null",
        b"1",
        b'"refs":',
        b'"keys":',
        b'"json_null":',
        b"NaN",
        b"1e400",
        b'"x"',
        b"-1",
        b"1e9",
    ]
    tags = [b"<object>", b"</object>", b'<field rel="ManyToManyRel">', b"<natural>", b"<None/>", b"<![CDATA[", b"<!--"]
    signs = [b"!!python/object:x", b"&a", b"*a", b"<<:", b"---", b"!!int", b"!!binary"]
    magic = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"]\0\0", b"PK\1\2", b"PK\3\4", b"\xff" * 8]
    return {
        "package": Reader(on_disk(_check), [plain, signed], magic, exact=True),
        "survey": Reader(lambda data: str(survey(io.BytesIO(data))), [plain, signed], magic),
        "manifest": Reader(Manifest.from_json, [manifest], parts),
        "signature": Reader(
            lambda data: Signature.from_bytes(data).require_valid(manifest), [signature], [b"AAAA", b"\n"], exact=True
        ),
        "chunk": Reader(on_disk(_chunk), [chunk], [b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"]),
        "index": Reader(parse_file_record, [index], [*parts, b'"' + b"0" * 64 + b'"']),
        "record": Reader(_record, _lines(LABEL)[:5], parts),
        "age": Reader(_age(identity), [pyrage.encrypt(plain, [identity.to_public()])], [b"-> X25519 "], exact=True),
        "passphrase": Reader(_passphrase, [locked.getvalue()], [b"-> scrypt ", b" 22\n", b" 63\n"], exact=True),
        "json": Reader(_fixture("json"), [fixture[:4000] + b"]", b"[" + lines[0] + b"," + lines[-1] + b"]"], dates),
        "jsonl": Reader(_fixture("jsonl"), [b"\n".join(lines[-8:])], dates),
        "xml": Reader(_fixture("xml"), [xml[:4000], xml[:1500] + b"</django-objects>"], tags),
        "yaml": Reader(_fixture("yaml"), [yaml[:3000].encode()], signs),
        "archive": Reader(on_disk(_archive), [_tar(), gzip.compress(_tar()), archive], [b"\0" * 512, b"L", b"x", b"S"]),
        "anything": Reader(on_disk(_inspect), [*hostile, plain, fixture[:3000], xml[:3000]], magic),
    }


def _age(identity: pyrage.x25519.Identity) -> Callable[[bytes], None]:
    return lambda data: age.decrypt(io.BytesIO(data), io.BytesIO(), [identity])


def _passphrase(data: bytes) -> None:
    passphrase.decrypt(io.BytesIO(data), io.BytesIO(), WORDS)


def _package(directory: Path, key: Ed25519PrivateKey | None = None) -> bytes:
    write(directory / "seed.zip", key=key)
    return (directory / "seed.zip").read_bytes()


def _members(package: bytes, directory: Path) -> dict[str, bytes]:
    (directory / "seed.zip").write_bytes(package)
    with PackageReader(directory / "seed.zip") as reader:
        return {name: b"".join(reader._container.chunks(name)) for name in reader._container.members}


def _lines(label: str) -> list[bytes]:
    with PackageReader(GOLDEN / "edms-package-1.zip") as reader:
        return list(reader.lines(label))


def _check(path: Path) -> None:
    with PackageReader(path) as package:
        package.check(NoProgress())


def _chunk(path: Path) -> None:
    """Put bytes where a chunk belongs, under hashes that fit."""
    data = path.read_bytes()
    manifest = write(path)
    (model,) = manifest.models
    chunk = replace(model.chunks[0], size=len(data), sha256=hashlib.sha256(data).hexdigest())
    nothing = replace(manifest.files, count=0, missing=0, bytes=0, index=None)
    changed = replace(manifest, models=(replace(model, rows=chunk.rows, chunks=(chunk,)),), files=nothing, config=())
    with path.open("wb") as file:
        writer = ContainerWriter(file)
        writer.add(chunk.member, len(data), zlib.crc32(data), [data])
        writer.finish(replace(changed, id=changed.derived_id()).to_json())
    _check(path)


def _record(data: bytes) -> None:
    table = Table(apps.get_model(LABEL))
    record = parse(data, LABEL)
    table.require_shape(record)
    table.content(record)
    table.identity_of(record)
    record.line(LABEL)


def _fixture(form: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        for _ in read_objects(io.BytesIO(data), form, EXACT_DECODER):
            pass

    return read


def _archive(path: Path) -> None:
    foreign = recognise(path)
    if foreign is not None:
        for item in contents(foreign, EXACT_DECODER):
            if isinstance(item, ForeignMember):
                item.read(1024 * 1024)


def _inspect(path: Path) -> None:
    inspect(str(path), keys=Keys(text=str(pyrage.x25519.Identity.generate())))


def _tar() -> bytes:
    members = {
        "database/database_backup.json": b'[{"model": "auth.group", "pk": 1, "fields": {"name": "x"}}]',
        "storage/a.txt": b"a",
        "configuration/.env": b"A=b",
        "metadata.json": b"{}",
    }
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        file.seek(0)
        return file.read()
