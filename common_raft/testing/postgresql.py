"""A PostgreSQL server of a test's own: made, stopped, killed and started again from the system's installed programs.

Where they are: `/usr/lib/postgresql/*/bin` (Debian's packages), or the search path.  PostgreSQL refuses to run as
root, so that root's tests run it as user ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from common_raft.testing.processes import HOST, free_ports


def programs() -> Path | None:
    """The folder with initdb and postgres, the newest if there are several; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """A server on loopback, with its data in a temporary folder.  Use it in a ``with``."""

    def __init__(self) -> None:
        binaries = programs()
        if binaries is None:
            raise FileNotFoundError("no PostgreSQL is installed: apt-get install postgresql")
        self._binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
        [self.port] = free_ports(1)
        self._databases = 0
        self._as_user: Sequence[str] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def new_database(self) -> str:
        """The URL, without a driver, of an empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self._run("createdb", "--host", HOST, "--port", str(self.port), "--username", "tester", name)
        return f"postgresql://tester@{HOST}:{self.port}/{name}"

    def __enter__(self) -> Self:
        self._as_user = as_user_of(self.directory)
        self._run("initdb", "--pgdata", "data", "--username", "tester", "--auth", "trust", "--no-sync")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def start(self, seconds: float = 30) -> None:
        """Until it answers."""
        flags = {
            "listen_addresses": HOST, "port": self.port, "unix_socket_directories": self.directory,
            "shared_buffers": "16MB", "max_connections": 60, "fsync": "off",
        }  # fmt: skip
        arguments = [part for name, value in flags.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._binaries / "postgres", "-D", "data", *arguments],
                cwd=self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + seconds
        while self._call("pg_isready", "--host", HOST, "--port", str(self.port)).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL does not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Connections are cut off, nothing that was committed is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As a crash: it recovers when it is started again."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)

    def _run(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode().strip()}")

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._as_user, self._binaries / program, *arguments],
            cwd=self.directory, capture_output=True, timeout=60, check=False,
        )  # fmt: skip


def as_user_of(directory: Path) -> Sequence[str]:
    """What a command begins with to run as one who may run PostgreSQL, and who then owns ``directory``.

    Empty where we are not root and may ourselves.
    """
    if os.geteuid() != 0:
        return ()
    user = _other_than_root()
    os.chown(directory, user.pw_uid, user.pw_gid)
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


def _other_than_root() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
