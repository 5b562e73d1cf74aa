"""An encrypted package is an age file, opens with its key alone, and never lay in the clear under a name."""

from __future__ import annotations

import io
import json
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyrage
import pytest
from django.contrib.auth import get_user_model
from django.core.serializers import serialize
from pyrage import x25519

from backups.errors import PackageDamaged, PackageLocked, UsageError
from backups.files import FileChanges
from backups.package import age, passphrase
from backups.package.reader import PackageReader
from backups.reporting import NoProgress
from backups.services.create import CreateOptions
from backups.services.inspect import inspect
from backups.services.keys import Keys
from tests.backups.conftest import nothing_changes
from tests.keypairs import KeyPair
from tests.systems import System

IDENTITY = x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
NO_RECIPIENTS = [str(IDENTITY), "nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-dss AAAA", ""]
MADE_BY_AGE = Path(__file__).parents[1] / "golden" / "age-passphrase.age"
ALICE = b"alice"  # a name that every package of the demo data holds


@pytest.fixture
def plain_system(new_system: Callable[..., System]) -> Iterator[System]:
    """A system with the demo data, on the engine that is quickest to make."""
    with new_system("sqlite", after=("seed_demo",)).active() as active:
        yield active


@pytest.fixture
def identity(tmp_path: Path) -> str:
    path = tmp_path / "identity.txt"
    path.write_text(f"# created by hand\n{IDENTITY}\n")
    return str(path)


@pytest.fixture(autouse=True)
def nobody_gives_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKUPS_IDENTITY", raising=False)
    monkeypatch.delenv("BACKUPS_PASSPHRASE", raising=False)


def encrypted(system: System, *arguments: str) -> Path:
    result = system.run("create_backup", *(arguments or ("--encrypt-to", RECIPIENT)))
    assert result.code == 0, result.err
    (path,) = system.packages.glob("backup-*")
    return path


def check(path: Path) -> None:
    with PackageReader(path) as package:
        package.check(NoProgress())


def decrypted(path: Path, target: Path) -> Path:
    target.write_bytes(pyrage.decrypt(path.read_bytes(), [IDENTITY]))
    return target


def test_a_whole_cycle_with_encrypted_packages(told: System, identity: str, settings: Any) -> None:
    settings.BACKUPS = settings.BACKUPS | {"RECIPIENTS": [RECIPIENT]}
    created = told.run("create_backup")
    assert created.code == 0, created.err
    (path,) = told.packages.glob("*")
    assert path.name.endswith(".zip.age")
    assert path.name in told.run("list_backups").out

    assert told.run("reinit_system", "--no-input").code == 0
    (safety,) = told.packages.glob("safety-*")
    assert age.is_encrypted(safety)
    restored = told.run("restore_backup", "latest", "--identity", identity)
    assert restored.code == 0, restored.err
    assert path.name in restored.out
    for package in ("latest", path.name, path.name.removesuffix(".zip.age"), path.name.removesuffix(".age"), str(path)):
        assert told.run("validate_restore", package, "--identity", identity).code == 0
    assert told.run("inspect_backup", "latest", "--identity", identity).code == 0
    assert told.run("recovery_drill", "--identity", identity).code == 0
    for package in told.packages.iterdir():
        assert age.is_encrypted(package), package
        assert mode(package) == 0o600


def test_the_file_is_a_plain_age_file(plain_system: System, tmp_path: Path) -> None:
    path = encrypted(plain_system)
    assert ALICE not in path.read_bytes()
    check(decrypted(path, tmp_path / "plain.zip"))


def test_the_servers_own_key_is_enough_to_write_and_not_to_read(plain_system: System, settings: Any) -> None:
    settings.BACKUPS = settings.BACKUPS | {"RECIPIENTS": [RECIPIENT]}
    path = encrypted(plain_system, "--note", "nightly")
    with nothing_changes(plain_system):
        for command in ("restore_backup", "validate_restore", "inspect_backup", "recovery_drill"):
            result = plain_system.run(command, "latest")
            assert result.code == 4
            assert f"{path.name} is encrypted to a public key, and the private key was not given" in result.err
            assert "--identity FILE" in result.err


