"""etcd v2's numbered errors: code, message and HTTP status.

Source: etcd 3.5, ``server/etcdserver/api/v2error/error.go``.
"""

from enum import IntEnum


class Code(IntEnum):
    """The ``errorCode`` of an answer."""

    KEY_NOT_FOUND = 100
    TEST_FAILED = 101
    NOT_FILE = 102
    NOT_DIR = 104
    NODE_EXISTS = 105
    ROOT_READ_ONLY = 107
    DIR_NOT_EMPTY = 108
    UNAUTHORIZED = 110
    PREV_VALUE_REQUIRED = 201
    TTL_NAN = 202
    INDEX_NAN = 203
    INVALID_FIELD = 209
    INVALID_FORM = 210
    REFRESH_VALUE = 211
    REFRESH_TTL_REQUIRED = 212
    RAFT_INTERNAL = 300
    LEADER_ELECTION = 301
    WATCHER_CLEARED = 400
    EVENT_INDEX_CLEARED = 401


_MESSAGES = {
    Code.KEY_NOT_FOUND: "Key not found",
    Code.TEST_FAILED: "Compare failed",
    Code.NOT_FILE: "Not a file",
    Code.NOT_DIR: "Not a directory",
    Code.NODE_EXISTS: "Key already exists",
    Code.ROOT_READ_ONLY: "Root is read only",
    Code.DIR_NOT_EMPTY: "Directory not empty",
    Code.UNAUTHORIZED: "The request requires user authentication",
    Code.PREV_VALUE_REQUIRED: "PrevValue is Required in POST form",
    Code.TTL_NAN: "The given TTL in POST form is not a number",
    Code.INDEX_NAN: "The given index in POST form is not a number",
    Code.INVALID_FIELD: "Invalid field",
    Code.INVALID_FORM: "Invalid POST form",
    Code.REFRESH_VALUE: "Value provided on refresh",
    Code.REFRESH_TTL_REQUIRED: "A TTL must be provided on refresh",
    Code.RAFT_INTERNAL: "Raft Internal Error",
    Code.LEADER_ELECTION: "During Leader Election",
    Code.WATCHER_CLEARED: "watcher is cleared due to etcd recovery",
    Code.EVENT_INDEX_CLEARED: "The event in requested index is outdated and cleared",
}

_STATUSES = {
    Code.KEY_NOT_FOUND: 404,
    Code.NOT_FILE: 403,
    Code.DIR_NOT_EMPTY: 403,
    Code.UNAUTHORIZED: 401,
    Code.TEST_FAILED: 412,
    Code.NODE_EXISTS: 412,
    Code.RAFT_INTERNAL: 500,
    Code.LEADER_ELECTION: 500,
}


class EtcdError(Exception):
    """An error in etcd v2's shape.

    The keyspace returns these as results (a refused command is an outcome that every replica agrees on); the
    parser of requests raises them. ``index`` is the etcd index at which a command was refused, 0 for errors of the
    request itself.
    """

    def __init__(self, code: Code, cause: str, index: int = 0) -> None:
        self.code = code
        self.cause = cause
        self.index = index

    @property
    def message(self) -> str:
        return _MESSAGES[self.code]

    @property
    def status(self) -> int:
        """The HTTP status; 400 for all that etcd has no other for."""
        return _STATUSES.get(self.code, 400)

    def __str__(self) -> str:
        return f"{self.message} ({self.cause})"
