"""A compose file, brought up and taken down: with docker-compose 1.29 or with today's ``docker compose``.

The two differ in the names that they give to containers, in what ``ps`` lists and in the words of their answers; only
what both mean alike is used here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError

#: Chooses between the two, as ``COMPOSE="docker compose"``.
VARIABLE = "COMPOSE"
CLIENT_PORT = 2379  # inside the containers
#: Set by both on everything that they make.
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"

COMMAND_WITHIN = 60.0  # s, for what only asks or tells the daemon
BUILT_WITHIN = 600.0  # s, for the first start, which builds the image


def compose_command() -> list[str]:
    """What ``COMPOSE`` says, else docker-compose where there is one, else ``docker compose``."""
    if chosen := os.environ.get(VARIABLE):
        return shlex.split(chosen)
    return ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def why_not() -> str | None:
    """Why nothing can be deployed here; None where it can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "version"], [*compose_command(), "version"]):
        try:
            _run(command, dict(os.environ))
        except BenchmarkError as error:
            return str(error)
    return None


def docker(*arguments: str) -> str:
    """What ``docker`` prints.

    :raises BenchmarkError: it fails; the message has its words.
    """
    return _run(["docker", *arguments], dict(os.environ))


class Composition:
    """The containers of one compose file, as a project of their own.

    ``environment`` is what the file may be told: ``PORT1`` to ``PORT3``, ``FLAGS``, ``CPUS``, ``MEMORY``.
    """

    def __init__(self, file: Path, project: str, environment: Mapping[str, str]) -> None:
        self.file = file
        self.project = project
        self._environment = {**os.environ, **environment}

    def up(self) -> None:
        """Builds and starts; does not wait until anything answers."""
        self._compose("up", "--detach", "--build", within=BUILT_WITHIN)

    def down(self) -> None:
        """Removes all but the image."""
        self._compose("down", "--volumes", "--remove-orphans", "--timeout", "2")

    def stop(self) -> None:
        """Asks each service to end, and waits."""
        self._compose("stop")

    def containers(self) -> dict[str, str]:
        """The container of each service, while all run."""
        running = self._compose("ps", "-q").split()
        found = {
            str(inspect(container)["Config"]["Labels"][SERVICE_LABEL]): container for container in running
        }
        return dict(sorted(found.items()))

    def logs(self) -> str:
        return self._compose("logs", "--no-color", "--tail", "40")

    def leftovers(self) -> list[str]:
        """Containers, volumes and networks of this project that are still there."""
        label = f"label={PROJECT_LABEL}={self.project}"
        return [
            *docker("ps", "--all", "--quiet", "--filter", label).split(),
            *docker("volume", "ls", "--quiet", "--filter", label).split(),
            *docker("network", "ls", "--quiet", "--filter", label).split(),
        ]

    def _compose(self, *arguments: str, within: float = COMMAND_WITHIN) -> str:
        command = [*compose_command(), "--file", str(self.file), "--project-name", self.project, *arguments]
        return _run(command, self._environment, within)


def inspect(container: str) -> dict[str, Any]:
    """All that the daemon knows of a container."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", container))
    return found[0]


def endpoint(container: str) -> str | None:
    """Where clients reach what runs in ``container``; None where it is not published."""
    published = inspect(container)["HostConfig"]["PortBindings"] or {}
    places = published.get(f"{CLIENT_PORT}/tcp")
    return f"http://{places[0]['HostIp']}:{places[0]['HostPort']}" if places else None


def _run(command: Sequence[str], environment: Mapping[str, str], within: float = COMMAND_WITHIN) -> str:
    words = " ".join(command)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=within, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"{words}: {error}") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-2000:]
        raise BenchmarkError(f"{words} ended with status {done.returncode}: {said}")
    return done.stdout
