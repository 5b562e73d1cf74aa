"""Settings, read from the environment.

DATABASE_URL                 sqlite:///…, postgres://…, mysql://…; default: var/db.sqlite3 below the project
MEDIA_ROOT                   directory of the documents' files; default: var/media
BACKUPS_ROOT                 directory of the backup packages; default: var/backups
BACKUPS_RECIPIENTS           public keys of age or SSH that packages are encrypted to, separated by commas; default:
                             none, which ``check --deploy`` complains about
BACKUPS_SIGNING_KEY_FILE     private Ed25519 key that packages are signed with; default: none
BACKUPS_TRUSTED_KEYS         public keys, ``ssh-ed25519 …``, separated by commas: packages that none of them has signed
                             are refused; default: none, and any package is restored
BACKUPS_SHOW_VALUES          0 to redact every value in findings, and what rows are known by; default: 1, and the
                             fields are redacted whose names sound secret
BACKUPS_DRILL_DAYS           ``check --deploy`` complains where no drill has succeeded for so many days; default: 90
DJANGO_SECRET_KEY            at least 50 random characters; default: a new key for each process, which ends all
                             sessions at a restart and which ``check --deploy`` complains about
DJANGO_ALLOWED_HOSTS         names this site is served under, separated by commas; default: localhost,127.0.0.1,[::1]
DJANGO_CSRF_TRUSTED_ORIGINS  origins such as https://edms.example.com, separated by commas; default: none
DJANGO_HTTPS                 0 to serve without TLS: no redirect, no HSTS, cookies over plain HTTP; default: 1,
                             with DJANGO_DEBUG 0
DJANGO_BEHIND_PROXY          1 where a proxy ends TLS and sets X-Forwarded-Proto itself; default: 0
DJANGO_DEBUG                 1 for development, never where others can reach the site; default: 0
EDMS_ADMIN_PASSWORD          password that a new user ``admin`` gets; default: none, and it cannot log in
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"


def _text(name: str, default: str = "") -> str:
    value = os.environ.get(name) or default
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ImproperlyConfigured(f"{name} is not UTF-8; hint: write it in UTF-8") from None
    return value


def _switch(name: str, *, default: bool = False) -> bool:
    value = os.environ.get(name, "")
    if value not in {"", "0", "1"}:
        raise ImproperlyConfigured(f"{name} is {value!r}; hint: set it to 0 or 1")
    return value == "1" if value else default


def _number(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit()):
        raise ImproperlyConfigured(f"{name} is {value!r}; hint: set it to a whole number")
    return int(value)


def _names(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in _text(name, default).split(",") if part.strip()]


_DRIVERS = {
    "django.db.backends.sqlite3": ("sqlite3", ""),
    "django.db.backends.postgresql": ("psycopg", "postgresql"),
    "django.db.backends.mysql": ("MySQLdb", "mysql"),
}


def _database_of(name: str) -> dict[str, Any]:
    """Read the URL of a database. What is wrong with it is told without it: it holds a password."""
    hint = (
        "hint: write sqlite:///path, postgres://user:password@host/name or mysql://…, in which %XX stands for @ : / # ?"
    )
    try:
        database = {**dj_database_url.parse(_text(name))}
    except ValueError:
        raise ImproperlyConfigured(f"{name} is not the URL of a database; {hint}") from None
    if database["ENGINE"] not in _DRIVERS:
        raise ImproperlyConfigured(f"{name} names a database that is neither SQLite, PostgreSQL nor MariaDB; {hint}")
    module, extra = _DRIVERS[database["ENGINE"]]
    if find_spec(module) is None:
        raise ImproperlyConfigured(f"{name} needs the Python module {module}; hint: pip install '.[{extra}]'")
    return database


DEBUG = _switch("DJANGO_DEBUG")
# Django's own name for a key that is not a secret anybody keeps: security.W009 reports it.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or f"django-insecure-{get_random_secret_key()}"
ALLOWED_HOSTS = _names("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _names("DJANGO_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    # After Django's apps, whose post_migrate makes the permissions that our baseline grants.
    "core",
    "documents",
    "workflows",
    "backups",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "core.urls"
WSGI_APPLICATION = "core.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

_database: dict[str, Any]
if os.environ.get("DATABASE_URL"):
    _database = _database_of("DATABASE_URL")
else:
    VAR_DIR.mkdir(mode=0o700, exist_ok=True)
    _database = {"ENGINE": "django.db.backends.sqlite3", "NAME": VAR_DIR / "db.sqlite3"}
_options = _database.setdefault("OPTIONS", {})
if _database["ENGINE"] == "django.db.backends.mysql":
    # https://docs.djangoproject.com/en/5.2/ref/databases/#mysql-sql-mode: refuse values instead of truncating them.
    _options |= {"charset": "utf8mb4", "init_command": "SET sql_mode='STRICT_TRANS_TABLES'"}
    # Lets a restore hand its rows over as files, which is three times as fast. A server that is not to be trusted
    # could ask for other files, too.
    _options["local_infile"] = True
elif _database["ENGINE"] == "django.db.backends.sqlite3":
    # One writer at a time: the others wait for it for so many seconds, which only those can that begin as writers.
    _options |= {"timeout": 20, "transaction_mode": "IMMEDIATE"}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "core.User"
AUTHENTICATION_BACKENDS = ["core.authentication.Backend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
MEDIA_ROOT = Path(os.environ.get("MEDIA_ROOT") or VAR_DIR / "media")
# Documents are read through the application, which asks for permission; the web server has no business with them.
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o700

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage",
        "OPTIONS": {"file_permissions_mode": 0o644, "directory_permissions_mode": 0o755},
    },
    "backups": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": Path(os.environ.get("BACKUPS_ROOT") or VAR_DIR / "backups"),
            "base_url": None,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
}

BACKUPS = {
    "STORAGE": "backups",
    "APPEND_ONLY": ["core.AuditEvent"],
    "CONFIG_ROOT": BASE_DIR,
    "CONFIG_FILES": [".env"],
    "DEMO_COMMAND": "seed_demo",
    "RECIPIENTS": _names("BACKUPS_RECIPIENTS"),
    "SIGNING_KEY_FILE": os.environ.get("BACKUPS_SIGNING_KEY_FILE") or None,
    "TRUSTED_KEYS": _names("BACKUPS_TRUSTED_KEYS"),
    "SHOW_VALUES": _switch("BACKUPS_SHOW_VALUES", default=True),
    "DRILL_DAYS": _number("BACKUPS_DRILL_DAYS", 90),
}

HTTPS = _switch("DJANGO_HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
# Whether a whole domain speaks TLS only, for ever, is for its owner to declare.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if _switch("DJANGO_BEHIND_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
