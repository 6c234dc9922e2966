"""What a node is in its term (paper, figure 4; the pre-candidate is of thesis 9.6)."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"
