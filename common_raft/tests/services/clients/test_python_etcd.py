"""python-etcd 0.4.5, as its documentation has it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import etcd
import pytest

from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster

pytestmark = pytest.mark.processes


def connect(*nodes: NodeProcess, **options: object) -> etcd.Client:
    if len(nodes) == 1:
        return etcd.Client(host=HOST, port=nodes[0].client_port, **options)
    hosts = tuple((HOST, node.client_port) for node in nodes)
    return etcd.Client(host=hosts, allow_reconnect=True, **options)


@pytest.fixture
def client(cluster: ProcessCluster) -> etcd.Client:
    return connect(cluster.nodes[0])


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_keys_are_written_read_and_deleted(client: etcd.Client) -> None:
    written = client.write("/nodes/n1", 1)
    assert (written.action, written.key, written.value, written.newKey) == ("set", "/nodes/n1", "1", True)
    assert client.read("/nodes/n1").value == "1"
    again = client.write("/nodes/n1", "ünï ☃ &=;%")
    assert (again.newKey, again._prev_node.value) == (False, "1")
    assert client.get("/nodes/n1").value == "ünï ☃ &=;%"
    assert "/nodes/n1" in client
    assert client.delete("/nodes/n1").action == "delete"
    assert "/nodes/n1" not in client
    assert client.pop("/nodes", dir=True).key == "/nodes"


def test_directories_are_walked(client: etcd.Client) -> None:
    for key in ("/d/a/x", "/d/a/y", "/d/b", "/d/_hidden"):
        client.write(key, key)
    client.write("/d/empty", None, dir=True)
    listed = client.read("/d", recursive=True, sorted=True)
    assert listed.dir
    assert [leaf.key for leaf in listed.leaves] == ["/d/a/x", "/d/a/y", "/d/b", "/d/empty"]
    assert {child.key for child in client.read("/d").children if child.dir} == {"/d/a", "/d/empty"}
    assert list(client.get("/d").get_subtree(leaves_only=True))
    client.delete("/d", recursive=True)
    with pytest.raises(etcd.EtcdKeyNotFound):
        client.read("/d")


def test_keys_in_order(client: etcd.Client) -> None:
    keys = [client.write("/queue", number, append=True).key for number in range(3)]
    assert keys == sorted(keys)
    assert all(key.removeprefix("/queue/").isdigit() for key in keys)
    assert [leaf.value for leaf in client.read("/queue", sorted=True).children] == ["0", "1", "2"]


def test_conditions(client: etcd.Client) -> None:
    first = client.write("/k", "a", prevExist=False)
    with pytest.raises(etcd.EtcdAlreadyExist):
        client.write("/k", "b", prevExist=False)
    assert client.test_and_set("/k", "b", "a").action == "compareAndSwap"
    with pytest.raises(etcd.EtcdCompareFailed):
        client.test_and_set("/k", "c", "a")
    with pytest.raises(etcd.EtcdCompareFailed):
        client.write("/k", "c", prevIndex=first.modifiedIndex)
    held = client.read("/k")
    held.value = "c"
    assert client.update(held).value == "c"
    held.value = "d"
    with pytest.raises(etcd.EtcdCompareFailed):
        client.update(held)
    with pytest.raises(etcd.EtcdCompareFailed):
        client.delete("/k", prevValue="b")
    assert client.delete("/k", prevValue="c").action == "compareAndDelete"
    with pytest.raises(etcd.EtcdKeyNotFound):
        client.write("/k", "e", prevExist=True)


def test_what_is_refused_has_its_exception(client: etcd.Client) -> None:
    client.write("/d/k", 1)
    for refused, ask in [
        (etcd.EtcdKeyNotFound, lambda: client.read("/nothing")),
        (etcd.EtcdNotFile, lambda: client.write("/d", 1)),
        (etcd.EtcdNotDir, lambda: client.write("/d/k/x", 1)),
        (etcd.EtcdNotFile, lambda: client.delete("/d")),
        (etcd.EtcdDirNotEmpty, lambda: client.delete("/d", dir=True)),
        (etcd.EtcdRootReadOnly, lambda: client.delete("/", recursive=True)),
        (etcd.EtcdException, lambda: client.write("/k", 1, ttl="long")),
    ]:
        with pytest.raises(refused):
            ask()


def test_a_ttl_runs_out_and_is_refreshed(client: etcd.Client) -> None:
    written = client.write("/short", "x", ttl=1)
    assert written.ttl == 1
    client.write("/long", "x", ttl=1)
    refreshed = client.refresh("/long", ttl=600)
    assert (refreshed.value, 590 < refreshed.ttl <= 600) == ("x", True)
    gone = client.watch("/short", index=written.modifiedIndex + 1, timeout=10)
    assert (gone.action, gone.key, gone.value) == ("expire", "/short", None)
    assert gone._prev_node.value == "x"
    with pytest.raises(etcd.EtcdKeyNotFound):
        client.read("/short")
    assert client.read("/long").value == "x"


def test_a_watch_waits_for_the_next_change(
    cluster: ProcessCluster, client: etcd.Client, beside: ThreadPoolExecutor
) -> None:
    found = beside.submit(client.watch, "/w", timeout=20)
    below = beside.submit(connect(cluster.nodes[1]).watch, "/", recursive=True, timeout=20)
    time.sleep(0.5)
    connect(cluster.nodes[2]).write("/w", "x")
    assert (found.result().key, found.result().value) == ("/w", "x")
    assert (below.result().key, below.result().action) == ("/w", "set")


def test_a_watch_from_an_index_sees_what_has_happened(cluster: ProcessCluster, client: etcd.Client) -> None:
    first = client.write("/w/a", "x")
    second = client.write("/w/a", "y")
    client.write("/w/b", "z")
    other = connect(cluster.nodes[1])
    assert other.watch("/w/a", index=first.modifiedIndex, timeout=20).value == "x"
    assert other.watch("/w/a", index=second.modifiedIndex, timeout=20).value == "y"
    assert other.watch("/w", index=second.modifiedIndex + 1, recursive=True, timeout=20).value == "z"


def test_a_watch_that_sees_nothing_times_out(client: etcd.Client) -> None:
    with pytest.raises(etcd.EtcdWatchTimedOut):
        client.watch("/w", timeout=0.5)


def test_an_eternal_watch_misses_nothing(
    cluster: ProcessCluster, client: etcd.Client, beside: ThreadPoolExecutor
) -> None:
    start = client.write("/e/start", 0).modifiedIndex
    writer = connect(cluster.nodes[1])
    writing = beside.submit(lambda: [writer.write(f"/e/{number % 3}", number) for number in range(50)])
    events = client.eternal_watch("/e", index=start + 1, recursive=True)
    assert [next(events).value for _ in range(50)] == [str(number) for number in range(50)]
    writing.result()


def test_a_history_that_has_passed_is_said(client: etcd.Client, beside: ThreadPoolExecutor) -> None:
    first = client.write("/h", 0)
    list(beside.map(lambda number: client.write("/h", number), range(1010)))
    with pytest.raises(etcd.EtcdEventIndexCleared):
        client.watch("/h", index=first.modifiedIndex, timeout=20)


def test_a_lock_is_held_by_one_at_a_time(cluster: ProcessCluster, beside: ThreadPoolExecutor) -> None:
    inside, order, mutex = [0], [], threading.Lock()

    def work(number: int) -> None:
        lock = etcd.Lock(connect(cluster.nodes[number % 3]), "shared")
        lock.acquire(blocking=True, lock_ttl=60, timeout=30)
        assert lock.is_acquired
        with mutex:
            inside[0] += 1
            assert inside[0] == 1
        time.sleep(0.05)
        with mutex:
            inside[0] -= 1
            order.append(number)
        lock.release()

    list(beside.map(work, range(6)))
    assert sorted(order) == list(range(6))


def test_a_lock_is_not_waited_for_unless_one_wants_to(cluster: ProcessCluster) -> None:
    first, second = (etcd.Lock(connect(node), "l") for node in cluster.nodes[:2])
    assert first.acquire(blocking=True, lock_ttl=None)
    # The second node may be behind the write to the first.
    cluster.nodes[1].ask("GET", "/v2/keys/x?quorum=true")
    assert second.acquire(blocking=False, lock_ttl=None) is False
    first.release()
    assert second.acquire(blocking=True, lock_ttl=None, timeout=20)
    second.release()


def test_a_lock_whose_holder_is_gone_expires(cluster: ProcessCluster) -> None:
    node = cluster.nodes[0]
    assert etcd.Lock(connect(node), "l").acquire(lock_ttl=1)
    heir = etcd.Lock(connect(node), "l")
    assert heir.acquire(blocking=True, lock_ttl=60, timeout=20)
    heir.release()


def test_the_cluster_tells_who_is_there(cluster: ProcessCluster, client: etcd.Client) -> None:
    urls = {f"http://{HOST}:{node.client_port}" for node in cluster.nodes}
    assert set(client.machines) == urls
    members = client.members
    assert {member["name"] for member in members.values()} == {node.name for node in cluster.nodes}
    assert client.leader["name"] == cluster.leader().name
    assert client.version == "3.5.1"
    assert client.cluster_version == "3.5.0"
    assert client.stats["name"] == cluster.nodes[0].name
    leads = connect(cluster.leader())
    assert set(leads.leader_stats["followers"]) == set(members) - {leads.leader_stats["leader"]}
    before = client.store_stats["getsSuccess"] + client.store_stats["getsFail"]
    client.read("/")
    assert client.store_stats["getsSuccess"] + client.store_stats["getsFail"] > before


def test_a_client_goes_on_with_another_node_when_its_own_stops(cluster: ProcessCluster) -> None:
    stopped = cluster.followers()[0]
    others = [node for node in cluster.nodes if node is not stopped]
    client = connect(stopped, *others, read_timeout=10)
    client.write("/r", "before")
    stopped.stop()
    assert client.write("/r", "after").value == "after"
    assert client.read("/r").value == "after"
    assert client.port in {node.client_port for node in others}


def test_a_client_goes_on_when_the_leader_is_killed(cluster: ProcessCluster) -> None:
    leader = cluster.leader()
    client = connect(leader, *cluster.followers(), read_timeout=10)
    client.write("/r", "before")
    leader.kill()
    deadline = time.monotonic() + 30
    while True:
        try:
            assert client.write("/r", "after").value == "after"
            break
        except etcd.EtcdException:
            assert time.monotonic() < deadline
    assert client.read("/r", quorum=True).value == "after"
