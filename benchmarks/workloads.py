"""The workloads: what the users do, as data.  What they send is in ``wrk/*.lua`` and ``locust/*.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload.

    ``may_be_missing``: a 404 is a right answer, because another user's DELETE may come first.
    ``preloaded``: keys ``<name>-1`` to ``<name>-<preloaded>`` that must be there before the users start.  ``usual``:
    measured where nobody says which.
    """

    name: str
    title: str
    may_be_missing: bool = False
    preloaded: int = 0
    usual: bool = True

    @property
    def wrk_script(self) -> str:
        return f"benchmarks/wrk/{self.name}.lua"

    @property
    def locust_file(self) -> str:
        return f"benchmarks/locust/{self.name.replace('-', '_')}.py"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("same-data", "100 x (PUT, GET), then DELETE; one key for all users", may_be_missing=True),
        Workload("random-data", "100 x (PUT, GET), then DELETE; a key for each user"),
        Workload("put-only", "PUT; a key for each user"),
        Workload("get-only", "GET of 100 keys", preloaded=100),
        Workload("get-quorum", "GET of 100 keys with quorum=true", preloaded=100, usual=False),
        Workload("put-10kb", "PUT of 10,000 bytes; a key for each user", usual=False),
    )
}

USUAL = tuple(name for name, workload in WORKLOADS.items() if workload.usual)
