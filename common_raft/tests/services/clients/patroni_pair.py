"""Two PostgreSQL servers under Patroni, as two machines would have them: started, killed and started again."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
import yaml

from common_raft.testing.postgresql import as_user_of, programs
from common_raft.testing.processes import HOST, ask, free_ports

#: Seconds for Patroni to do what it must; a lead that nobody keeps lasts for TTL of them.
PATIENCE = 120.0
#: The shortest that Patroni takes.
TTL = 20
SCOPE = "pair"
ROOT = "postgres"


class Member:
    """One Patroni and its PostgreSQL server, which outlives it where it is killed."""

    def __init__(self, name: str, directory: Path, etcd: Mapping[str, Any], as_user: Sequence[str]) -> None:
        self.name = name
        self.data = directory / name
        self.port, self._api = free_ports(2)
        self._log = directory / f"{name}.log"
        self._directory = directory
        file = directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(self._configuration(etcd)))
        self._command = [*as_user, sys.executable, "-m", "patroni", str(file)]
        self._process: subprocess.Popen[bytes] | None = None

    def _configuration(self, etcd: Mapping[str, Any]) -> dict[str, Any]:
        binaries = programs()
        assert binaries is not None
        trusted = [
            "local all all trust",
            f"host all all {HOST}/32 trust",
            f"host replication all {HOST}/32 trust",
        ]
        return {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {"listen": f"{HOST}:{self._api}", "connect_address": f"{HOST}:{self._api}"},
            "etcd": dict(etcd),
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": 1,
                    "retry_timeout": 9,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"{HOST}:{self.port}",
                "connect_address": f"{HOST}:{self.port}",
                "data_dir": str(self.data),
                "bin_dir": str(binaries),
                "pgpass": str(self._directory / f"{self.name}.pgpass"),
                "authentication": {
                    "superuser": {"username": ROOT},
                    "replication": {"username": "replicator"},
                },
                "pg_hba": trusted,
                "parameters": {
                    "unix_socket_directories": str(self._directory),
                    "shared_buffers": "16MB",
                    "max_connections": 30,
                    "fsync": "off",
                },
            },
        }

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self) -> None:
        """As if its machine were cut off from power: Patroni and all processes of PostgreSQL at once."""
        assert self._process is not None
        server = self._server()
        self._process.kill()
        self._process.wait()
        if server is not None:
            for process in [server, *server.children(recursive=True)]:
                _kill(process)

    def stop(self) -> None:
        """In order where it goes on, and with force where it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def _server(self) -> psutil.Process | None:
        """The server's first process, which is not Patroni's child; nobody else's has this folder."""
        try:
            found = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return found if str(self.data) in found.cmdline() else None
        except (OSError, IndexError, psutil.Error):
            return None

    def is_(self, role: str) -> bool:
        """``primary``, ``replica`` or ``synchronous``, as its API tells load balancers."""
        try:
            return ask(self._api, "GET", f"/{role}", timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def connect(self) -> psycopg.Connection[Any]:
        """Its database; each statement is a transaction of its own.  Raises psycopg.OperationalError."""
        return psycopg.connect(
            host=HOST, port=self.port, user=ROOT, dbname="postgres", connect_timeout=5, autocommit=True
        )

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement).fetchall()

    def log(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join([f"--- {self.name}", *lines[-40:]])


class Pair:
    """Two members, the second a synchronous replica of the first once they are `settled`.  Use it in a ``with``."""

    def __init__(self, etcd: Mapping[str, Any]) -> None:
        """``etcd``: what Patroni's configuration has under that name."""
        self._directory = Path(tempfile.mkdtemp(prefix="patroni-"))
        as_user = as_user_of(self._directory)
        if as_user:  # it needs our interpreter, which may be in root's home, where others cannot look
            as_user = [*as_user, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        self._directory.chmod(0o755)
        self.members = [Member(name, self._directory, etcd, as_user) for name in ("first", "second")]
        self._settings = self._directory / "patronictl.yaml"
        self._settings.write_text(yaml.safe_dump({"scope": SCOPE, "etcd": dict(etcd)}))

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.start()
            self.settled()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.stop()
        shutil.rmtree(self._directory)

    def primary(self) -> Member:
        [found] = [member for member in self.members if member.is_("primary")]
        return found

    def other(self, member: Member) -> Member:
        [found] = [each for each in self.members if each is not member]
        return found

    def settled(self) -> Member:
        """Waits until what the primary acknowledges is on the other as well; returns the primary."""
        self.until(
            lambda: (
                sorted((each.is_("primary"), each.is_("synchronous")) for each in self.members)
                == [(False, True), (True, False)]
            )
        )
        return self.primary()

    def until(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(member.log() for member in self.members))
            time.sleep(0.2)

    def patronictl(self, *arguments: str) -> str:
        """What it prints; raises RuntimeError with that for a status other than 0."""
        done = subprocess.run(
            [sys.executable, "-c", "from patroni.ctl import ctl; ctl()", "-c", str(self._settings), *arguments],
            env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout

    def listed(self) -> dict[str, str]:
        """The role of each member, as ``patronictl list`` has it."""
        found = json.loads(self.patronictl("list", SCOPE, "--format", "json"))
        return {member["Member"]: member["Role"] for member in found}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass
