"""What ``/v2/stats/leader`` says of a leader's followers (etcd, server/etcdserver/api/v2stats/leader.go)."""

from common_raft.measures import NO_MINIMUM, Following, Measurements
from common_raft.web.golang import json_number


def leader_stats(node_id: int, measured: Measurements) -> bytes:
    """What a leader knows of its followers.

    Latencies are in milliseconds: from an append's leaving to the answer that it is on the follower's disk.  Etcd
    measures less, how long it takes to hand the message to the connection.  ``fail`` counts appends that were lost
    with their link.
    """
    followers = [
        f'"{follower:x}":{_follower(following)}' for follower, following in measured.followers.items()
    ]
    return f'{{"leader":"{node_id:x}","followers":{{{",".join(sorted(followers))}}}}}'.encode()


def _follower(following: Following) -> str:
    latency = following.latency
    current, average, deviation, maximum = (
        json_number(seconds * 1000)
        for seconds in (latency.current, latency.average, latency.deviation, latency.maximum)
    )
    minimum = json_number(NO_MINIMUM if latency.minimum is None else latency.minimum * 1000)
    return (
        f'{{"latency":{{"current":{current},"average":{average},"standardDeviation":{deviation},'
        f'"minimum":{minimum},"maximum":{maximum}}},'
        f'"counts":{{"fail":{latency.failed},"success":{latency.succeeded}}}}}'
    )
