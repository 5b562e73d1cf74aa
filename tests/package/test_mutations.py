"""Whatever happens to the bytes of a package, it is refused, and the refusal names what is damaged."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyrage import x25519

from backups.errors import PackageDamaged, PackageLocked
from backups.package import age, passphrase
from backups.package.container import MANIFEST, SIGNATURE, ContainerReader, ContainerWriter, central_header
from tests.package.conftest import check, write

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
IDENTITY = x25519.Identity.from_str("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX")


@pytest.fixture(params=["unsigned", "signed"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    path = tmp_path / "whole.zip"
    write(path, key=KEY if request.param == "signed" else None)
    check(path)
    return path.read_bytes()


def extents(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield where each part of a package begins and ends, and what a refusal has to call it."""
    container = ContainerReader(io.BytesIO(data))
    members = list(container.members.values())
    for member in members:
        yield member.offset, member.end, member.name
    position = members[-1].end
    for member in members:
        end = position + len(central_header(member))
        yield position, end, f"directory entry of {member.name}"
        position = end
    yield position, len(data), "the end of the file"


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        check(path)
    except PackageDamaged as error:  # exit 4
        return str(error)
    return ""


def is_named(message: str, name: str) -> bool:
    """The end of the file holds the manifest's hash, so that one of the two is damaged and none can tell which."""
    return name in message or (name == "the end of the file" and f"{MANIFEST} is not what was written" in message)


def test_a_flipped_bit_anywhere_is_noticed_and_its_place_named(whole: bytes, tmp_path: Path) -> None:
    chance = random.Random(1)
    for begin, end, name in extents(whole):
        for position in range(begin, end):
            data = bytearray(whole)
            data[position] ^= 1 << chance.randrange(8)
            message = refusal(tmp_path / "damaged", bytes(data))
            assert is_named(message, name), (position, name, message)


def test_a_removed_byte_anywhere_is_noticed_and_its_place_named(whole: bytes, tmp_path: Path) -> None:
    for begin, end, name in extents(whole):
        for position in range(begin, end, 3):
            message = refusal(tmp_path / "damaged", whole[:position] + whole[position + 1 :])
            assert is_named(message, name), (position, name, message)


def test_an_added_byte_anywhere_is_noticed_and_its_place_named(whole: bytes, tmp_path: Path) -> None:
    for begin, end, name in extents(whole):
        assert refusal(tmp_path / "damaged", whole[:begin] + b"\0" + whole[begin:]), name  # between two parts
        for position in range(begin + 1, end, 3):
            data = whole[:position] + b"\0" + whole[position:]
            message = refusal(tmp_path / "damaged", data)
            is_at_end = data == whole[:end] + b"\0" + whole[end:]  # a blank among blanks
            assert is_named(message, name) or (message and is_at_end), (position, name, message)
    assert refusal(tmp_path / "damaged", whole + b"\0")


def test_a_truncation_anywhere_is_noticed_and_its_place_named(whole: bytes, tmp_path: Path) -> None:
    for begin, end, name in extents(whole):
        assert refusal(tmp_path / "damaged", whole[:begin])
        for length in range(begin + 1, end, 3):
            message = refusal(tmp_path / "damaged", whole[:length])
            # A header that is not all there has no name yet.
            assert is_named(message, name) or "cut short" in message, (length, name, message)


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    container = ContainerReader(io.BytesIO(data))
    return [(name, b"".join(container.chunks(name))) for name in container.members]


def packed(members: list[tuple[str, bytes]]) -> bytes:
    """Write members in the one form that a package has, whatever they are."""
    file = io.BytesIO()
    writer = ContainerWriter(file)
    content = dict(members)
    for name, data in members:
        if name not in (MANIFEST, SIGNATURE):
            writer.add(name, len(data), zlib.crc32(data), [data])
    writer.finish(content[MANIFEST], content.get(SIGNATURE, b""))
    return file.getvalue()


def test_every_dropped_member_is_named(whole: bytes, tmp_path: Path) -> None:
    members = members_of(whole)
    assert packed(members) == whole
    for dropped in (one for one in members if one[0] not in (MANIFEST, SIGNATURE)):
        message = refusal(tmp_path / "damaged", packed([one for one in members if one != dropped]))
        assert f"{dropped[0]} is missing" in message


