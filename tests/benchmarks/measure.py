"""One engine at one scale: we and the peers in turn, round by round, each result verified before its time counts."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps

from backups import conf
from tests.benchmarks import figures, peers
from tests.benchmarks.figures import Figures, Sample, Series, Unverified
from tests.benchmarks.processes import Pipeline, Run, run
from tests.benchmarks.scratch import MIGRATIONS, Database, Server, System

DJANGO_ROWS = 20_000
"""Django's own dump and load take minutes beyond this many rows, and are run once up to them."""

Tell = Callable[[str], None]


class Measurement:
    """Measures a system that is made and seeded for it. ``tell`` gets a line for each run."""

    def __init__(self, server: Server, *, scale: int, runs: int, with_peers: bool, tell: Tell) -> None:
        self.server = server
        self.peer = peers.of(server.engine)
        self.scale = scale
        self.runs = runs
        self.with_peers = with_peers
        self.tell = tell
        self.figures = Figures(engine=server.engine, scale=scale)
        self.directory = server.directory
        self._round = 0

    def run(self) -> Figures:
        """Measure everything, ``runs`` times."""
        self.tell("seeding")
        source = System(self.server)
        target = System(self.server) if self.with_peers else None
        source.require("seed_demo", f"--scale={self.scale}", "--verbosity=0")
        for number in range(self.runs):
            self._round = number
            self._ours_and_theirs(source, target)
            if self.figures.of(figures.CREATE).refused or self.figures.of(figures.RESTORE).refused:
                break  # what is left is not the system that was to be measured
        self._stages(source)
        for system in (source, target):
            if system is not None:
                system.drop()
        return self.figures

    def _ours_and_theirs(self, source: System, target: System | None) -> None:
        source.database.settle()
        counts = source.database.counts()
        with self._series(figures.CREATE):
            package = self._create(source, counts)
            with self._series(figures.VALIDATE):
                self._validate(source, package)
            # The dump is of the system as it is now: each operation has added its own report to it.
            if target is not None:
                self._native(source, target.database)
                if self.scale <= DJANGO_ROWS and not self._round:
                    self._django(source, target)
            source.require("reinit_system", "--no-input", "--no-safety-backup", "--verbosity=0")
            source.database.settle()
            with self._series(figures.RESTORE):
                self._restore(source, package, counts)
            package.unlink()

    # Ours

    def _create(self, source: System, counts: dict[str, int]) -> Path:
        package = self.directory / f"{self.scale}-{self._round}.zip"
        ran, report = self._operate(source, "create_backup", f"--output={package}")
        with zipfile.ZipFile(package) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        _require_equal(
            {entry["label"]: entry["rows"] for entry in manifest["models"]},
            {entry["label"]: counts[_table(entry["label"])] for entry in manifest["models"]},
        )
        chunks = [chunk for entry in manifest["models"] for chunk in entry["chunks"]]
        self.figures.rows = sum(entry["rows"] for entry in manifest["models"])
        self.figures.bytes = sum(chunk["bytes"] for chunk in chunks)
        self._add(figures.CREATE, ran, size=package.stat().st_size, report=report)
        return package

    def _validate(self, source: System, package: Path) -> None:
        ran, report = self._operate(source, "validate_restore", str(package))
        self._add(figures.VALIDATE, ran, report=report)

    def _restore(self, source: System, package: Path, counts: dict[str, int]) -> None:
        ran, report = self._operate(source, "restore_backup", "--no-input", str(package))
        found = source.database.counts()
        appended = {apps.get_model(label)._meta.label_lower for label in conf.read().append_only}
        labels = [result["model"] for result in report["models"]]
        for label in labels:
            expected, there = counts[_table(label)], found[_table(label)]
            if there < expected or (there > expected and label not in appended):
                raise Unverified(f"{label} has {there} rows after the restore, and had {expected}")
        self._add(figures.RESTORE, ran, report=report)

    def _stages(self, source: System) -> None:
        out = self.directory / "stages.json"
        command = [sys.executable, "-m", "tests.benchmarks.stages"]
        _succeeded(run(Pipeline(stages=[command], environment=source.environment, stdout=out)))
        found = json.loads(out.read_bytes())
        if found["rows"]:
            self.figures.stages = {name: 1e6 * taken / found["rows"] for name, taken in found["seconds"].items()}

    def _operate(self, system: System, *arguments: str) -> tuple[Run, dict[str, Any]]:
        out = self.directory / "report.json"
        ran = system.manage(*arguments, "--json", out=out)
        if ran.failure:
            raise Unverified(ran.failure)
        report: dict[str, Any] = json.loads(out.read_bytes())
        if report["verdict"] != "proved":
            raise Unverified(f"the verdict is {report['verdict']}")
        return ran, report

    # Theirs

    def _native(self, source: System, migrated: Database) -> None:
        peer, dump = self.peer, self.directory / "dump"
        counts = source.database.counts()
        with self._series(figures.DUMP, peer.dump_name):
            self._require_tools()
            ran = _succeeded(run(peer.dump(source.database, dump)))
            self._add(figures.DUMP, ran, size=dump.stat().st_size)
            with self._series(figures.LOAD, peer.load_name):
                with _empty_database(self.server) as database:
                    ran = _succeeded(run(peer.load(dump, database)))
                    _require_equal(database.counts(), counts)
                self._add(figures.LOAD, ran)
            if peer.data_load_name:
                with self._series(figures.LOAD_DATA, peer.data_load_name):
                    migrated.empty()
                    ran = _succeeded(run(peer.load_data(dump, migrated)))
                    _require_equal(migrated.counts(), counts)
                    self._add(figures.LOAD_DATA, ran)
        dump.unlink(missing_ok=True)

    def _django(self, source: System, target: System) -> None:
        fixture = self.directory / "fixture.json"
        counts = source.database.counts()
        with self._series(figures.DUMPDATA):
            ran = _succeeded(source.manage("dumpdata", "--natural-foreign", f"--output={fixture}"))
            self._add(figures.DUMPDATA, ran, size=fixture.stat().st_size)
            with self._series(figures.LOADDATA):
                peers.make_loadable(fixture)
                target.database.empty(keep=frozenset([MIGRATIONS]))
                ran = _succeeded(target.manage("loaddata", str(fixture)))
                found = target.database.counts()
                # The one table that is no model's has other times in it, and maybe other rows.
                _require_equal(found | {MIGRATIONS: 0}, counts | {MIGRATIONS: 0})
                self._add(figures.LOADDATA, ran)
        fixture.unlink(missing_ok=True)

    def _require_tools(self) -> None:
        if missing := self.peer.missing:
            raise Unverified(f"not installed: {', '.join(missing)}")

    # Figures

    @contextmanager
    def _series(self, name: str, title: str = "") -> Iterator[Series]:
        """Refuse figures for a series of which one run does not verify, and for nothing else."""
        series = self.figures.of(name, title)
        try:
            yield series
        except Unverified as reason:
            series.refused = series.refused or str(reason)
            self.tell(f"round {self._round + 1}: {series.title}: {reason}")

    def _add(self, name: str, ran: Run, *, size: int = 0, report: dict[str, Any] | None = None) -> None:
        steps = {step["name"]: step["seconds"] for step in report["steps"]} if report else {}
        series = self.figures.of(name)
        series.samples[self._round] = Sample(seconds=ran.seconds, peak=ran.peak, size=size, steps=steps)
        self.tell(f"round {self._round + 1}: {series.title}: {ran.seconds:.2f} s")


