"""What cannot be started says so in one line and ends with status 1, and nothing is damaged."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from common_raft.testing.processes import ProcessCluster, free_ports
from common_raft.tests.services.variants import SERVERS, command

pytestmark = pytest.mark.processes


@pytest.fixture(params=SERVERS)
def service(request: pytest.FixtureRequest) -> list[str]:
    """The command of each variant."""
    return command(request.param)


def run(service: list[str], *argv: str) -> tuple[int, str]:
    """Exit status, and what was said on standard error."""
    done = subprocess.run([*service, *argv], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def alone(directory: Path, **changes: str) -> list[str]:
    """Flags of a node that is a cluster by itself."""
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    flags = {
        "data-dir": str(directory),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{changes.get('name', 'default')}={peer}",
    } | {name.replace("_", "-"): text for name, text in changes.items()}
    return [part for name, text in flags.items() for part in (f"--{name}", text)]


def written(service: list[str], tmp_path: Path) -> tuple[ProcessCluster, Path]:
    """A node that has written something and was stopped, and its data directory."""
    cluster = ProcessCluster(service, tmp_path, size=1)
    with cluster:
        cluster.nodes[0].ask("PUT", "/v2/keys/k", {"value": "v"})
        cluster.nodes[0].stop()
    return cluster, tmp_path / "data" / "n1"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes().rstrip(b"\0") for path in directory.rglob("*") if path.is_file()}


def one_line_with(stderr: str, *parts: str) -> None:
    last = stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    for part in parts:
        assert part in last


def test_an_unknown_flag(service: list[str]) -> None:
    status, said = run(service, "--data-dri", "x")
    assert status == 1
    assert said.count("\n") == 1
    one_line_with(said, "--data-dri", "--help")


def test_a_client_port_in_use(service: list[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        status, said = run(service, *alone(tmp_path / "d", listen_client_urls=url))
    assert status == 1
    one_line_with(said, "--listen-client-urls", url, "in use")
    assert not (tmp_path / "d").exists()


def test_a_peer_port_in_use(service: list[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        status, said = run(service, *alone(tmp_path / "d", listen_peer_urls=url))
    assert status == 1
    one_line_with(said, "--listen-peer-urls", url, "in use")
    assert not (tmp_path / "d").exists()


def test_a_data_directory_in_use(service: list[str], tmp_path: Path) -> None:
    cluster = ProcessCluster(service, tmp_path, size=1)
    with cluster:
        directory = tmp_path / "data" / "n1"
        status, said = run(service, *alone(directory, name="n1"))
        assert status == 1
        one_line_with(said, str(directory), "in use")
        assert cluster.nodes[0].ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201


def test_a_data_directory_of_another_member(service: list[str], tmp_path: Path) -> None:
    _, directory = written(service, tmp_path)
    before = contents(directory)
    status, said = run(service, *alone(directory))
    assert status == 1
    one_line_with(said, str(directory), "'n1'", "'default'")
    assert contents(directory) == before


def test_a_damaged_note_of_who_the_member_is(service: list[str], tmp_path: Path) -> None:
    cluster, directory = written(service, tmp_path)
    note = directory / "member"
    note.write_bytes(note.read_bytes().replace(b'"n1"', b'"n2"'))
    before = contents(directory)
    node = cluster.nodes[0]
    node.start()
    assert node.stop_by_itself() == 1
    one_line_with(node.log.read_text(), str(note), "checksum")
    assert contents(directory) == before


def test_a_damaged_log_is_refused_with_file_and_offset_and_left_alone(
    service: list[str], tmp_path: Path
) -> None:
    cluster, directory = written(service, tmp_path)
    (segment,) = [path for path in directory.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    data = bytearray(segment.read_bytes())
    position = len(bytes(data).rstrip(b"\0")) // 2
    data[position] ^= 0xFF
    segment.write_bytes(data)
    before = contents(directory)
    node = cluster.nodes[0]
    node.start()
    assert node.stop_by_itself() == 1
    one_line_with(node.log.read_text(), segment.name, "offset")
    assert contents(directory) == before


def test_a_data_directory_that_is_a_file(service: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    status, said = run(service, *alone(tmp_path / "file"))
    assert status == 1
    one_line_with(said, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_copy_of_a_data_directory_starts_where_the_original_was(service: list[str], tmp_path: Path) -> None:
    cluster, directory = written(service, tmp_path)
    shutil.copytree(directory, tmp_path / "copy")
    shutil.rmtree(directory)
    shutil.move(tmp_path / "copy", directory)
    with cluster:
        assert cluster.nodes[0].ask("GET", "/v2/keys/k").json["node"]["value"] == "v"
