"""age files that a passphrase opens, as streams: age v1 with a scrypt stanza (https://c2sp.org/age).

pyrage encrypts to a passphrase in memory alone, and a package does not fit there. What it makes and what this makes,
each opens the other's.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from backups.errors import PackageDamaged, PackageLocked

WORK_FACTOR = 18
"""log2 of scrypt's N, age's own: a second and 256 MiB for each guess."""
MAX_WORK_FACTOR = 22
"""age's limit: a file must not make its reader work for minutes before anything is known of it."""
HEADER_BYTES = 256
"""More than a header with one scrypt stanza has."""

_SALT_LABEL = b"age-encryption.org/v1/scrypt"
_CHUNK, _TAG = 64 * 1024, 16
_HEADER = re.compile(
    rb"(age-encryption\.org/v1\n-> scrypt (?P<salt>[A-Za-z0-9+/]{22}) (?P<factor>[1-9][0-9]?)\n"
    rb"(?P<body>[A-Za-z0-9+/]{43})\n---) (?P<mac>[A-Za-z0-9+/]{43})\n"
)


def is_locked_with_passphrase(header: bytes) -> bool:
    """Return whether the beginning of an age file asks for a passphrase."""
    return header.startswith(b"age-encryption.org/v1\n-> scrypt ")


def encrypt(plain: BinaryIO, sealed: BinaryIO, passphrase: str) -> None:
    """Encrypt a stream to a passphrase."""
    salt, file_key = os.urandom(16), os.urandom(16)
    wrapped = ChaCha20Poly1305(_wrapping_key(passphrase, salt, WORK_FACTOR)).encrypt(bytes(12), file_key, None)
    header = b"age-encryption.org/v1\n-> scrypt %s %d\n%s\n---" % (_base64(salt), WORK_FACTOR, _base64(wrapped))
    nonce = os.urandom(16)
    sealed.write(header + b" " + _base64(_mac(file_key, header)) + b"\n" + nonce)
    cipher = ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))
    number, chunk = 0, plain.read(_CHUNK)
    while True:
        following = plain.read(_CHUNK)
        sealed.write(cipher.encrypt(_counter(number, is_last=not following), chunk, None))
        if not following:
            return
        number, chunk = number + 1, following


def decrypt(sealed: BinaryIO, plain: BinaryIO, passphrase: str) -> None:
    """Decrypt a stream. Raises ``PackageLocked`` for another passphrase, ``PackageDamaged`` for a changed file."""
    beginning = sealed.read(HEADER_BYTES)
    header = _HEADER.match(beginning)
    if header is None or int(header["factor"]) > MAX_WORK_FACTOR:
        raise PackageDamaged("the header of the encrypted package is damaged")
    salt, body, mac = (_unbase64(header[name]) for name in ("salt", "body", "mac"))
    try:
        wrapping_key = _wrapping_key(passphrase, salt, int(header["factor"]))
        file_key = ChaCha20Poly1305(wrapping_key).decrypt(bytes(12), body, None)
    except InvalidTag:
        raise PackageLocked(
            "the passphrase does not open the package", hint="it may be another one, or the file may be damaged"
        ) from None
    if not hmac.compare_digest(_mac(file_key, header[1]), mac):
        raise PackageDamaged("the header of the encrypted package is damaged")
    sealed.seek(header.end())
    cipher = ChaCha20Poly1305(_derive(file_key, sealed.read(16), b"payload"))
    number, chunk = 0, sealed.read(_CHUNK + _TAG)
    while True:
        following = sealed.read(_CHUNK + _TAG)
        try:
            plain.write(cipher.decrypt(_counter(number, is_last=not following), chunk, None))
        except InvalidTag:
            raise PackageDamaged("the encrypted package is cut short or changed") from None
        if not following:
            return
        number, chunk = number + 1, following


def _wrapping_key(passphrase: str, salt: bytes, factor: int) -> bytes:
    return Scrypt(salt=_SALT_LABEL + salt, length=32, n=1 << factor, r=8, p=1).derive(passphrase.encode())


def _derive(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), header, "sha256")


def _counter(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    """Decode base64 without padding. Raises ``PackageDamaged`` where its unused bits are set."""
    data = base64.b64decode(text + b"=" * (-len(text) % 4))
    if _base64(data) != text:
        raise PackageDamaged("the header of the encrypted package is damaged")
    return data
