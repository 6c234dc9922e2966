"""A Raft node in a process of its own, whose state machine is a key-value service reached over HTTP."""