def measure_start(server: Server, *, runs: int, tell: Tell) -> Figures:
    """Measure what every command costs before it does anything, against ``manage.py check``."""
    found = Figures(engine=server.engine, scale=0)
    system = System(server)
    system.require("seed_demo", "--verbosity=0")
    for number in range(runs):
        for name, arguments in (
            (figures.CREATE_DEMO, ["create_backup", f"--output={server.directory / f'demo-{number}.zip'}"]),
            (figures.CHECK, ["check"]),
        ):
            ran = system.manage(*arguments)
            series = found.of(name)
            series.refused = series.refused or ran.failure
            series.samples[number] = Sample(seconds=ran.seconds, peak=ran.peak)
            tell(f"round {number + 1}: {name}: {ran.failure or f'{ran.seconds:.2f} s'}")
    system.drop()
    return found


@contextmanager
def _empty_database(server: Server) -> Iterator[Database]:
    database = server.new_database()
    try:
        yield database
    finally:
        server.drop(database)


def _succeeded(ran: Run) -> Run:
    if ran.failure:
        raise Unverified(ran.failure)
    return ran


def _require_equal(found: dict[str, int], expected: dict[str, int]) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise Unverified(f"{name} has {found.get(name)} rows, and should have {expected.get(name)}")


def _table(label: str) -> str:
    return str(apps.get_model(label)._meta.db_table)
