"""A project that is not ours, with ``backups`` added and nothing else, gets back what its apps had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests import oracle
from tests.engines import ENGINES
from tests.systems import Engine, connected

ROOT = Path(__file__).parent.parent.parent
SETTINGS = "tests.stranger.settings"

# What each table says, with each reference followed to what it means. None shows a key that a database made up.
MEANINGS = {
    "users": "SELECT username, password, is_active, date_joined FROM auth_user",
    "groups": """SELECT u.username, g.name FROM auth_user_groups x
        JOIN auth_user u ON u.id = x.user_id JOIN auth_group g ON g.id = x.group_id""",
    "tokens": 'SELECT u.username, t."key", t.created FROM authtoken_token t JOIN auth_user u ON u.id = t.user_id',
    "sites": "SELECT domain, name FROM django_site",
    "pages": """SELECT s.domain, p.url, p.title, p.content FROM django_flatpage_sites x
        JOIN django_site s ON s.id = x.site_id JOIN django_flatpage p ON p.id = x.flatpage_id""",
    "redirects": """SELECT s.domain, r.old_path, r.new_path FROM django_redirect r
        JOIN django_site s ON s.id = r.site_id""",
    "tasks": """SELECT t.name, t.kwargs, i.every, i.period, c.minute, c.hour, c.timezone, s.event, s.latitude,
        k.clocked_time, t.date_changed FROM django_celery_beat_periodictask t
        LEFT JOIN django_celery_beat_intervalschedule i ON i.id = t.interval_id
        LEFT JOIN django_celery_beat_crontabschedule c ON c.id = t.crontab_id
        LEFT JOIN django_celery_beat_solarschedule s ON s.id = t.solar_id
        LEFT JOIN django_celery_beat_clockedschedule k ON k.id = t.clocked_id""",
    "books": """SELECT b.isbn, b.title, b.cover, b.added, a.name, u.username FROM library_book b
        JOIN library_author a ON a.id = b.author_id LEFT JOIN auth_user u ON u.id = b.lent_to_id""",
    "genres": """SELECT b.isbn, g.name FROM library_book_genres x
        JOIN library_book b ON b.id = x.book_id JOIN library_genre g ON g.id = x.genre_id""",
    "tags": """SELECT b.isbn, t.name, t.slug, c.model FROM taggit_taggeditem x JOIN library_book b ON b.id = x.object_id
        JOIN taggit_tag t ON t.id = x.tag_id JOIN django_content_type c ON c.id = x.content_type_id""",
    "permissions of users": """SELECT u.username, p.codename, b.isbn FROM guardian_userobjectpermission x
        JOIN auth_user u ON u.id = x.user_id JOIN auth_permission p ON p.id = x.permission_id
        JOIN library_book b ON b.id = x.object_pk""",
    "permissions of groups": """SELECT g.name, p.codename, b.isbn FROM guardian_groupobjectpermission x
        JOIN auth_group g ON g.id = x.group_id JOIN auth_permission p ON p.id = x.permission_id
        JOIN library_book b ON b.id = x.object_pk""",
    "history of authors": """SELECT h.name, h.history_date, h.history_type, a.name FROM library_historicalauthor h
        LEFT JOIN library_author a ON a.id = h.id""",
    "history of books": """SELECT h.isbn, h.title, h.history_date, h.history_type, b.isbn, a.name, u.username
        FROM library_historicalbook h LEFT JOIN library_book b ON b.id = h.id
        LEFT JOIN library_author a ON a.id = h.author_id LEFT JOIN auth_user u ON u.id = h.lent_to_id""",
    "history of genres": """SELECT h.title, h.history_date, b.isbn, g.name FROM library_historicalbook_genres x
        JOIN library_historicalbook h ON h.history_id = x.history_id
        LEFT JOIN library_book b ON b.id = x.book_id LEFT JOIN library_genre g ON g.id = x.genre_id""",
}

PERMISSIONS = ("permissions of users", "permissions of groups")
Meanings = dict[str, Counter[tuple[Any, ...]]]


class Library:
    """The project, run as its owner would: one process for each command."""

    def __init__(self, configuration: dict[str, Any], url: str, directory: Path) -> None:
        self.configuration = configuration
        self.directory = directory
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "TMPDIR"}},
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "LIBRARY_ROOT": str(directory),
            "PYTHONPATH": str(ROOT),
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a management command and return its stdout."""
        done = self._python("-m", "django", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def modules(self) -> set[str]:
        """Return the top-level modules that are imported once the project is set up."""
        done = self._python("-c", "import sys, django; django.setup(); print(*sys.modules)")
        return {name.split(".")[0] for name in done.stdout.split()}

    def meanings(self) -> Meanings:
        with connected(self.configuration), connections["default"].cursor() as cursor:
            if connections["default"].vendor == "mysql":
                cursor.execute("SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')")
            found = {}
            for name, statement in MEANINGS.items():
                if connections["default"].vendor != "sqlite":  # which compares text with numbers as it should
                    statement = statement.replace("ON b.id = x.object_pk", "ON CAST(b.id AS CHAR(20)) = x.object_pk")
                cursor.execute(statement)
                found[name] = Counter(cursor.fetchall())
            return found

    def files(self) -> dict[str, str]:
        return oracle.files(self.directory / "media")

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.directory, env=self._environment, capture_output=True, text=True
        )


