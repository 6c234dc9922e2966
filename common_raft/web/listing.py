"""Nodes of any kind as JSON: directories with what is in them, and what has a ttl.

Fields, their order and what is left out are those of etcd's NodeExtern (v2store/node_extern.go, node.go).
"""

from collections.abc import Iterator

from common_raft.keyspace import Node, Tree
from common_raft.web.golang import go_time, json_text

_SECOND = 10**9
_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1


def listed(tree: Tree, now: int) -> str:
    """A node, and all that is given of what is in it; ``now``, nanoseconds since 1970, is when a ttl is looked at.

    However deep the directories are, no call goes as deep: a client may have as many as a URL has room for.
    """
    pieces: list[str] = []
    ends: list[str] = []  # what closes the directories that are open
    open_lists: list[Iterator[Tree]] = []
    following: Tree | None = tree
    while following is not None:
        node = following.node
        if following.nodes:
            pieces.append(f'{{{_beginning(node, now)}"nodes":[')
            ends.append(f"]{_indexes(node)}")
            open_lists.append(iter(following.nodes))
        else:
            pieces.append(_alone(node, now))
        following = None
        while open_lists and following is None:
            following = next(open_lists[-1], None)
            if following is None:
                open_lists.pop()
                pieces.append(ends.pop())
            elif not pieces[-1].endswith("["):
                pieces.append(",")
    return "".join(pieces)


def _alone(node: Node, now: int) -> str:
    return f"{{{_beginning(node, now)[:-1]}{_indexes(node)}"


def _beginning(node: Node, now: int) -> str:
    """All that comes before what is in it, each with a comma after it.  The root has no key."""
    text = "" if node.key == "/" else f'"key":"{json_text(node.key)}",'
    if node.value is not None:
        text += f'"value":"{json_text(node.value)}",'
    if node.dir:
        text += '"dir":true,'
    if node.expiration is not None:
        text += f'"expiration":"{go_time(node.expiration)}",'
        ttl = ttl_seconds(node.expiration, now)
        if ttl:
            text += f'"ttl":{ttl},'
    return text


def _indexes(node: Node) -> str:
    """What comes last, and the closing brace; what is 0, for the root, is left out."""
    modified = f',"modifiedIndex":{node.modified_index}' if node.modified_index else ""
    created = f',"createdIndex":{node.created_index}' if node.created_index else ""
    return f"{modified}{created}}}"


def ttl_seconds(expiration: int, now: int) -> int:
    """What is left, in whole seconds: rounded up, or towards 0 once it is over (node.go, expirationAndTTL)."""
    left = min(max(expiration - now, _MIN_INT64), _MAX_INT64)
    return -(-left // _SECOND)
