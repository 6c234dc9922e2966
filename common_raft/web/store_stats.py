"""What ``/v2/stats/store`` says of a replica (etcd, server/etcdserver/api/v2store/stats.go)."""

from typing import Protocol


class StoreCounters(Protocol):
    """A keyspace's `StoreStats`."""

    gets_success: int
    gets_fail: int
    sets_success: int
    sets_fail: int
    delete_success: int
    delete_fail: int
    update_success: int
    update_fail: int
    create_success: int
    create_fail: int
    compare_and_swap_success: int
    compare_and_swap_fail: int
    compare_and_delete_success: int
    compare_and_delete_fail: int
    expire_count: int
    watchers: int


def store_stats(stats: StoreCounters) -> bytes:
    """What a replica has done since its process began."""
    operations = ("gets", "sets", "delete", "update", "create", "compare_and_swap", "compare_and_delete")
    fields = {
        f"{_camel(operation)}{end.title()}": getattr(stats, f"{operation}_{end}")
        for operation in operations
        for end in ("success", "fail")
    }
    fields |= {"expireCount": stats.expire_count, "watchers": stats.watchers}
    return ("{" + ",".join(f'"{name}":{number}' for name, number in fields.items()) + "}").encode()


def _camel(words: str) -> str:
    first, *rest = words.split("_")
    return first + "".join(map(str.title, rest))
