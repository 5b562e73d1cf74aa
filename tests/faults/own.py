"""Servers and disks of one's own, which can be killed, filled and started again while nobody else uses them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path

from tests.faults.servers import Server, server
from tests.faults.world import World, mount

DISK = "400m"
PATIENCE = 60
"""Seconds until a server has recovered from a crash."""
POSTGRESQL = (
    *("-c", "unix_socket_directories=", "-c", "max_wal_size=8MB", "-c", "min_wal_size=4MB"),
    *("-c", "listen_addresses=127.0.0.1"),
)
MARIADB = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--skip-log-bin", "--bind-address=127.0.0.1")


FULL = re.compile("No space left|[Dd]isk is full|[Ee]rr(?:no|or):? 28|starting crash recovery", re.IGNORECASE)
"""What servers say of a full disk; one that says nothing and dies of it recovers."""


class Own:
    """A disk in memory, where that is permitted, with the database of one engine on it, and its server."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.directory = Path(tempfile.mkdtemp(prefix=f"faults-own-{engine}-"))
        self.is_small = True
        try:
            mount("-t", "tmpfs", "-o", f"size={DISK},mode=755", "faults", str(self.directory))
        except PermissionError:
            self.is_small = False
        self.directory.chmod(0o755)
        self._data, self._log = self.directory / "data", self.directory / "log"
        self._said = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        try:
            if engine != "sqlite":
                self._install()
                self.start()
        except BaseException:
            self.close()
            raise

    @property
    def server(self) -> Server:
        return server(self.engine, self.directory, self._url)

    @property
    def _url(self) -> str:
        names = {"postgresql": "postgres://faults@127.0.0.1:{}/postgres", "mariadb": "mysql://root@127.0.0.1:{}/mysql"}
        return names.get(self.engine, "").format(self._port)

    def start(self) -> None:
        """Start the server and wait until it answers, again where it does not survive what it finds."""
        deadline = time.monotonic() + PATIENCE
        driver = import_module({"postgresql": "psycopg", "mariadb": "MySQLdb"}[self.engine])
        while True:
            if self._process is None or self._process.poll() is not None:
                self._process = self._popen()
            try:
                _ = self.server
            except driver.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End every process of the server at once, as a crash does."""
        if self._process is None:
            return
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        children = path.read_text().split() if path.exists() else []
        self._process.kill()
        for number in children:
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        self._process.wait()
        for number in children:  # which others wait for, and whose memory they share
            while Path(f"/proc/{number}").exists():
                time.sleep(0.005)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free on the disk while inside."""
        ballast = self.directory / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        try:
            yield
        finally:
            ballast.unlink()
            if self.engine != "sqlite":
                self.start()

    def was_full(self) -> bool:
        """Whether the server has said since it was last asked that its disk is full, or has died of it."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        said, self._said = text[self._said :], len(text)
        return FULL.search(said) is not None

    def close(self) -> None:
        self.kill()
        if self.is_small:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _install(self) -> None:
        account = {"postgresql": "postgres", "mariadb": "mysql"}[self.engine]
        self._account = account if os.geteuid() == 0 else None  # no server likes to be root
        if self._account:
            shutil.chown(self.directory, self._account)
        if self.engine == "postgresql":
            options = ("--auth=trust", "--username=faults", "--no-sync", "--encoding=UTF8", "--wal-segsize=1")
            command = (_program("initdb"), "--locale=C.UTF-8", *options, f"--pgdata={self._data}")
        else:
            options = ("--auth-root-authentication-method=normal", "--skip-test-db", *MARIADB[:1])
            command = (_program("mariadb-install-db"), "--no-defaults", *options, f"--datadir={self._data}")
        subprocess.run(command, check=True, capture_output=True, cwd="/", user=self._account)

    def _popen(self) -> subprocess.Popen[bytes]:
        if self.engine == "postgresql":
            command = (_program("postgres"), "-D", str(self._data), "-p", str(self._port), *POSTGRESQL)
        else:
            socket_file = self.directory / "socket"
            where = (f"--datadir={self._data}", f"--socket={socket_file}", f"--port={self._port}")
            command = (_program("mariadbd"), "--no-defaults", *where, *MARIADB)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._account
            )


@contextmanager
def own_world(engine: str, *, scale: int = 0) -> Iterator[tuple[World, Own]]:
    """Give a system on a server of its own. Raises ``FileNotFoundError`` where that is not installed."""
    own = Own(engine)
    try:
        world = World(engine, scale=scale, server=own.server)
        try:
            yield world, own
        finally:
            world.close()
    finally:
        own.close()


def _program(name: str) -> str:
    """Return the path of a server's program; Debian keeps PostgreSQL's out of the way."""
    places = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), "/usr/sbin"]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
