from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

DOCUMENTED = {
    "DJANGO_SECRET_KEY": "Zb7mW1qKxv0TtPz9sYc4RgLd8HfUaEoJ2nQi6VwXk3BpMrCyN5",
    "DJANGO_ALLOWED_HOSTS": "edms.example.com",
    "BACKUPS_RECIPIENTS": "age1tp6e3anzzm5lw6y8zwmgq7ge34uv0h3u8hev884kh7shcypawf2qpmk7q2",
}


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "BACKUPS_"))}
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=settings.BASE_DIR,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A system that is not migrated yet, with its files on one volume and its packages on another."""
    volumes = (Path("/dev/shm"), Path(tempfile.gettempdir()), settings.BASE_DIR)
    others = [path for path in volumes if path.is_dir() and path.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("this machine has one volume alone")
    with tempfile.TemporaryDirectory(dir=others[0]) as other:
        yield {
            "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
            "MEDIA_ROOT": str(tmp_path / "media"),
            "BACKUPS_ROOT": str(Path(other) / "backups"),
        }


def test_deployment_check_is_clean_with_documented_variables(places: dict[str, str]) -> None:
    result = check(**DOCUMENTED, **places)
    assert result.returncode == 0, result.stderr


def test_deployment_check_names_what_is_missing(tmp_path: Path) -> None:
    result = check(
        DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3", MEDIA_ROOT=str(tmp_path), BACKUPS_ROOT=str(tmp_path)
    )
    assert result.returncode != 0
    for code in ("security.W009", "backups.W001", "backups.W002", "backups.W003"):
        assert code in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DJANGO_DEBUG", "yes", "DJANGO_DEBUG is 'yes'; hint: set it to 0 or 1"),
        ("BACKUPS_SHOW_VALUES", "yes", "BACKUPS_SHOW_VALUES is 'yes'; hint: set it to 0 or 1"),
        ("BACKUPS_DRILL_DAYS", "abc", "BACKUPS_DRILL_DAYS is 'abc'; hint: set it to a whole number"),
        ("BACKUPS_RECIPIENTS", "age1\udcfe", "BACKUPS_RECIPIENTS is not UTF-8"),
        ("DATABASE_URL", "postgres://me:secret#1@host:port/x", "DATABASE_URL is not the URL of a database"),
        ("DATABASE_URL", "secret", "DATABASE_URL is not the URL of a database"),
        ("DATABASE_URL", "oracle://me:secret@host/x", "DATABASE_URL names a database that is neither"),
    ],
)
def test_a_variable_of_no_use_is_named_in_one_line(name: str, value: str, words: str) -> None:
    result = check(**DOCUMENTED | {name: value})
    assert result.returncode == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.stderr


@pytest.mark.parametrize(("scheme", "module"), [("postgres", "psycopg"), ("mysql", "MySQLdb")])
def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str, module: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://me:secret@host/x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImproperlyConfigured, match=f"DATABASE_URL needs the Python module {module}; hint: pip install"):
        runpy.run_path(str(settings.BASE_DIR / "core" / "settings.py"))


@pytest.mark.parametrize(
    "name",
    [
        *("DATABASE_URL", "MEDIA_ROOT", "BACKUPS_ROOT", "EDMS_ADMIN_PASSWORD", *DOCUMENTED),
        *("BACKUPS_SIGNING_KEY_FILE", "BACKUPS_TRUSTED_KEYS", "BACKUPS_DRILL_DAYS"),
    ],
)
def test_variables_are_documented(name: str) -> None:
    source = (settings.BASE_DIR / "core" / "settings.py").read_text()
    assert f"\n{name} " in source.split('"""')[1]
