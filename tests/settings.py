"""Settings of the test suite."""

import tempfile

from core.settings import *  # noqa: F403

SECRET_KEY = "of the tests"
# Fast, and next to it the one that seed_demo's password is hashed with.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.MD5PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
SECURE_SSL_REDIRECT = False
# No test touches the files of a real system: those that need files use directories of their own.
MEDIA_ROOT = tempfile.mkdtemp(prefix="edms-tests-")
