"""A small summary, made by hand."""

from benchmarks.results import Run, Summary


def run(target: str, users: int, number: int, throughput: float, **changes: object) -> Run:
    infrastructure = "cluster" if target == "etcd" else "embedded"
    fields: dict[str, object] = {
        "tool": "wrk",
        "workload": "same-data",
        "users": users,
        "target": target,
        "infrastructure": infrastructure,
        "durability": "fsync",
        "reads": "local",
        "round": number,
        "requests": int(throughput * 2),
        "seconds": 2.0,
        "throughput": throughput,
        "p50_ms": 2.0,
        "p90_ms": 5.0,
        "p99_ms": 10_000 / throughput,
        "p999_ms": 20_000 / throughput,
        "max_ms": 50.0,
        "errors": 0,
        "missing": 7,
        "statuses": {"200": int(throughput * 2)},
        "per_node": {"n1": 1, "n2": 2, "n3": 3},
        "cpu_us": 200_000 / throughput,
        "memory_mib": 120.0,
        "generator_cpu": 0.25,
        "command": f"wrk -c{users} http://127.0.0.1:8001",
        "mean_ms": 3.0,
        "node_cpu": {"n1": 0.5, "n2": 0.3, "n3": 0.2},
        "node_memory_mib": {"n1": 60.0, "n2": 30.0, "n3": 30.0},
        "others_cpu": 0.01,
        "raw": f"{target}/{infrastructure}/same-data/wrk-{users:04d}-users-round-{number}.txt",
    }
    return Run(**{**fields, **changes})  # type: ignore[arg-type]


#: What is known of nodes that run elsewhere.
UNSEEN: dict[str, object] = {"cpu_us": None, "memory_mib": None, "node_cpu": {}, "node_memory_mib": {}}


def summary() -> Summary:
    return Summary(
        environment={"date": "2030-01-01", "processor": "a <fast> one", "etcd": "3.5.1"},
        command="python -m benchmarks compare",
        runs=[
            run("etcd", 3, 1, 1000.0),
            run("v2.reactive-native", 3, 1, 2000.0),
            run("etcd", 3, 2, 1100.0),
            run("v2.reactive-native", 3, 2, 3300.0, errors=4),
            run("etcd", 24, 1, 5000.0),
            run("v2.reactive-native", 24, 1, 4000.0),
            run("etcd", 24, 1, 900.0, tool="locust"),
            run("endpoints", 24, 1, 900.0, tool="locust", generator_cpu=0.99, **UNSEEN),
        ],
        starts={
            "etcd, cluster": ["etcd --name n1"],
            "v2.reactive-native, embedded": ["python -m v2.reactive --name n1"],
        },
        versions={"etcd, cluster": "3.5.1"},
    )
