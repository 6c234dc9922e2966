"""Deterministic simulation of a whole cluster, for this library's tests and for its users' state machines.

    from common_raft.testing import Simulation

    for seed in range(100):
        Simulation(seed, make_machine=MyMachine, workload=my_commands).run(steps=500)

raises `SimulationFailed` with the seed, the step and a trace when replicas disagree or the cluster does not
recover.  ``python -m common_raft.testing`` runs the core itself, and so does `run_seeds`, on several processes.
"""

from common_raft.testing.invariants import RULES, Invariants, Rule, Violation
from common_raft.testing.machine import Accumulator, StateMachine, Workload
from common_raft.testing.network import Conditions
from common_raft.testing.runner import Failure, Summary, run_seeds
from common_raft.testing.simulation import Simulation, SimulationFailed
from common_raft.testing.trace import Trace
from common_raft.testing.weather import Fault, Request, Weather

__all__ = [
    "RULES",
    "Accumulator",
    "Conditions",
    "Failure",
    "Fault",
    "Invariants",
    "Request",
    "Rule",
    "Simulation",
    "SimulationFailed",
    "StateMachine",
    "Summary",
    "Trace",
    "Violation",
    "Weather",
    "Workload",
    "run_seeds",
]