def test_another_key_does_not_open_it(plain_system: System, tmp_path: Path) -> None:
    encrypted(plain_system)
    other = tmp_path / "other.txt"
    other.write_text(str(x25519.Identity.generate()))
    with nothing_changes(plain_system):
        result = plain_system.run("restore_backup", "latest", "--identity", str(other))
    assert result.code == 4
    assert "no key that was given opens the package" in result.err
    assert other.read_text() not in result.err


def test_each_recipient_opens_it(plain_system: System, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = x25519.Identity.generate()
    settings.BACKUPS = settings.BACKUPS | {"RECIPIENTS": [RECIPIENT]}
    encrypted(plain_system, "--encrypt-to", str(other.to_public()))
    for key in (IDENTITY, other):
        monkeypatch.setenv("BACKUPS_IDENTITY", str(key))
        assert plain_system.run("inspect_backup", "latest").code == 0


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_ssh_keys_open_it(plain_system: System, tmp_path: Path, kind: str) -> None:
    key = KeyPair(tmp_path / "key", kind=kind)
    encrypted(plain_system, "--encrypt-to", key.public)
    assert plain_system.run("inspect_backup", "latest", "--identity", str(key.path)).code == 0
    closed = KeyPair(tmp_path / "closed", kind=kind, passphrase="secret")
    result = plain_system.run("inspect_backup", "latest", "--identity", str(closed.path))
    assert result.code == 2
    assert "a private key of SSH without a passphrase" in result.err


def test_the_operator_is_asked_on_a_terminal(plain_system: System) -> None:
    path = encrypted(plain_system)
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return str(IDENTITY)

    assert inspect("latest", keys=Keys(ask=ask)).manifest.kind == "backup"
    assert prompts == [f"Identity that opens {path.name} (AGE-SECRET-KEY-1…): "]


@pytest.mark.usefixtures("quick_passphrase")
def test_a_passphrase_closes_and_opens_it(
    plain_system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = plain_system.run("create_backup", "--passphrase")
    assert refused.code == 2
    assert "BACKUPS_PASSPHRASE" in refused.err
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse")
    path = encrypted(plain_system, "--passphrase")
    plain = tmp_path / "plain.zip"
    plain.write_bytes(pyrage.passphrase.decrypt(path.read_bytes(), "correct horse"))
    check(plain)
    assert plain_system.run("validate_restore", "latest").code == 0
    assert plain_system.run("create_backup", "--passphrase", "--encrypt-to", RECIPIENT).code == 2
    with nothing_changes(plain_system):
        monkeypatch.setenv("BACKUPS_PASSPHRASE", "wrong horse")
        result = plain_system.run("restore_backup", "latest")
        assert (result.code, "the passphrase does not open the package" in result.err) == (4, True)
        monkeypatch.delenv("BACKUPS_PASSPHRASE")
        result = plain_system.run("restore_backup", "latest")
        assert (result.code, "set BACKUPS_PASSPHRASE" in result.err) == (4, True)


@pytest.mark.usefixtures("quick_passphrase")
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3 * 65536, 200_001])
def test_passphrase_streams_are_those_of_age(size: int) -> None:
    content, sealed, opened = os.urandom(size), io.BytesIO(), io.BytesIO()
    passphrase.encrypt(io.BytesIO(content), sealed, "pass")
    assert pyrage.passphrase.decrypt(sealed.getvalue(), "pass") == content
    sealed.seek(0)
    passphrase.decrypt(sealed, opened, "pass")
    assert opened.getvalue() == content


def test_what_age_made_with_a_passphrase_is_opened() -> None:
    opened = io.BytesIO()
    passphrase.decrypt(io.BytesIO(MADE_BY_AGE.read_bytes()), opened, "pass")
    assert opened.getvalue() == b"a page of a protocol\n" * 3300


def test_every_damage_to_an_age_file_is_noticed() -> None:
    sealed = pyrage.encrypt(os.urandom(140_000), [IDENTITY.to_public()])
    refuse_damage(sealed, lambda file: age.decrypt(file, io.BytesIO(), [IDENTITY]))


@pytest.mark.usefixtures("quick_passphrase")
def test_every_damage_to_a_passphrase_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "MAX_WORK_FACTOR", 9)
    file = io.BytesIO()
    passphrase.encrypt(io.BytesIO(os.urandom(140_000)), file, "pass")
    refuse_damage(file.getvalue(), lambda file: passphrase.decrypt(file, io.BytesIO(), "pass"))


