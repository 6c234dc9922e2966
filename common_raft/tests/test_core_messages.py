"""What all values that cores exchange and keep have in common."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from common_raft.core import (
    ConfChange,
    ConfChanges,
    Config,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Message,
    SnapshotMeta,
)
from common_raft.core.messages import AppendEntries, InstallSnapshot

VALUES = [*get_args(Message), Entry, HardState, SnapshotMeta, Configuration, ConfChange, ConfChanges]

#: Those that hold other objects than numbers and bytes.
HOLD_OTHERS = {AppendEntries, InstallSnapshot, SnapshotMeta, Configuration, ConfChanges}


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_never_changes_and_is_an_array_on_the_wire(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.array_like


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_the_garbage_collector_looks_only_at_values_that_hold_others(kind: type[msgspec.Struct]) -> None:
    """There may be a million entries in memory; none of them can be part of a cycle."""
    assert kind.__struct_config__.gc is (kind in HOLD_OTHERS)


def test_the_limits_of_a_node_that_is_told_none_are_these() -> None:
    config = Config(1, (1,))
    assert (config.election_tick, config.heartbeat_tick) == (10, 1)
    assert (config.max_message_bytes, config.max_apply_bytes) == (2**20, 2**26)
    assert (config.max_inflight_messages, config.max_inflight_bytes) == (256, 2**26)
    assert config.max_uncommitted_bytes == 2**28
    assert (config.pre_vote, config.check_quorum, config.lease_reads) == (True, True, False)


def test_the_numbers_of_the_kinds_of_entries_are_these() -> None:
    """They are in logs and on the wire."""
    assert {kind.name: kind.value for kind in EntryKind} == {"NOOP": 0, "COMMANDS": 1, "CONFIGURATION": 2}
