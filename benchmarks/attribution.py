"""What each layer of a service costs, found by switching layers and not by looking inside.  Pure functions.

A chain starts at three embedded nodes with fsync and takes one layer away at a time; what a request costs less is
that layer's:

    embedded                    -  the same with --unsafe-no-fsync        =  WAL (fsync)
    embedded, no fsync, SQL     -  the same of the HashMap variant        =  store: SQL in place of a HashMap
    embedded, no fsync, HashMap -  three standalone ones, same server     =  Raft (consensus and network)
    three standalone, HashMap   -  three bare applications, same server   =  front (framework, keyspace, HashMap)
    bare applications              themselves                             =  HTTP server

The store is switched in the cluster, because a standalone service has no batches: there SQL pays for each operation.

The HashMap variants have no store to take away, and the native server has no bare application: its last row is server
and front in one.  The layers of a chain add up to its first target by construction.

Raft's share holds the two further replicas' part of a write and the hops between nodes, and the store's share the
work of all three stores.
Costs: CPU us per request of all nodes, or the mean latency.  Every target has three processes and the same users: a
request's CPU depends on how many threads want the processors, above all where they share an interpreter's lock, and
one process alone would have more of them than each of three has.  A latency holds the waiting of these users for one
another: with one user a node it is the layer's own, with many it follows the CPU.

The targets of a chain take turns, so each round gives one difference.  A layer is *within noise* when its rounds do
not agree on the sign, *negative* when they agree that taking it away made requests dearer, *untested* when there is
one round alone, and *above the whole* when it costs more than the chain's first target; none of these has a share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.results import Run
from benchmarks.statistics import median
from benchmarks.targets import (
    EMBEDDED,
    LINEARIZABLE,
    NATIVE,
    Target,
    bare,
    interface,
    three,
    variant,
    without_fsync,
)

SECTION = "layers-of-"

WAL = "WAL (fsync)"
RAFT = "Raft"
STORE = "store"
FRONT = "front"
SERVER = "HTTP server"
FRONT_AND_SERVER = "native front and server"
LAYERS = (SERVER, FRONT_AND_SERVER, FRONT, STORE, RAFT, WAL)

#: The workload that shows each operation alone.
OPERATIONS = {"PUT": "put-only", "GET": "get-only"}

#: The variant with the same front and the other store.
WITH_HASH_MAP = {"v1.servlet": "v2.servlet", "v1.reactive": "v2.reactive", "v3.reactive": "v2.reactive"}

#: What is attributed: the name of a cost, its unit, and the field of a run that has it.
COSTS = {"cpu": ("CPU us / request, all nodes", "cpu_us"), "latency": ("mean latency, ms", "mean_ms")}


@dataclass(frozen=True, slots=True)
class Switch:
    """``layer`` is what ``above`` has and ``below`` lacks; without ``below`` it is all that is left."""

    layer: str
    above: Target
    below: Target | None


@dataclass(frozen=True, slots=True)
class Chain:
    """The switches from three nodes of a variant on a server down to what cannot be taken away."""

    name: str
    server: str
    switches: tuple[Switch, ...]

    @property
    def section(self) -> str:
        return f"{SECTION}{self.name}-{self.server}"

    @property
    def targets(self) -> list[Target]:
        return [switch.above for switch in self.switches]


def chain(name: str, server: str) -> Chain:
    """The chain of the variant ``name`` on ``server``."""
    cluster = variant(name, EMBEDDED, server)
    steps = [(WAL, cluster)]
    plain = WITH_HASH_MAP.get(name, name)
    if plain != name:
        steps.append((STORE, without_fsync(cluster)))
    steps.append((RAFT, without_fsync(variant(plain, EMBEDDED, server))))
    alone = three(variant(plain, LINEARIZABLE, server))
    if server == NATIVE:
        steps.append((FRONT_AND_SERVER, alone))
    else:
        steps += [(FRONT, alone), (SERVER, three(bare(server, interface(name))))]
    below = [target for _, target in steps[1:]]
    pairs = zip(steps, [*below, None], strict=True)
    return Chain(name, server, tuple(Switch(layer, above, lower) for (layer, above), lower in pairs))


MEASURED, NOISE, NEGATIVE, UNTESTED = "measured", "within noise", "negative", "one round alone"
ABOVE_WHOLE = "above the whole"


@dataclass(frozen=True, slots=True)
class Share:
    """What ``layer`` costs: the median of the rounds' differences, with the smallest and largest of them.

    ``above``, ``below``: labels of the targets, and the medians of their costs, whose difference it is.
    ``share``: of the chain's first target; None where ``verdict`` is another than MEASURED.
    """

    layer: str
    above: str
    above_cost: float
    below: str
    below_cost: float
    cost: float
    low: float
    high: float
    verdict: str
    share: float | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """One operation of one chain at one number of users, in one cost.  ``total``: what its first target costs."""

    chain: str
    operation: str
    users: int
    cost: str
    total: float
    shares: tuple[Share, ...]

    @property
    def unexplained(self) -> float:
        """The share of the total that no layer is given; below 0 where the layers cost more than the whole, alone."""
        return 1.0 - sum(share.share or 0.0 for share in self.shares)


def judge(differences: Sequence[float]) -> str:
    """What the rounds' differences allow to say."""
    if len(differences) < 2:
        return UNTESTED
    if max(differences) < 0:
        return NEGATIVE
    return MEASURED if min(differences) > 0 else NOISE


