"""Puts a variant's parts together and runs them as one process with etcd's command line."""

from common_raft.service.run import Variant, main

__all__ = ["Variant", "main"]
