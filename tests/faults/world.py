"""A system that faults happen to: its database, its files, its commands as processes, and what it looks like."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.servers import Server, Tables
from tests.faults.servers import server as default_server
from tests.faults.zygote import Process, Zygote

ROOT = Path(__file__).resolve().parents[2]
FULL, EMPTY = "full", "empty"
"""The states that operations start from: edited since the backup, and re-initialised since."""

DAMAGE = (
    "UPDATE documents_document SET title = 'edited since' WHERE id % 3 = 0",
    "DELETE FROM workflows_workflowtransition WHERE id % 5 = 0",
    "INSERT INTO documents_documenttype (code, name, description, review_months) VALUES ('LATE', 'late', '', 12)",
)
REFERENCES_FOLLOWED = 4
"""How far rows are told apart by what those say that they refer to."""
TRAIL = "core_auditevent"
"""The table of the audit trail, of which a state has what is older than the operations."""
NEVER = 124
"""Exit code of a process that did not end, as ``timeout`` has it."""
PATIENCE = 20
"""Seconds until what a dead process has left must not stop anybody: its server has to notice first."""


@dataclass(frozen=True)
class State:
    """What a system holds, without what merely tells of operations."""

    rows: Tables
    sequences: dict[str, str]
    schema: list[str]
    media: dict[str, str]
    skipped: int = 0
    """How far a crash may have left its sequences ahead."""

    def differences(self, other: State) -> str:
        """Name where two states differ; empty where they do not."""
        found = [
            f"{table}: {len(set(rows) ^ set(other.rows.get(table, [])))} rows differ"
            for table, rows in self.rows.items()
            if rows != other.rows.get(table)
        ]
        found += [
            f"{what} {sorted(set(mine.items()) ^ set(theirs.items()))[:4]}"
            for what, mine, theirs in (
                ("sequences", self.sequences, self._without_skips(other)),
                ("media", self.media, other.media),
            )
            if mine != theirs
        ]
        found += ["schema"] if self.schema != other.schema else []
        return "; ".join(found)

    def _without_skips(self, other: State) -> dict[str, str]:
        """Return the sequences of another state, with our values where theirs are no further ahead than may be."""
        return {
            name: self.sequences.get(name, value) if other.skipped and self._may_be(name, value, other) else value
            for name, value in other.sequences.items()
        }

    def _may_be(self, name: str, value: str, other: State) -> bool:
        ours, theirs = (int(text.split()[0]) for text in (self.sequences.get(name, value), value))
        return 0 <= theirs - ours <= other.skipped


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str


class World:
    """A live system, the states that it can be put back to, and a place for everything that it writes."""

    def __init__(self, engine: str, *, scale: int = 0, server: Server | None = None) -> None:
        self.engine = engine
        self.skipped = 0
        """How far ahead of its values a sequence may be, since the server was killed."""
        self.directory = Path(tempfile.mkdtemp(prefix=f"faults-{engine}-"))
        self.server = server or default_server(engine, self.directory)
        self.name = f"faults_{uuid.uuid4().hex[:10]}"
        self.live = self.directory / "live"
        self.media, self.packages, self.scratch = (self.live / name for name in ("media", "packages", "tmp"))
        for directory in (self.media, self.packages, self.scratch):
            directory.mkdir(parents=True)
        self.server.create(self.name)
        self._zygote = Zygote(ROOT, self.directory, self.environment)
        try:
            self._prepare(scale)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._zygote.close()
        for name in (self.name, f"{self.name}_{FULL}", f"{self.name}_{EMPTY}"):
            self.server.drop(name)
        for name in self.left_databases():
            self.server.drop(name)
        shutil.rmtree(self.directory)

    @property
    def package(self) -> Path:
        """The package that restores and drills are about."""
        return self.directory / "package.zip"

    def _prepare(self, scale: int) -> None:
        self.must("migrate", "--verbosity", "0")
        self.must("seed_demo", "--scale", str(scale), "--verbosity", "0")
        for code in ("FAULTS-A", "FAULTS-B"):  # a pair of rows for writers, who keep its sum
            self.server.query(
                self.name,
                "INSERT INTO documents_documenttype (code, name, description, review_months)"
                f" VALUES ('{code}', 'pair', '', 500)",
            )
        self.must("create_backup", "--output", str(self.package))
        self._keep_as("seeded")
        self.must("reinit_system", "--no-input", "--no-safety-backup")
        self._keep_as(EMPTY)
        self.reset("seeded")
        for sql in DAMAGE:
            self.server.query(self.name, sql)
        for path in sorted(path for path in self.media.rglob("*") if path.is_file())[:2]:
            path.write_bytes(b"edited since")
        self._keep_as(FULL)
        self.server.drop(f"{self.name}_seeded")
        self.begun = datetime.now(UTC).replace(microsecond=0)
        time.sleep(1.1)  # what has been stamped until now is older than what will be

    def _keep_as(self, state: str) -> None:
        self.server.copy(self.name, f"{self.name}_{state}")
        shutil.copytree(self.media, self.directory / state)

    def reset(self, state: str) -> None:
        """Put rows and files back; packages and temporary files are gone."""
        self.skipped = 0
        self.server.copy(f"{self.name}_{state}", self.name)
        for directory in (self.media, self.packages, self.scratch):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.directory / state, self.media)
        self.packages.mkdir()
        self.scratch.mkdir()

    # Commands

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.server.url(self.name),
            "MEDIA_ROOT": str(self.media),
            "BACKUPS_ROOT": str(self.packages),
            "TMPDIR": str(self.scratch),
            "DJANGO_SECRET_KEY": "of the faults " * 5,
            "PATH": os.environ.get("PATH", ""),
        }

    def start(self, *command: str, host: str = "", clock: float = 0) -> Process:
        return self._zygote.start(command, host=host, clock=clock)

    def run(self, *command: str, host: str = "", clock: float = 0) -> Ended:
        """Run a command to its end; a refusal because of one that has just died is tried again for a while."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = self.end(self.start(*command, host=host, clock=clock))
            if ended.code != 6 or " is running on database" not in ended.err or time.monotonic() > deadline:
                return ended
            time.sleep(0.2)

    def must(self, *command: str, clock: float = 0) -> Ended:
        ended = self.run(*command, clock=clock)
        if ended.code:
            raise RuntimeError(f"{' '.join(command)} ended with {ended.code}: {ended.err or ended.out}")
        return ended

    @staticmethod
    def end(process: Process, timeout: float = 90) -> Ended:
        """Wait for the end. A process that somebody else has stopped meanwhile is waited for again, a while."""
        code = NEVER
        for _ in range(10):
            try:
                code = process.wait(timeout)
                break
            except subprocess.TimeoutExpired:
                if not process.is_stopped():
                    break
        if code == NEVER:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return Ended(code, process.out.read_text(), process.err.read_text())

    # What is there

    def state(self) -> State:
        rows = {
            table: [_masked(row, self.begun) for row in rows] for table, rows in self.server.rows(self.name).items()
        }
        events = self.server.query(self.name, "SELECT hash, time FROM core_auditevent")
        old = [str(hashed) for hashed, time in events if str(time) < f"{self.begun:%Y-%m-%d %H:%M:%S}"]
        rows[TRAIL] = [(("hash", hashed),) for hashed in old]
        return State(
            rows={table: sorted(found) for table, found in rows.items()},
            sequences=self.server.sequences(self.name),
            schema=self.server.schema(self.name),
            media=media(self.media),
            skipped=self.skipped,
        )

    def without_keys(self, state: State) -> State:
        """Return a state with what a row says in place of each key that refers to it: numbers may be given anew."""
        targets = self.server.references(self.name)
        said: dict[tuple[str, str], str] = {}

        def spelt_out(table: str, row: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
            return tuple(
                (column, said.get((targets[table, column], value), "") if (table, column) in targets else value)
                for column, value in row
                if column != "id"
            )

        for _ in range(REFERENCES_FOLLOWED):
            said = {
                (table, value): hashlib.sha256(repr(spelt_out(table, row)).encode()).hexdigest()
                for table, rows in state.rows.items()
                for row in rows
                for column, value in row
                if column == "id"
            }
        rows = {table: sorted(spelt_out(table, row) for row in found) for table, found in state.rows.items()}
        return State(rows=rows, sequences={}, schema=state.schema, media=state.media)

    def finished(self, kind: str = "") -> list[Path]:
        """Return the files that look like finished packages."""
        return sorted(path for path in self.packages.iterdir() if path.name.startswith(kind or ("backup-", "safety-")))

    def litter(self) -> list[str]:
        """Name what a process that died may have left, and its successor should have removed."""
        found = [path.name for path in self.packages.iterdir() if path not in self.finished()]
        found += [path.name for path in self.media.iterdir() if path.name.startswith(".")]
        found += [path.name for path in self.scratch.iterdir()]
        return found + self.left_databases()

    def left_databases(self) -> list[str]:
        """Return the scratch databases of this system's drills: their names carry a checksum of its own."""
        where = self.server.url(self.name).partition("@")[2].replace(f"/{self.name}", "")
        whole = f"{where}/{self.name}"
        return self.server.databases(f"drill_{zlib.crc32(whole.encode()):08x}_")

    def reports(self) -> list[tuple[str, str, str, bool]]:
        """Return operation, state, verdict and whether it has committed of each report, oldest first."""
        rows = self.server.query(
            self.name, "SELECT operation, state, verdict, committed FROM backups_restorereport ORDER BY started"
        )
        return [(operation, state, verdict, bool(committed)) for operation, state, verdict, committed in rows]

    @contextmanager
    def on_a_small_disk(self, directory: Path, pages: int) -> Iterator[None]:
        """Put a directory and what it holds on a disk of its own, with so many pages of 4 KiB free.

        Raises ``PermissionError`` where nobody may.
        """
        pages += sum(-(-path.stat().st_size // 4096) for path in directory.rglob("*") if path.is_file())
        with tempfile.TemporaryDirectory() as kept:
            shutil.copytree(directory, kept, dirs_exist_ok=True)
            mount("-t", "tmpfs", "-o", f"size={4 * pages}k,mode=700", "faults", str(directory))
            try:
                shutil.copytree(kept, directory, dirs_exist_ok=True)
                yield
            finally:
                subprocess.run(["umount", "--lazy", str(directory)], check=True)

    @contextmanager
    def read_only(self, directory: Path) -> Iterator[None]:
        """Make a directory one that cannot be written. Raises ``PermissionError`` where nobody may."""
        mount("--bind", str(directory), str(directory))
        try:
            mount("-o", "remount,bind,ro", str(directory))
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)


def media(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def broken(package: Path) -> str:
    """Say what is wrong with a file that looks like a finished package; empty where it is sound."""
    try:
        with zipfile.ZipFile(package) as archive:
            if bad := archive.testzip():
                return f"{package.name}: {bad} is damaged"
            manifest: Any = json.loads(archive.read("manifest.json"))
            members = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        return f"{package.name}: {error}"
    expected = {chunk["member"]: chunk["sha256"] for model in manifest["models"] for chunk in model["chunks"]}
    expected |= {name: name.removeprefix("files/") for name in members if name.startswith("files/")}
    wrong = [name for name, sha256 in expected.items() if members.get(name) != sha256]
    return f"{package.name}: {wrong} are not what the manifest says" if wrong else ""


def mount(*arguments: str) -> None:
    """Raise ``PermissionError`` where nobody may."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())


def _masked(row: tuple[tuple[str, str], ...], begun: datetime) -> tuple[tuple[str, str], ...]:
    """Leave out what is never the same twice: the moment of a new row, and the salt of a password that is none."""
    now = f"{begun:%Y-%m-%d %H:%M:%S}"
    return tuple(
        (
            column,
            "now" if _is_time(value) and value >= now else "!" if column == "password" and value[:1] == "!" else value,
        )
        for column, value in row
    )


def _is_time(value: str) -> bool:
    return len(value) >= 19 and value[4] == "-" and value[10] == " " and value[13] == ":"