@pytest.fixture(scope="module", params=ENGINES)
def migrated(
    request: pytest.FixtureRequest, engines: Callable[[str], Engine], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, dict[str, Any]]:
    engine = engines(request.param)
    configuration = engine.empty()
    library = Library(configuration, engine.url(configuration), tmp_path_factory.mktemp("library"))
    library.run("migrate", "--verbosity", "0")
    return engine, configuration


@pytest.fixture
def library(migrated: tuple[Engine, dict[str, Any]], tmp_path: Path) -> Library:
    engine, template = migrated
    configuration = engine.copy(template)
    return Library(configuration, engine.url(configuration), tmp_path)


def test_three_lines_of_settings_are_all_it_takes() -> None:
    settings = (ROOT / "tests/stranger/settings.py").read_text()
    added = settings.split("# All that it takes to have backups.\n")[1].splitlines()
    assert len(added) == 3
    assert "BACKUPS" not in settings


def test_everything_comes_back_whatever_the_keys(library: Library) -> None:
    library.run("fill_library")
    before, files = library.meanings(), library.files()
    assert all(before.values())
    assert len(files) == 3
    library.run("create_backup")
    (package,) = (library.directory / "packages").glob("backup-*.zip")

    library.run("reinit_system", "--no-input")
    library.run("restore_backup", str(package))
    assert library.meanings() == before
    assert library.files() == files
    library.run("validate_restore", str(package))

    library.run("flush", "--no-input")
    library.run("fill_library", "--again")  # whose rows have the keys now
    others = library.meanings()
    library.run("restore_backup", str(package))
    merged = library.meanings()
    for name, rows in before.items():
        assert rows <= merged[name], name
    for name in ("groups", "tokens", "redirects", "books", "genres", "tags", *PERMISSIONS):
        assert others[name] <= merged[name], name
    library.run("validate_restore", str(package), "--allow-extra")

    library.run("restore_backup", str(package), "--mode", "replace", "--no-input")
    assert library.meanings() == before
    library.run("validate_restore", str(package))


def test_the_history_of_what_is_gone_is_not_given_to_another_row(library: Library) -> None:
    library.run("fill_library")
    library.run("create_backup")
    library.run("flush", "--no-input")
    library.run("fill_library", "--again")
    library.run("shell", "--command", "Author.objects.create(name='whose key was that of the author who is gone')")
    before = library.meanings()

    refused = library.run("restore_backup", "latest", code=3)

    assert "error reference_dangling library.historicalauthor" in refused
    assert library.meanings() == before


def test_nothing_of_ours_is_needed_and_nothing_is_missing(library: Library) -> None:
    assert {"core", "documents", "workflows"} & library.modules() == set()
    assert library.run("check").startswith("System check identified no issues")
    assert "No changes detected" in library.run("makemigrations", "--check", "--dry-run")
