"""Whom packages are encrypted to, and where the private keys come from that open them again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from backups import conf
from backups.errors import PackageDamaged, PackageLocked, UsageError
from backups.package import age, passphrase
from backups.package.survey import survey

IDENTITY_VARIABLE = "BACKUPS_IDENTITY"
"""Environment variable that may hold private keys: the content of an identity file, not its path."""
PASSPHRASE_VARIABLE = "BACKUPS_PASSPHRASE"  # noqa: S105  the name of a variable


def from_environment(variable: str) -> str:
    """Return what a variable holds, or nothing. Raises ``UsageError`` for what is not text, and does not repeat it."""
    held = os.environ.get(variable, "")
    if not conf.is_text(held):
        raise UsageError(f"{variable} in the environment is not UTF-8", hint="write it in UTF-8")
    return held


@dataclass(frozen=True, kw_only=True)
class Encryption:
    """Public keys, or one passphrase: age does not allow both in one file."""

    recipients: Sequence[str] = ()
    passphrase: str = field(default="", repr=False)

    @classmethod
    def wanted(cls, recipients: Sequence[str], passphrase: str) -> Encryption | None:
        """Return how a package is to be encrypted: to ``BACKUPS["RECIPIENTS"]`` at least, or with a passphrase alone.

        None where nobody asks for it. Raises ``UsageError`` for a recipient that is none, before anything is read.
        """
        if passphrase and recipients:
            raise UsageError("a package is encrypted to recipients or with a passphrase", hint="leave one of them out")
        everybody = () if passphrase else tuple(dict.fromkeys([*conf.read().recipients, *recipients]))
        if not passphrase and not everybody:
            return None
        for recipient in everybody:
            age.parse_recipient(recipient)
        return cls(recipients=everybody, passphrase=passphrase)

    def seal(self, plain: BinaryIO, sealed: BinaryIO) -> None:
        """Encrypt one stream into the other."""
        if self.passphrase:
            passphrase.encrypt(plain, sealed, self.passphrase)
        else:
            age.encrypt(plain, sealed, [age.parse_recipient(recipient) for recipient in self.recipients])


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Where private keys come from: files, else the environment, else who sits at the terminal.

    Nothing is read before a package needs it. ``ask`` takes a prompt and returns what was typed; ``text`` is an
    identity that the caller made itself.
    """

    files: Sequence[Path] = ()
    ask: Callable[[str], str] | None = None
    text: str = field(default="", repr=False)

    def identities(self, name: str) -> list[age.Identity]:
        """Return the private keys to try on the package ``name``. Raises ``PackageLocked`` where there is none."""
        if self.text:
            return age.parse_identities(self.text.encode(), "the caller")
        if self.files:
            return [identity for path in self.files for identity in age.parse_identities(_content(path), str(path))]
        if held := from_environment(IDENTITY_VARIABLE):
            return age.parse_identities(held.encode(), IDENTITY_VARIABLE)
        if self.ask and (typed := self.ask(f"Identity that opens {name} (AGE-SECRET-KEY-1…): ")):
            return age.parse_identities(typed.encode(), "what was typed")
        raise PackageLocked(f"{name} is encrypted to a public key, and the private key was not given")

    def passphrase(self, name: str) -> str:
        """Return the passphrase for the package ``name``. Raises ``PackageLocked`` where there is none."""
        if held := from_environment(PASSPHRASE_VARIABLE):
            return held
        if self.ask and (typed := self.ask(f"Passphrase of {name}: ")):
            return typed
        raise PackageLocked(
            f"{name} is encrypted with a passphrase, and it was not given",
            hint=f"type it on a terminal, or set {PASSPHRASE_VARIABLE}",
        )


def throwaway() -> tuple[Sequence[str], Keys]:
    """Make a key pair for one run: the recipients to encrypt to, and the keys that open what was encrypted."""
    recipient, identity = age.generate()
    return (recipient,), Keys(text=identity)


@contextmanager
def unlocked(path: Path, name: str, keys: Keys) -> Iterator[Path]:
    """Give a path under which a package can be read: its own, or that of a decrypted copy which has no name.

    The copy is in the directory for temporary files (``TMPDIR``), unlinked, and gone with this process.
    """
    if not age.is_encrypted(path):
        yield path
        return
    with path.open("rb") as sealed, tempfile.TemporaryFile() as plain:
        try:
            _decrypt(sealed, plain, name, keys)
        except PackageDamaged as error:
            if plain.seek(0, 2):  # age shows nothing that it has not authenticated: what came before is as it was
                error.survey = survey(plain)
                error.args = (f"{error} after {plain.seek(0, 2)} bytes of the package\n  {error.survey}",)
            raise
        plain.flush()
        yield open_file_path(plain)


def _decrypt(sealed: BinaryIO, plain: BinaryIO, name: str, keys: Keys) -> None:
    if passphrase.is_locked_with_passphrase(sealed.read(passphrase.HEADER_BYTES)):
        secret = keys.passphrase(name)
        sealed.seek(0)
        passphrase.decrypt(sealed, plain, secret)
    else:
        identities = keys.identities(name)
        sealed.seek(0)
        age.decrypt(sealed, plain, identities)


def open_file_path(file: BinaryIO) -> Path:
    """Return a path that leads to an open file without a name; it works in this process, while the file is open."""
    return Path(f"/dev/fd/{file.fileno()}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"the identity file {path} cannot be read: {error.strerror}", hint="see --identity") from error