def refuse_damage(sealed: bytes, opener: Callable[[io.BytesIO], None]) -> None:
    generator = random.Random(5)
    opener(io.BytesIO(sealed))
    cut = [*range(400), *generator.sample(range(400, len(sealed)), 30), len(sealed) - 1, 65536 + 400]
    flipped = [*range(400), *generator.sample(range(400, len(sealed)), 30), len(sealed) - 1]
    damaged = [sealed[:length] for length in cut] + [sealed + b"\0", sealed + sealed]
    for position in flipped:
        data = bytearray(sealed)
        data[position] ^= 1 << generator.randrange(8)
        damaged.append(bytes(data))
    for data in damaged:
        with pytest.raises((PackageDamaged, PackageLocked)):
            opener(io.BytesIO(data))


def test_a_damaged_file_restores_nothing(plain_system: System, identity: str) -> None:
    path = encrypted(plain_system)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:100], whole[:10], b"", whole[:3000] + b"x" + whole[3001:], b"A" + whole[1:]):
        path.write_bytes(data)
        with nothing_changes(plain_system):
            result = plain_system.run("restore_backup", str(path), "--identity", identity)
        assert result.code == 4, result.err
        assert "hint:" in result.err


def test_a_full_disk_is_noticed_in_the_last_bytes() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        age.encrypt(io.BytesIO(b"little"), Full(), [IDENTITY.to_public()])
    sealed = pyrage.encrypt(b"little", [IDENTITY.to_public()])
    with pytest.raises(OSError, match="No space left"):
        age.decrypt(io.BytesIO(sealed), Full(), [IDENTITY])


def test_a_file_that_cannot_be_read_is_no_damaged_package() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt if self.getvalue() else OSError(5, "Input/output error")

    for content, expected in ((b"", OSError), (b"x", KeyboardInterrupt)):
        with pytest.raises(expected):
            age.decrypt(Failing(content), io.BytesIO(), [IDENTITY])
        with pytest.raises(expected):
            age.encrypt(Failing(content), io.BytesIO(), [IDENTITY.to_public()])


