"""``/metrics``: what a node counts, in Prometheus' text format, under etcd's own names where the meaning is etcd's.

Which names those are, and which of etcd's are missing because there is nothing here that they would count, is said in
ARCHITECTURE.md.  Everything is put together when it is asked for; nothing here is called for a client's request.
"""

import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from common_raft.measures import Histogram, LogMeasures, Measurements, SnapshotMeasures, Traffic
from common_raft.web.response import Response, prometheus
from common_raft.web.store_stats import StoreCounters

#: What this API is that of.
SERVER_VERSION: Final = "3.5.1"
CLUSTER_VERSION: Final = "3.5.0"


class Measured(Protocol):
    """What is asked of a node."""

    @property
    def id(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def applied(self) -> int: ...
    def measurements(self) -> Measurements: ...


class Stored(Protocol):
    """What is asked of a keyspace."""

    @property
    def stats(self) -> StoreCounters: ...


class ProcessMetrics:
    """This process: ``process_*`` and ``python_*``, as Prometheus' own client has them, and etcd's ``os_fd_*``."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._collectors = [ProcessCollector(registry=None), PlatformCollector(registry=None)]
        self._garbage = GCCollector(registry)

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()
        yield from self._garbage.collect()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield _gauge("os_fd_limit", "File descriptors that this process may have", limit)
        try:
            used = len(list(Path("/proc/self/fd").iterdir())) - 1  # without the one that lists them
        except OSError:
            return  # not a system that tells
        yield _gauge("os_fd_used", "File descriptors that this process has", used)


class StoreMetrics:
    """A keyspace's counters, each replica's own (etcd, v2store/metrics.go)."""

    def __init__(self, keyspace: Stored) -> None:
        self._keyspace = keyspace

    def collect(self) -> Iterator[Metric]:
        stats = self._keyspace.stats
        yield _labelled(
            CounterMetricFamily(
                "etcd_debugging_store_reads", "Reads of this replica, done or failed", labels=["action"]
            ),
            {("get",): stats.gets_success + stats.gets_fail},
        )
        yield _labelled(
            CounterMetricFamily(
                "etcd_debugging_store_writes",
                "Writes seen by this replica, done or failed",
                labels=["action"],
            ),
            {
                ("set",): stats.sets_success + stats.sets_fail,
                ("create",): stats.create_success + stats.create_fail,
                ("update",): stats.update_success + stats.update_fail,
                ("delete",): stats.delete_success + stats.delete_fail,
                ("compareAndSwap",): stats.compare_and_swap_success + stats.compare_and_swap_fail,
                ("compareAndDelete",): stats.compare_and_delete_success + stats.compare_and_delete_fail,
            },
        )
        yield _counter("etcd_debugging_store_expires", "Keys that have expired", stats.expire_count)
        yield _gauge("etcd_debugging_store_watchers", "Clients that wait for an event", stats.watchers)


class NodeMetrics:
    """A node of Raft, or one that stands alone.  ``healthy`` and ``unhealthy`` count answers of ``/health``."""

    def __init__(self, node: Measured) -> None:
        self._node = node
        self.healthy = self.unhealthy = 0

    def collect(self) -> Iterator[Metric]:
        measured = self._node.measurements()
        yield from self._identity()
        yield from self._server(measured)
        if measured.log is not None:
            yield from _log(measured.log)
        if measured.snapshots is not None:
            yield from _snapshots(measured.snapshots)
        yield from self._network(measured)

    def _identity(self) -> Iterator[Metric]:
        names = {
            "etcd_cluster_version": ("cluster_version", CLUSTER_VERSION.rpartition(".")[0]),
            "etcd_server_version": ("server_version", SERVER_VERSION),
            "etcd_server_id": ("server_id", f"{self._node.id:x}"),
        }
        for name, (label, value) in names.items():
            family = GaugeMetricFamily(name, "1, and what it is in the label", labels=[label])
            yield _labelled(family, {(value,): 1})

    def _server(self, measured: Measurements) -> Iterator[Metric]:
        node, leader = self._node, self._node.leader
        yield _gauge("etcd_server_has_leader", "Whether a leader is known", leader != 0)
        yield _gauge("etcd_server_is_leader", "Whether it is this node", leader == node.id)
        yield _gauge("etcd_server_is_learner", "Whether this node has no vote", measured.is_learner)
        yield _counter(
            "etcd_server_leader_changes_seen", "Times that a leader was found", measured.leader_changes
        )
        yield _gauge(
            "etcd_server_proposals_committed_total", "Index of the last committed entry", measured.committed
        )
        yield _gauge("etcd_server_proposals_applied_total", "Index of the last applied entry", node.applied)
        yield _gauge(
            "etcd_server_proposals_pending", "Clients' commands that wait for their outcome", measured.pending
        )
        yield _counter(
            "etcd_server_proposals_failed", "Clients' commands that ended without one", measured.failed
        )
        yield _counter(
            "etcd_server_read_indexes_failed", "Linearizable reads that could not be", measured.failed_reads
        )
        yield _counter(
            "etcd_server_heartbeat_send_failures",
            "Heartbeats that this node, as the leader, sent a whole interval late",
            measured.late_heartbeats,
        )
        yield _gauge(
            "etcd_server_snapshot_apply_in_progress_total",
            "Whether the state is being replaced by a snapshot",
            measured.restoring,
        )
        # Counters in etcd, whose names Prometheus' client for Python has no type for.
        yield _gauge("etcd_server_health_success", "Answers of /health that say healthy", self.healthy)
        yield _gauge("etcd_server_health_failures", "Answers of /health that do not", self.unhealthy)

    def _network(self, measured: Measurements) -> Iterator[Metric]:
        traffic = measured.traffic

        def each(name: str) -> dict[tuple[str, ...], int]:
            return {(f"{peer:x}",): getattr(counted, name) for peer, counted in traffic.items()}

        own = f"{self._node.id:x}"
        yield _labelled(
            GaugeMetricFamily(
                "etcd_network_active_peers", "Peers that can be sent to", labels=["Local", "Remote"]
            ),
            {(own, *peer): connected for peer, connected in each("connected").items()},
        )
        yield _labelled(
            CounterMetricFamily(
                "etcd_network_disconnected_peers", "Lost links to peers", labels=["Local", "Remote"]
            ),
            {(own, *peer): number for peer, number in each("disconnected").items()},
        )
        for name, text, label, counter in _TRAFFIC:
            yield _labelled(CounterMetricFamily(name, text, labels=[label]), each(counter))
        yield _histograms(
            "etcd_network_peer_round_trip_time_seconds",
            "From a leader's heartbeat to its answer",
            {(f"{peer:x}",): following.round_trips for peer, following in measured.followers.items()},
            ["To"],
        )


_TRAFFIC: Final = (
    ("etcd_network_peer_sent_bytes", "Bytes sent to peers", "To", "sent_bytes"),
    ("etcd_network_peer_received_bytes", "Bytes received from peers", "From", "received_bytes"),
    ("etcd_network_peer_sent_failures", "Messages to peers that were dropped", "To", "send_failures"),
)
assert {counter for *_, counter in _TRAFFIC} <= set(Traffic.__slots__)


def _log(log: LogMeasures) -> Iterator[Metric]:
    yield _histograms(
        "etcd_disk_wal_fsync_duration_seconds", "fdatasync of the log, once a batch", {(): log.fsyncs}
    )
    yield _gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log", log.written_bytes)


def _snapshots(snapshots: SnapshotMeasures) -> Iterator[Metric]:
    yield _histograms(
        "etcd_snap_fsync_duration_seconds", "fdatasync of snapshots' files", {(): snapshots.fsyncs}
    )
    yield _histograms(
        "etcd_debugging_snap_save_total_duration_seconds", "Writing a snapshot", {(): snapshots.saves}
    )


class Metrics:
    """All of several parts, by name."""

    def __init__(self, *parts: ProcessMetrics | StoreMetrics | NodeMetrics) -> None:
        self._parts = parts

    def respond(self) -> Response:
        return prometheus(generate_latest(self))

    def collect(self) -> Iterable[Metric]:
        return sorted((metric for part in self._parts for metric in part.collect()), key=_name)


def _name(metric: Metric) -> str:
    return metric.name


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    """``name`` without ``_total``, which Prometheus' client adds."""
    return CounterMetricFamily(name, text, value=value)


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[tuple[str, ...], float]
) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histograms(
    name: str, text: str, values: Mapping[tuple[str, ...], Histogram], labels: Sequence[str] = ()
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for label, histogram in values.items():
        counts, below = list(histogram.counts), 0
        buckets = []
        for bound, count in zip([*histogram.bounds, inf], counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == inf else repr(bound), below))
        family.add_metric(label, buckets, histogram.sum)
    return family
