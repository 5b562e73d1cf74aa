"""Who may have made a package: signing what is written, and refusing what nobody trusted has signed."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from backups import conf
from backups.errors import BackupError, PackageUntrusted, TargetNotReady
from backups.package.reader import PackageReader
from backups.package.signature import Signature, fingerprint
from backups.services.catalogue import NAME, package_name

HOW_TO_MAKE = "make one with: ssh-keygen -t ed25519 -N '' -C backups@HOST -f KEYFILE"


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signed a package. ``trusted`` is None where ``BACKUPS["TRUSTED_KEYS"]`` names nobody to compare with."""

    fingerprint: str
    name: str
    trusted: bool | None


def signing_key() -> Ed25519PrivateKey | None:
    """Read the key that packages are signed with, or None. Raises ``BackupError`` where it cannot be used."""
    path = conf.read().signing_key_file
    return _read_private_key(path) if path else None


def trusted_keys() -> Mapping[bytes, str]:
    """Return the names of the trusted keys, which are their comments, by key. Raises ``BackupError``."""
    return dict(map(_parse_public_key, conf.read().trusted_keys))


def signer(signature: Signature | None) -> Signer | None:
    """Say who made a signature, as far as the settings know."""
    if signature is None:
        return None
    trusted = trusted_keys()
    return Signer(
        fingerprint=signature.fingerprint,
        name=trusted.get(signature.key, ""),
        trusted=signature.key in trusted if trusted else None,
    )


def require_trusted(package: PackageReader, name: str) -> None:
    """Raise ``PackageUntrusted`` for a package that is not signed with a trusted key, where there are such keys.

    To be called before a package's content is used: restoring one can create superusers. The name of the file is not
    signed, so that it must be the one that follows from the manifest: an old package does not become the latest.
    """
    trusted = trusted_keys()
    if not trusted:
        return
    if package.signature is None:
        raise PackageUntrusted(
            "the package is not signed, and BACKUPS['TRUSTED_KEYS'] asks for a signature",
            hint="use a package that was made with BACKUPS['SIGNING_KEY_FILE']; list_backups shows what there is",
        )
    if package.signature.key not in trusted:
        raise PackageUntrusted(f"the package is signed with {package.signature.fingerprint}, which is not trusted")
    manifest = package.manifest
    own = package_name(manifest.kind, manifest.created, manifest.id, encrypted=False)
    if NAME.fullmatch(name) and name.removesuffix(".age") != own:
        raise PackageUntrusted(
            f"{name} was {own} when it was signed: somebody has renamed it", hint="find out who, and why"
        )


def require_own_signature() -> None:
    """Raise ``TargetNotReady`` where a package that is written now would be refused when it is to be restored."""
    if trusted_keys() and (signing_key() is None or untrusted_own_key()):
        raise TargetNotReady(
            "the safety backup would not be signed with a key that BACKUPS['TRUSTED_KEYS'] names, so that undoing would"
            " refuse it",
            hint="name such a key in BACKUPS['SIGNING_KEY_FILE'], or go without a safety backup: --no-safety-backup",
        )


def untrusted_own_key() -> str:
    """Return the fingerprint of the signing key where trusted keys are named, and it is none of them; else nothing."""
    key, trusted = signing_key(), trusted_keys()
    if key is None or not trusted:
        return ""
    public = key.public_key().public_bytes_raw()
    return "" if public in trusted else fingerprint(public)


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise BackupError(
                f"the signing key {path} is open to others: its mode is {mode:04o}", hint=f"chmod 600 {path}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise BackupError(f"the signing key {path} cannot be read: {error.strerror}", hint=HOW_TO_MAKE) from error
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says is not repeated: it has seen the key.
        raise BackupError(
            f"the signing key {path} is not a private key without a passphrase", hint=HOW_TO_MAKE
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BackupError(f"the signing key {path} is not an Ed25519 key", hint=HOW_TO_MAKE)
    return key


def _parse_public_key(text: str) -> tuple[bytes, str]:
    is_pem = text.lstrip().startswith("-----BEGIN")
    try:
        key = load_pem_public_key(text.encode()) if is_pem else load_ssh_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BackupError(
            "BACKUPS['TRUSTED_KEYS'] names something that is not an Ed25519 public key",
            hint="write what KEYFILE.pub holds: ssh-ed25519 AAAA… backups@HOST",
        )
    comment = "" if is_pem else " ".join(text.split()[2:])
    return key.public_bytes_raw(), comment