def test_every_doubled_member_is_named(whole: bytes, tmp_path: Path) -> None:
    for name, data in members_of(whole):
        file = io.BytesIO()
        writer = ContainerWriter(file)
        for other, content in members_of(whole):
            writer.add(other, len(content), zlib.crc32(content), [content])
            if other == name:  # the writer would not do that
                member = writer._members.pop(name)
                writer._members[f"{name}\0"] = member
                writer.add(name, len(data), zlib.crc32(data), [data])
        message = refusal(tmp_path / "damaged", finished(writer, file, dict(members_of(whole))[MANIFEST]))
        assert name in message, (name, message)


def finished(writer: ContainerWriter, file: io.BytesIO, manifest: bytes) -> bytes:
    """Write the directory of members that are there already."""
    members = list(writer._members.values())
    writer._members = {str(number): member for number, member in enumerate(members)}
    writer._offset = file.tell()
    end = io.BytesIO()
    spare = ContainerWriter(end)
    spare._members, spare._offset = writer._members, writer._offset
    spare.add = lambda *parts: None  # type: ignore[method-assign]
    spare.finish(manifest)
    return file.getvalue() + end.getvalue()


def test_every_member_under_another_name_is_named(whole: bytes, tmp_path: Path) -> None:
    members = members_of(whole)
    others = {
        "data/app.thing/00000.jsonl.zst": "data/app.thing/00009.jsonl.zst",
        "files.jsonl.zst": "data/app.other/00000.jsonl.zst",
        "config/deploy/.env": "config/deploy/.env2",
    }
    others |= {name: f"files/{'0' * 64}" for name, _ in members if name.startswith("files/")}
    for old, new in others.items():
        message = refusal(
            tmp_path / "damaged", packed([(new if name == old else name, data) for name, data in members])
        )
        assert old in message or new in message


def test_members_that_change_places_or_contents_are_named(whole: bytes, tmp_path: Path) -> None:
    members = members_of(whole)
    inner = [name for name, _ in members if name not in (MANIFEST, SIGNATURE)]
    for first, second in pairwise(inner):
        content = dict(members)
        content[first], content[second] = content[second], content[first]
        message = refusal(tmp_path / "damaged", packed([(name, content[name]) for name, _ in members]))
        assert first in message or second in message, (first, second, message)
        # Their places alone: what the directory says is not what is there.
        one, other = (ContainerReader(io.BytesIO(whole)).members[name] for name in (first, second))
        moved = whole[: one.offset] + whole[other.offset : other.end] + whole[one.offset : one.end] + whole[other.end :]
        message = refusal(tmp_path / "damaged", moved)
        assert first in message or second in message, (first, second, message)


def test_every_flipped_bit_of_an_encrypted_package_is_noticed(whole: bytes) -> None:
    sealed = pyrage.encrypt(whole, [IDENTITY.to_public()])
    chance = random.Random(2)
    for position in range(len(sealed)):
        data = bytearray(sealed)
        data[position] ^= 1 << chance.randrange(8)
        assert not opens(data, lambda file, plain: age.decrypt(file, plain, [IDENTITY])), position


def test_every_truncation_and_every_added_or_removed_byte_of_an_encrypted_package_is_noticed(whole: bytes) -> None:
    sealed = pyrage.encrypt(whole, [IDENTITY.to_public()])
    for position in range(len(sealed)):
        for data in (
            sealed[:position],
            sealed[:position] + sealed[position + 1 :],
            sealed[:position] + b"\0" + sealed[position:],
        ):
            assert not opens(data, lambda file, plain: age.decrypt(file, plain, [IDENTITY])), position


def test_every_change_of_a_package_with_a_passphrase_is_noticed(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "WORK_FACTOR", 1)  # a second for each of thousands is too long
    sealed = io.BytesIO()
    passphrase.encrypt(io.BytesIO(whole), sealed, "correct horse")
    data = sealed.getvalue()
    assert opens(data, lambda file, plain: passphrase.decrypt(file, plain, "correct horse"))
    chance = random.Random(3)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << chance.randrange(8)
        if data.startswith(b" 1\n", position - 1) and flipped[position] in b"23456789":
            continue  # a work factor of more bits is another guess, and only a slower one
        for changed in (
            flipped,
            data[:position],
            data[:position] + data[position + 1 :],
            data[:position] + b"\0" + data[position:],
        ):
            assert not opens(changed, lambda file, plain: passphrase.decrypt(file, plain, "correct horse")), position


def opens(data: bytes | bytearray, decrypt: Callable[[io.BytesIO, io.BytesIO], None]) -> bool:
    try:
        decrypt(io.BytesIO(data), io.BytesIO())
    except (PackageDamaged, PackageLocked):  # exit 4, both
        return False
    return True
