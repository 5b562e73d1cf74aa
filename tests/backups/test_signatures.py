"""Where trusted keys are named, only what one of them has signed is restored; a signature fits one manifest alone."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from backups.errors import PackageDamaged
from backups.package.container import MANIFEST, SIGNATURE, ContainerReader, ContainerWriter
from backups.package.reader import PackageReader
from backups.package.signature import SIGNATURE_BYTES, Signature, sign
from backups.reporting import NoProgress
from tests.backups.conftest import nothing_changes
from tests.keypairs import KeyPair
from tests.package.conftest import write
from tests.systems import System

MANIFESTS = b"a manifest", b"another manifest"


@pytest.fixture
def ours(tmp_path: Path) -> KeyPair:
    return KeyPair(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> KeyPair:
    return KeyPair(tmp_path / "theirs")


@pytest.fixture
def plain_system(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system("sqlite", after=("seed_demo",)).active() as active:
        yield active


@pytest.fixture
def configured(settings: Any) -> Callable[..., None]:
    original = settings.BACKUPS

    def configure(**changes: Any) -> None:
        settings.BACKUPS = original | changes

    return configure


def packages(system: System) -> list[Path]:
    return sorted(system.packages.glob("backup-*"))


def test_a_whole_cycle_with_signed_packages(told: System, ours: KeyPair, configured: Callable[..., None]) -> None:
    configured(SIGNING_KEY_FILE=ours.path, TRUSTED_KEYS=[ours.public])
    assert told.run("create_backup").code == 0
    inspected = told.run("inspect_backup", "latest")
    assert f"signed by {ours.fingerprint} ({ours.name}): trusted" in inspected.out
    assert told.run("reinit_system", "--no-input").code == 0
    restored = told.run("restore_backup", "latest")
    assert restored.code == 0, restored.err
    assert told.run("validate_restore", "latest").code == 0
    assert told.run("recovery_drill").code == 0
    safety = min(told.packages.glob("safety-*"))
    assert told.run("restore_backup", safety.name, "--mode", "replace", "--no-input").code == 0


def test_an_unsigned_package_is_refused(plain_system: System, ours: KeyPair, configured: Callable[..., None]) -> None:
    assert plain_system.run("create_backup").code == 0
    configured(TRUSTED_KEYS=[ours.public])
    for command in ("restore_backup", "validate_restore", "recovery_drill"):
        with nothing_changes(plain_system):
            result = plain_system.run(command, "latest")
        assert result.code == 4
        assert "the package is not signed" in result.err
        assert "hint:" in result.err
    inspected = plain_system.run("inspect_backup", "latest")
    assert inspected.code == 0
    assert "not signed" in inspected.out


def test_a_foreign_package_is_refused(
    plain_system: System, ours: KeyPair, theirs: KeyPair, configured: Callable[..., None]
) -> None:
    configured(SIGNING_KEY_FILE=theirs.path)
    assert plain_system.run("create_backup").code == 0
    assert plain_system.run("restore_backup", "latest").code == 0
    assert "names nobody to trust" in plain_system.run("inspect_backup", "latest").out
    configured(TRUSTED_KEYS=[ours.public])
    with nothing_changes(plain_system):
        result = plain_system.run("restore_backup", "latest")
    assert result.code == 4
    assert f"the package is signed with {theirs.fingerprint}, which is not trusted" in result.err
    assert f"signed by {theirs.fingerprint}: NOT trusted" in plain_system.run("inspect_backup", "latest").out
    configured(TRUSTED_KEYS=[ours.public, theirs.public])
    assert plain_system.run("restore_backup", "latest").code == 0


def test_a_signature_of_another_package_is_refused(
    plain_system: System, ours: KeyPair, configured: Callable[..., None], tmp_path: Path
) -> None:
    configured(SIGNING_KEY_FILE=ours.path, TRUSTED_KEYS=[ours.public])
    for _ in range(2):
        assert plain_system.run("create_backup").code == 0
    first, second = packages(plain_system)
    swapped = tmp_path / "swapped.zip"
    rewrite(first, swapped, members(second)[SIGNATURE])
    with nothing_changes(plain_system):
        result = plain_system.run("restore_backup", str(swapped))
    assert result.code == 4
    assert "manifest.sig does not fit the manifest" in result.err
    rewrite(first, swapped, b"")
    assert "not signed" in plain_system.run("restore_backup", str(swapped)).err
    rewrite(first, swapped, members(first)[SIGNATURE])
    assert swapped.read_bytes() == first.read_bytes()


def test_an_old_package_does_not_become_the_latest_by_its_name(
    plain_system: System, ours: KeyPair, configured: Callable[..., None]
) -> None:
    configured(SIGNING_KEY_FILE=ours.path, TRUSTED_KEYS=[ours.public])
    for _ in range(2):
        assert plain_system.run("create_backup").code == 0
    old, new = packages(plain_system)
    assert plain_system.run("validate_restore", old.name).code == 0
    old.rename(new)
    with nothing_changes(plain_system):
        result = plain_system.run("restore_backup", "latest")
    assert result.code == 4
    assert f"{new.name} was {old.name} when it was signed" in result.err
    assert plain_system.run("restore_backup", str(new.rename(new.with_name("old.zip")))).code == 0


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_ssh_keygen_agrees(
    plain_system: System, ours: KeyPair, configured: Callable[..., None], tmp_path: Path
) -> None:
    configured(SIGNING_KEY_FILE=ours.path)
    assert plain_system.run("create_backup").code == 0
    content = members(packages(plain_system)[0])
    (tmp_path / "manifest.sig").write_bytes(content[SIGNATURE])
    (tmp_path / "trusted").write_text(f"{ours.name} {ours.public}\n")
    listed = subprocess.run(["ssh-keygen", "-l", "-f", ours.path], check=True, capture_output=True, text=True)
    assert ours.fingerprint in listed.stdout
    command = ["ssh-keygen", "-Y", "verify", "-f", "trusted", "-I", ours.name, "-n", "edms-package", "-s"]
    verified = subprocess.run(
        [*command, "manifest.sig"], cwd=tmp_path, input=content[MANIFEST], capture_output=True, check=False
    )
    assert verified.returncode == 0, verified.stderr


def test_pem_keys_sign_and_are_trusted(plain_system: System, configured: Callable[..., None], tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    configured(SIGNING_KEY_FILE=str(path), TRUSTED_KEYS=[public])
    assert plain_system.run("create_backup").code == 0
    assert plain_system.run("validate_restore", "latest").code == 0


def test_a_signing_key_that_cannot_be_used_stops_the_backup(
    plain_system: System, ours: KeyPair, configured: Callable[..., None], tmp_path: Path
) -> None:
    rsa, closed = KeyPair(tmp_path / "rsa", kind="rsa").path, KeyPair(tmp_path / "closed", passphrase="secret").path
    text = tmp_path / "text"
    text.write_text("secret")
    text.chmod(0o600)
    ours.path.chmod(0o640)
    for path, said in (
        (ours.path, "its mode is 0640"),
        (rsa, "not an Ed25519 key"),
        (closed, "without a passphrase"),
        (text, "without a passphrase"),
        (tmp_path / "nowhere", "cannot be read"),
    ):
        configured(SIGNING_KEY_FILE=path)
        with nothing_changes(plain_system):
            result = plain_system.run("create_backup")
        assert result.code == 1
        assert said in result.err
        assert "secret" not in result.err


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "signed.zip"
    write(path, key=Ed25519PrivateKey.generate())
    return path


def test_every_single_changed_byte_of_a_signed_package_is_noticed(signed: Path, tmp_path: Path) -> None:
    whole = signed.read_bytes()
    check(signed)
    damaged = tmp_path / "damaged"
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        damaged.write_bytes(data)
        with pytest.raises(PackageDamaged):
            check(damaged)


def test_every_truncation_of_a_signed_package_is_noticed(signed: Path, tmp_path: Path) -> None:
    whole = signed.read_bytes()
    damaged = tmp_path / "damaged"
    for length in range(0, len(whole), 7):
        damaged.write_bytes(whole[:length])
        with pytest.raises(PackageDamaged):
            check(damaged)


@pytest.mark.parametrize("text", [b"", b"x", b"x" * SIGNATURE_BYTES, b"\n" * SIGNATURE_BYTES, b"x" * 10**6])
def test_a_signature_that_is_none_is_refused(signed: Path, tmp_path: Path, text: bytes) -> None:
    hostile = tmp_path / "hostile.zip"
    rewrite(signed, hostile, text, anyway=True)
    with pytest.raises(PackageDamaged, match=r"manifest\.sig"):
        check(hostile)


def test_signature_and_manifest_are_at_the_end(signed: Path, tmp_path: Path) -> None:
    content = members(signed)
    hostile = tmp_path / "hostile.zip"
    for order in ([SIGNATURE, "files.jsonl.zst", MANIFEST], [MANIFEST, SIGNATURE], [MANIFEST, "files.jsonl.zst"]):
        with hostile.open("wb") as file:
            Disordered(file, order, content).finish(content[MANIFEST])
        with pytest.raises(PackageDamaged, match="not where the package ends"):
            check(hostile)


class Disordered(ContainerWriter):
    """Writes the manifest among the other members."""

    def __init__(self, file: Any, order: list[str], content: dict[str, bytes]) -> None:
        super().__init__(file)
        self._order, self._content = order, content

    def add(self, name: str, size: int, crc32: int, chunks: Any) -> None:
        for member in self._order:
            data = self._content[member]
            super().add(member, len(data), zlib.crc32(data), [data])


def test_a_signature_has_one_form() -> None:
    key = Ed25519PrivateKey.generate()
    signature = sign(MANIFESTS[0], key)
    assert Signature.from_bytes(signature.to_bytes()) == signature
    signature.require_valid(MANIFESTS[0])
    with pytest.raises(PackageDamaged, match="does not fit"):
        signature.require_valid(MANIFESTS[1])
    order = 2**252 + 27742317777372353535851937790883648493
    shifted = int.from_bytes(signature.raw[32:], "little") + order
    if shifted < 2**256:
        malleable = Signature(signature.key, signature.raw[:32] + shifted.to_bytes(32, "little"))
        with pytest.raises(PackageDamaged, match="does not fit"):
            malleable.require_valid(MANIFESTS[0])
    for data in (signature.to_bytes() + b"\n", signature.to_bytes().replace(b"\n", b"\r\n"), signature.to_bytes()[1:]):
        with pytest.raises(PackageDamaged):
            Signature.from_bytes(data)


def check(path: Path) -> None:
    with PackageReader(path) as package:
        package.check(NoProgress())
        assert package.signature is not None


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(source: Path, target: Path, signature: bytes, *, anyway: bool = False) -> None:
    """Write a package's members again with another signature; ``anyway``, even with an empty one."""
    content = members(source)
    with source.open("rb") as file, target.open("wb") as rewritten:
        writer = ContainerWriter(rewritten)
        for member in ContainerReader(file).members.values():
            if member.name not in (SIGNATURE, MANIFEST):
                writer.add(member.name, member.size, member.crc32, [content[member.name]])
        if anyway and not signature:
            writer.add(SIGNATURE, 0, 0, [])
        writer.finish(content[MANIFEST], signature)