@pytest.mark.parametrize("arguments", [["--encrypt-to", RECIPIENT], ["--passphrase"]])
def test_no_file_with_a_name_ever_holds_the_package_in_the_clear(
    plain_system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str, arguments: list[str]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse")
    seen: list[str] = []

    def look() -> None:
        for directory in (plain_system.packages, temporary):
            for path in directory.rglob("*"):
                if path.is_file():
                    data = path.read_bytes()
                    assert age.HEADER.startswith(data[: len(age.HEADER)]), path
                    assert mode(path) == 0o600
                    seen.append(path.name)

    for name in ("check", "_require_members", "iter_file", "lines"):
        monkeypatch.setattr(PackageReader, name, looking(getattr(PackageReader, name), look))
    for name in ("read", "write", "fsync", "link", "unlink"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, looking(getattr(os, name), look))

    encrypted(plain_system, *arguments)
    assert any(name.startswith(".partial-") and name.endswith(".zip.age") for name in seen)
    result = plain_system.run("validate_restore", "latest", "--identity", identity)
    assert result.code == 0, result.err
    monkeypatch.undo()
    assert [path.suffix for path in plain_system.packages.iterdir()] == [".age"]
    assert not any(temporary.iterdir())


def looking(function: Callable[..., Any], look: Callable[[], None]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        look()
        result = function(*arguments, **options)
        look()
        return result

    return wrapped


@pytest.mark.parametrize(
    "text", [str(IDENTITY), "nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-dss AAAA", ""], ids=range(5)
)
def test_a_recipient_that_is_none_is_refused_and_not_repeated(plain_system: System, text: str) -> None:
    result = plain_system.run("create_backup", "--encrypt-to", text)
    assert result.code == 2
    assert not text or text not in result.err
    assert not list(plain_system.packages.glob("*"))


def test_an_identity_that_is_none_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for content in (b"", b"# nothing\n", b"secret text\n", b"\xff\xfe", b"-----BEGIN OPENSSH PRIVATE KEY-----\nsecret"):
        with pytest.raises(UsageError, match="holds no private key") as raised:
            age.parse_identities(content, "the file")
        assert "secret" not in str(raised.value)


@pytest.mark.usefixtures("quick_passphrase")
def test_secrets_are_in_no_representation_and_no_report(plain_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUPS_PASSPHRASE", "correct horse")
    created = plain_system.run("create_backup", "--passphrase", "--json")
    assert created.code == 0
    assert "correct horse" not in created.out + created.err
    options = CreateOptions(passphrase="correct horse")
    assert "correct horse" not in repr(options)
    assert str(IDENTITY) not in repr(Keys(text=str(IDENTITY)))
    assert json.loads(created.out)["package"].endswith(".zip.age")


def test_the_demo_needs_no_key(plain_system: System, settings: Any) -> None:
    settings.BACKUPS = settings.BACKUPS | {"RECIPIENTS": [RECIPIENT]}
    assert plain_system.run("recovery_drill", "--demo").code == 0


def test_restored_configuration_and_staged_files_are_private(
    plain_system: System, tmp_path: Path, settings: Any, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(os.umask, os.umask(0)))
    root = tmp_path / "root"
    (root / "deploy").mkdir(parents=True)
    (root / "deploy/.env").write_text("KEY=value\n")
    (root / "deploy/.env").chmod(0o644)
    settings.BACKUPS = settings.BACKUPS | {"CONFIG_ROOT": root, "CONFIG_FILES": ["deploy/.env"]}
    assert plain_system.run("create_backup").code == 0
    target = tmp_path / "target"
    assert plain_system.run("restore_backup", "latest", "--config-to", str(target / "config")).code == 0
    restored = target / "config/deploy/.env"
    assert restored.read_text() == "KEY=value\n"
    assert mode(restored) == 0o600
    for directory in (restored.parent, target / "config", target, plain_system.packages):
        assert mode(directory) == 0o700, directory
    for package in plain_system.packages.iterdir():
        assert mode(package) == 0o600


def test_files_on_their_way_back_are_private(
    plain_system: System, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(os.umask, os.umask(0)))
    assert plain_system.run("create_backup").code == 0
    assert plain_system.run("reinit_system", "--no-input").code == 0
    plain_system.media.rmdir()
    modes: list[int] = []
    apply = FileChanges.apply

    def look(changes: FileChanges) -> None:
        modes.extend(mode(path) for path in plain_system.media.glob(".changes-*"))
        apply(changes)

    monkeypatch.setattr(FileChanges, "apply", look)
    assert plain_system.run("restore_backup", "latest").code == 0
    assert modes == [0o700]
    directories = [plain_system.media, *(path for path in plain_system.media.rglob("*") if path.is_dir())]
    assert {mode(path) for path in directories} == {0o700}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_header_without_end_is_refused_at_once(plain_system: System, tmp_path: Path, identity: str) -> None:
    """The library reads a header again with every block of it: fifty megabytes would take it hours."""
    stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    package = tmp_path / "long.zip.age"
    package.write_bytes(age.HEADER + stanza * 500_000)
    begun = time.monotonic()
    refused = plain_system.run("restore_backup", str(package), "--identity", identity)
    assert (refused.code, time.monotonic() - begun < 20) == (4, True)
    assert "the header of the encrypted package is damaged" in refused.err


def test_what_is_converted_is_encrypted_as_well(
    plain_system: System, settings: Any, tmp_path: Path, identity: str
) -> None:
    settings.BACKUPS = settings.BACKUPS | {"RECIPIENTS": [RECIPIENT]}
    rows = serialize("json", get_user_model().objects.all(), use_natural_foreign_keys=True).encode()
    fixture = tmp_path / "users.json.age"
    fixture.write_bytes(pyrage.encrypt(rows, [IDENTITY.to_public()]))

    assert plain_system.run("convert_backup", str(fixture)).code == 4
    converted = plain_system.run("convert_backup", str(fixture), "--identity", identity)

    assert converted.code == 0, converted.out + converted.err
    path = tmp_path / "users.json.age.zip.age"
    assert age.is_encrypted(path)
    assert [one for one in tmp_path.iterdir() if one.suffix == ".zip"] == []
    assert plain_system.run("inspect_backup", str(path), "--identity", identity).code == 0
