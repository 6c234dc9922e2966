"""Who may do what: pure rules (server/etcdserver/api/v2auth/auth.go, HasKeyAccess and HasRecursiveAccess)."""

from collections.abc import Iterable

from common_raft.web.auth.models import ROOT, Role


def allows(roles: Iterable[Role], key: str, *, write: bool, recursive: bool) -> bool:
    """Whether any of ``roles`` may use ``key``, the path behind ``/v2/keys`` just as it was sent.

    A recursive request needs a pattern that ends with ``*``.  Nothing asks what lies between: ``/a*`` allows a
    listing of ``/a``, ``/a/*`` does not, but one of ``/a/``.
    """
    return any(_allows(role, key, write, recursive) for role in roles)


def _allows(role: Role, key: str, write: bool, recursive: bool) -> bool:
    if role.name == ROOT:
        return True
    patterns = (role.permissions.write if write else role.permissions.read) or ()
    # etcd dies of an empty pattern, without an answer; here it is like no pattern at all.
    return any(
        key.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == key and not recursive
        for pattern in patterns
        if pattern
    )
