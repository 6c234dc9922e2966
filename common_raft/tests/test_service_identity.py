"""Who a node is, once its disk says so, and what it asks those that it joins."""

from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

from common_raft.drivers.membership import MemberInfo, Members
from common_raft.service import identity
from common_raft.service.cluster import FlagError
from common_raft.service.flags import Settings, parse_flags
from common_raft.service.identity import identify, remember
from common_raft.transport.links import Address
from common_raft.transport.messages import Introduction

OWN, OTHER, THIRD = (f"http://127.0.0.1:{port}" for port in (2381, 2382, 2383))
CLUSTER = 0xABC


def settings(directory: Path, state: str = "existing", cluster: str = f"n1={OWN},n2={OTHER}") -> Settings:
    return parse_flags(
        "v2.reactive",
        ["native"],
        [
            *("--name", "n1", "--data-dir", str(directory), "--initial-cluster-state", state),
            *("--initial-advertise-peer-urls", OWN, "--initial-cluster", cluster),
        ],
        {},
    )


def members(*infos: MemberInfo, index: int = 5, removed: tuple[int, ...] = ()) -> Members:
    return Members(infos, removed, index)


JOINING = MemberInfo(7, "", (OWN,))
RUNNING = MemberInfo(9, "n2", (OTHER,))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Introduction]:
    """What is answered at each port; elsewhere nobody is there."""
    known: dict[int, Introduction] = {}

    def ask(address: Address, _seconds: float) -> Introduction:
        if address[1] not in known:
            raise ConnectionRefusedError("Connection refused")
        return known[address[1]]

    monkeypatch.setattr(identity, "ask", ask)
    monkeypatch.setattr(identity, "JOIN_SECONDS", 0)
    return known


def test_a_node_that_joins_is_told_its_id_and_the_members_and_remembers_both(
    tmp_path: Path, answers: dict[int, Introduction]
) -> None:
    table = members(JOINING, RUNNING)
    answers[2382] = Introduction(CLUSTER, table.encode())
    found = identify(settings(tmp_path))
    assert (found.cluster.id, found.cluster.own_id, found.cluster.table) == (CLUSTER, 7, table.encode())
    assert found.cluster.peers == {9: ("127.0.0.1", 2382)}
    remember(found)
    answers.clear()
    for state in ("new", "existing"):  # nobody is asked, and no flag counts
        assert identify(settings(tmp_path, state, f"n1={OWN},x={THIRD}")).cluster == found.cluster
    remember(replace(found, name="other"))  # what is there stays
    assert identify(settings(tmp_path)).cluster == found.cluster


def test_who_knows_most_is_believed(tmp_path: Path, answers: dict[int, Introduction]) -> None:
    answers[2382] = Introduction(CLUSTER, members(RUNNING, index=4).encode())
    third = MemberInfo(8, "n3", (THIRD,))
    answers[2383] = Introduction(CLUSTER, members(JOINING, RUNNING, third).encode())
    found = identify(settings(tmp_path, cluster=f"n1={OWN},n2={OTHER},n3={THIRD}"))
    assert sorted(found.cluster.members) == [7, 8, 9]


@pytest.mark.parametrize(
    ("cluster", "told", "complaint"),
    [
        (f"n1={OWN}", {}, "names nobody but this member"),
        (f"n1={OWN},n2={OTHER}", {}, rf"no member answers .*{OTHER}: Connection refused"),
        (
            f"n1={OWN},n2={OTHER}",
            {2382: members(RUNNING)},
            rf"{OWN} is no member of cluster abc: add it there",
        ),
        (
            f"n1={OWN},n2={OTHER}",
            {2382: members(RUNNING, JOINING, MemberInfo(8, "n3", (THIRD,)))},
            rf"write n1={OWN},n3={THIRD},n2={OTHER}",
        ),
        (
            f"n1={OWN},n2={OTHER}",
            {2382: members(RUNNING, MemberInfo(7, "n1", (OWN,)))},
            r"\(7\) has run before: bring its directory back, or remove the member and add it again",
        ),
    ],
)
def test_who_cannot_join_is_told_why(
    tmp_path: Path,
    answers: dict[int, Introduction],
    cluster: str,
    told: dict[int, Members],
    complaint: str,
) -> None:
    answers.update({port: Introduction(CLUSTER, table.encode()) for port, table in told.items()})
    with pytest.raises(FlagError, match=complaint) as refused:
        identify(settings(tmp_path, cluster=cluster))
    assert "\n" not in str(refused.value)


def test_members_of_two_clusters_are_not_joined(tmp_path: Path, answers: dict[int, Introduction]) -> None:
    answers[2382] = Introduction(1, members(JOINING, RUNNING).encode())
    answers[2383] = Introduction(2, members(JOINING, RUNNING).encode())
    with pytest.raises(FlagError, match=r"are of different clusters \(1, 2\)"):
        identify(settings(tmp_path, cluster=f"n1={OWN},n2={OTHER},n3={THIRD}"))


def test_a_member_of_a_new_cluster_begins_once(tmp_path: Path, answers: dict[int, Introduction]) -> None:
    flags = settings(tmp_path, "new")
    begun = flags.cluster
    assert identify(flags) == flags  # nobody is there yet

    def told(own: MemberInfo, *, removed: tuple[int, ...] = ()) -> None:
        others = [member for member in Members.decode(begun.table).all() if member.id != begun.own_id]
        answers[2382] = Introduction(begun.id, members(*others, own, removed=removed).encode())

    told(MemberInfo(begun.own_id, "n1", (OWN,)))
    assert identify(flags) == flags  # it has not run: its URLs are not known
    told(MemberInfo(begun.own_id, "n1", (OWN,), ("http://clients",)))
    with pytest.raises(FlagError, match="has run before"):
        identify(flags)
    told(MemberInfo(5, "x", (OWN,)), removed=(begun.own_id,))
    with pytest.raises(FlagError, match="has run before"):
        identify(flags)
    (tmp_path / "wal.lock").touch()  # its log is there
    assert identify(flags) == flags


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"", "it does not begin with a checksum"),
        (b"not a note", "it does not begin with a checksum"),
        (b"\xff\xfe\n", "it does not begin with a checksum"),
        (b"00000000\n{}\n", "its checksum does not match"),
        (b"%08x\n{}\n" % crc32(b"{}"), "it does not say who this member is"),
        (b"%08x\n\xff\n" % crc32(b"\xff"), "it does not say who this member is"),
    ],
)
def test_a_note_that_is_damaged_is_refused(
    tmp_path: Path, answers: dict[int, Introduction], damage: bytes, why: str
) -> None:
    answers[2382] = Introduction(CLUSTER, members(JOINING, RUNNING).encode())
    remember(identify(settings(tmp_path)))
    (tmp_path / "member").write_bytes(damage)
    with pytest.raises(FlagError, match=rf"/member is damaged \({why}\): bring it back from a copy"):
        identify(settings(tmp_path))
