"""Rehearsing a recovery in a scratch system, without touching the live one."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from django.core.management import call_command

from backups import conf
from backups.errors import UsageError
from backups.reporting import NoProgress, Progress, Report, Verdict
from backups.services.catalogue import LATEST, package_path
from backups.services.create import CreateOptions, create_backup
from backups.services.keys import Keys, throwaway
from backups.services.operation import operation, step
from backups.services.plan import Mode
from backups.services.reinit import ReinitOptions, reinit_system
from backups.services.restore import RestoreOptions, restore
from backups.services.sandbox import SCRATCH, remove_left, sandbox
from backups.services.validate import ValidateOptions, validate_restore


@dataclass(frozen=True, kw_only=True)
class DrillOptions:
    """``package`` is a path, a catalogue name or ``latest``; with ``demo``, the drill makes its own."""

    package: str = LATEST
    using: str = "default"
    demo: bool = False
    keys: Keys = field(default_factory=Keys)


def recovery_drill(options: DrillOptions, progress: Progress | None = None) -> Report:
    """Restore a package into a scratch database on the same engine, prove it, and drop the scratch database.

    With ``demo`` the whole story is played there from nothing: seed, back up, re-initialise, restore, validate.
    The report is kept in the live database, where that has the tables for it.
    """
    # Where the scratch system is, for whoever finds that this drill has died.
    kept: dict[str, object] = {"demo": options.demo, SCRATCH: tempfile.gettempdir()}
    report = Report(operation="drill", database=options.using, options=kept)
    progress = progress or NoProgress()
    with operation(report, "drill"):
        remove_left(options.using)
        if options.demo:
            _play_demo(report, options, progress)
        else:
            with package_path(options.package, options.keys) as (path, name):
                report.package = name
                _rehearse(report, options, path, progress)
        # Again: a server goes on making a database for a client that has died, and may only now be done.
        remove_left(options.using)
    return report


def _rehearse(report: Report, options: DrillOptions, package: Path, progress: Progress) -> None:
    with ExitStack() as stack:
        with step(report, "create scratch system"):
            stack.enter_context(sandbox(options.using))
        _restore_and_validate(report, options, str(package), Keys(), progress)
        with step(report, "drop scratch system"):
            stack.close()


def _play_demo(report: Report, options: DrillOptions, progress: Progress) -> None:
    command = conf.read().demo_command
    if not command:
        raise UsageError("no demo data", hint="name a command that makes some in BACKUPS['DEMO_COMMAND']")
    with ExitStack() as stack:
        with step(report, "create scratch system"):
            stack.enter_context(sandbox(options.using))
        with step(report, "seed"):
            call_command(command, database=options.using, verbosity=0)
        with step(report, "back up"):
            # Where packages are encrypted, so is this one, to a key that the drill has and nobody else ever gets.
            recipients, keys = throwaway() if conf.read().recipients else ((), Keys())
            backup = CreateOptions(using=options.using, encrypt_to=recipients)
            report.package = create_backup(backup, progress).package
        with step(report, "re-initialise"):
            reinit_system(ReinitOptions(using=options.using), progress)
        _restore_and_validate(report, options, report.package, keys, progress)
        with step(report, "drop scratch system"):
            stack.close()


def _restore_and_validate(report: Report, options: DrillOptions, package: str, keys: Keys, progress: Progress) -> None:
    using = options.using
    with step(report, "restore"):
        # A scratch system has the baseline, of which the package may lack a row that somebody has renamed or deleted.
        wanted = RestoreOptions(package=package, using=using, mode=Mode.REPLACE, safety_backup=False, keys=keys)
        restored = restore(wanted, progress)
    report.models, report.files = restored.models, restored.files
    report.findings += restored.findings
    report.verdict = restored.verdict
    if restored.verdict is Verdict.PROVED:
        with step(report, "validate"):
            validated = validate_restore(ValidateOptions(package=package, using=using, keys=keys), progress)
        report.findings += [finding for finding in validated.findings if finding not in report.findings]
        report.verdict = validated.verdict
