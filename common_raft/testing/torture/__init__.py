"""Real nodes under faults and load, whose answers are all judged: ``python -m common_raft.testing.torture --help``.

clients   who asks, and what is recorded of it
faults    the table of what can be done to a cluster
run       one run: a schedule from a seed, the cluster, the clients, the verdict
"""

from common_raft.testing.torture.run import Outcome, Settings, TortureFailed, torture

__all__ = ["Outcome", "Settings", "TortureFailed", "torture"]
