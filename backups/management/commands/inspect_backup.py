from argparse import ArgumentParser
from typing import Any

from backups.management.operate import EngineCommand, add_identity, failures_as_exit_codes, keys_of, write
from backups.package.manifest import Manifest
from backups.rendering import as_json, table, with_unit
from backups.reporting import printable
from backups.services.convert import parse_mapping
from backups.services.inspect import ForeignInspection, Inspection, inspect
from backups.services.trust import Signer
from backups.terminal import TerminalProgress


class Command(EngineCommand):
    operation = "inspect"
    help = "Show what is inside a package, and check every hash in it; or inside a fixture. Needs no database."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("package", help="a path, a name that list_backups shows, or latest")
        parser.add_argument("--json", action="store_true", help="print size, signer and manifest as one JSON object")
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="OLD=NEW",
            help="a fixture's model old_app.model is new_app.model",
        )
        add_identity(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with (
            failures_as_exit_codes(options, self.operation),
            TerminalProgress(self.stderr, verbosity=options["verbosity"]) as progress,
        ):
            inspection = inspect(options["package"], progress, keys_of(options), mapping=parse_mapping(options["map"]))
        if options["json"]:
            text = as_json(inspection.as_data())
        elif isinstance(inspection, ForeignInspection):
            text = printable(_foreign_text(inspection))
        else:
            text = printable(_text(inspection))
        write(text, self.stdout)


def _foreign_text(inspection: ForeignInspection) -> str:
    rows = [
        (
            model.model,
            str(model.objects),
            str(model.without_primary_key),
            str(model.by_primary_key),
            str(model.by_natural_key),
            model.known_as or "not in the code",
        )
        for model in inspection.models
    ]
    head = ("model", "objects", "without key", "refer by key", "by natural key", "known as")
    files = f"files: {inspection.files} with {with_unit(inspection.bytes)}"
    compression = inspection.compression or "not compressed"
    lines = [
        f"{inspection.name}  {with_unit(inspection.size)}",
        f"{inspection.kind}: {inspection.format}, {compression}, references: {inspection.references}",
        "",
        table(head, rows, right=(1, 2, 3, 4)),
        "",
        files if inspection.files or inspection.kind != "fixture" else "files: a fixture has none",
        *(f"configuration: {name}" for name in inspection.config),
        *(f"unknown: {name}" for name in inspection.unknown),
        "all of it can be read; convert_backup turns it into a package",
    ]
    return "\n".join(lines)


def _text(inspection: Inspection) -> str:
    manifest = inspection.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    engine = f"{manifest.engine['vendor']} {manifest.engine['version']}"
    lines = [
        f"{inspection.name}  {with_unit(inspection.size)}",
        f"{manifest.kind} {manifest.id} of {manifest.created:%Y-%m-%d %H:%M:%S} UTC, from {engine} ({versions})",
        _signer(inspection.signer),
        "",
        *_models(manifest),
        f"files: {manifest.files.count} with {with_unit(manifest.files.bytes)}, {manifest.files.missing} missing",
        *(f"configuration: {entry.member.removeprefix('config/')}" for entry in manifest.config),
        "all hashes checked: the package is whole",
    ]
    return "\n".join(lines)


def _signer(signer: Signer | None) -> str:
    if signer is None:
        return "not signed"
    name = f" ({signer.name})" if signer.name else ""
    trust = {True: "trusted", False: "NOT trusted", None: "BACKUPS['TRUSTED_KEYS'] names nobody to trust"}
    return f"signed by {signer.fingerprint}{name}: {trust[signer.trusted]}"


def _models(manifest: Manifest) -> list[str]:
    rows = [
        (
            entry.label,
            str(entry.rows),
            f"{entry.identity.rule.replace('_', ' ')} ({', '.join(entry.identity.fields) or 'natural_key()'})",
            with_unit(sum(chunk.size for chunk in entry.chunks)),
        )
        for entry in manifest.models
        if entry.rows
    ]
    empty = [entry.label for entry in manifest.models if not entry.rows]
    return [
        table(("model", "rows", "identity", "size"), rows, right=(1, 3)),
        f"without rows: {', '.join(empty) or 'none'}",
        *(f"left out: {entry.label} ({entry.rows} rows): {entry.reason}" for entry in manifest.excluded),
        *(f"left out: table {entry.table} ({entry.rows} rows): no model has it" for entry in manifest.unknown_tables),
        "",
    ]