def attribute(
    chain: Chain, operation: str, users: int, cost: str, costs: dict[str, dict[int, float]]
) -> Attribution | None:
    """Attribute one cost.  ``costs``: a target's label -> round -> cost; None where a target was not measured."""
    if any(not costs.get(target.label) for target in chain.targets):
        return None
    total = median(list(costs[chain.targets[0].label].values())) or 0.0
    shares = tuple(_share(switch, costs, total) for switch in chain.switches)
    return Attribution(chain.section.removeprefix(SECTION), operation, users, cost, total, shares)


def _share(switch: Switch, costs: dict[str, dict[int, float]], total: float) -> Share:
    above = costs[switch.above.label]
    below = costs[switch.below.label] if switch.below else dict.fromkeys(above, 0.0)
    differences = [cost - below[number] for number, cost in above.items() if number in below]
    verdict = judge(differences) if switch.below else MEASURED  # what is left is no difference
    middle = median(differences) or 0.0
    if verdict == MEASURED and middle > total:
        verdict = ABOVE_WHOLE
    return Share(
        switch.layer,
        switch.above.label,
        median(list(above.values())) or 0.0,
        switch.below.label if switch.below else "",
        median(list(below.values())) or 0.0,
        middle,
        min(differences, default=0.0),
        max(differences, default=0.0),
        verdict,
        middle / total if verdict == MEASURED and total > 0 else None,
    )


def attributions(runs: Sequence[Run]) -> list[Attribution]:
    """All that ``runs`` have measured in sections that are chains, in the order of the runs."""
    found = []
    for section in dict.fromkeys(run.section for run in runs if run.section.startswith(SECTION)):
        name, _, server = section.removeprefix(SECTION).rpartition("-")
        of_section = [run for run in runs if run.section == section]
        for users in sorted({run.users for run in of_section}):
            for cost in COSTS:
                for operation, workload in OPERATIONS.items():
                    costs = _costs(of_section, workload, users, cost)
                    one = attribute(chain(name, server), operation, users, cost, costs)
                    found += [one] if one else []
    return found


def _costs(runs: Sequence[Run], workload: str, users: int, cost: str) -> dict[str, dict[int, float]]:
    """A target's label -> round -> cost; a run without an answer has none."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        value = getattr(run, COSTS[cost][1])
        if (run.workload, run.users) == (workload, users) and run.requests and value is not None:
            found.setdefault(f"{run.target}, {run.infrastructure}", {})[run.round] = value
    return found
