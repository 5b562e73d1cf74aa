"""Reports as text and JSON."""

from __future__ import annotations

import json

from backups.reporting import Report, as_data, most_severe_first


def render_json(report: Report) -> str:
    return json.dumps(as_data(report), indent=2, ensure_ascii=False)


def render_text(report: Report) -> str:
    lines = []
    for r in report.models:
        if r.package or r.before or r.after:
            lines.append(
                f"{r.model:40} {r.package:8} {r.before:8} {r.created:8} {r.updated:8} {r.unchanged:8} {r.deleted:8} {r.after:8} {r.proved}"
            )
    lines.append(str(report.files))
    for f in most_severe_first(report.findings)[:50]:
        lines.append(
            f"{f.severity} {f.code} {f.model} {list(f.identity)} {f.field}: {f.message} expected {f.expected} found {f.found}"
        )
    lines += [f"{s.name} {s.seconds:.2f}" for s in report.steps]
    lines.append(f"{report.verdict} {report.package} {report.error}")
    return "\n".join(lines)
