"""Pipelines of real processes, timed from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Processes, each reading what the one before writes. ``environment`` is added to ours."""

    stages: Sequence[Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: Path | None = None
    stdout: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a pipeline ended. ``peak`` is the resident memory of its largest process in bytes."""

    seconds: float
    peak: int
    codes: Sequence[int]
    err: str

    @property
    def failure(self) -> str:
        """Why it is not a success, in one line; empty where it is one."""
        if not any(self.codes):
            return ""
        lines = self.err.strip().splitlines() or ["no message"]
        return f"exit code {', '.join(map(str, self.codes))}: {lines[-1]}"


def run(pipeline: Pipeline) -> Run:
    """Run a pipeline to its end, from the project's directory."""
    order = {
        "stages": [list(stage) for stage in pipeline.stages],
        "stdin": str(pipeline.stdin) if pipeline.stdin else None,
        "stdout": str(pipeline.stdout) if pipeline.stdout else None,
    }
    # What was written before is not to be flushed on the time of who comes next.
    os.sync()
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(LAUNCH), json.dumps(order)],
        env={**os.environ, **pipeline.environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = launcher.communicate()
    except BaseException:  # an interrupted benchmark leaves nobody behind who works on its databases
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.communicate()
        raise
    if launcher.returncode:
        raise RuntimeError(f"{pipeline.stages[0][0]} could not be started: {err.strip()}")
    return Run(err=err, **json.loads(out))
