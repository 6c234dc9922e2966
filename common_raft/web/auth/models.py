"""Users, roles and permissions, their JSON, and how changes are merged into them.

Fields, their order and every error are etcd's (server/etcdserver/api/v2auth/auth.go).  A list is None where Go has a
nil slice: it is shown as ``null`` and differs from an empty one, also where etcd asks whether an update changes
anything.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from common_raft.web.golang import json_text, sprintf

ROOT: Final = "root"  #: the user and the role
GUEST: Final = "guest"  #: the role of those who come without credentials

Names = tuple[str, ...] | None


class AuthError(Exception):
    """Why etcd's v2auth refuses; ``status`` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"auth: {text}")
        self.status = status


class Permissions(Struct, frozen=True):
    """Patterns of keys that may be read and written: a key, or with ``*`` at the end whatever begins so."""

    read: Names = None
    write: Names = None

    @property
    def empty(self) -> bool:
        return not self.read and not self.write

    def granted(self, more: "Permissions") -> "Permissions":
        """Raises AuthError for what is there already."""
        return Permissions(_granted("read", self.read, more.read), _granted("write", self.write, more.write))

    def revoked(self, less: "Permissions") -> "Permissions":
        """What was never granted is passed over."""
        return Permissions(_revoked(self.read, less.read), _revoked(self.write, less.write))

    def render(self) -> str:
        return f'{{"kv":{{"read":{_list(self.read)},"write":{_list(self.write)}}}}}'


class Role(Struct, frozen=True):
    """``grant`` and ``revoke`` are what a request asks for; a new role keeps them, as in etcd, if they are empty."""

    name: str
    permissions: Permissions = Permissions()
    grant: Permissions | None = None
    revoke: Permissions | None = None

    def merged(self, change: "Role") -> "Role":
        """Raises AuthError, also if nothing changes."""
        permissions = self.permissions
        if change.grant is not None:
            permissions = permissions.granted(change.grant)
        if change.revoke is not None:
            permissions = permissions.revoked(change.revoke)
        merged = Role(self.name, permissions)
        if merged == self:
            raise AuthError(400, "Role not updated. Use grant/revoke to update the role.")
        return merged

    def render(self) -> str:
        """Also what is stored."""
        asked = {"grant": self.grant, "revoke": self.revoke}
        rest = "".join(f',"{name}":{each.render()}' for name, each in asked.items() if each is not None)
        return f'{{"role":"{json_text(self.name)}","permissions":{self.permissions.render()}{rest}}}'


class User(Struct, frozen=True):
    """``password`` is clear text in a request, and its hash where it is kept."""

    name: str
    password: str = ""
    roles: Names = None
    grant: Names = None
    revoke: Names = None

    def with_root_role(self) -> "User":
        """The user root has the role root, whatever is stored."""
        if self.name != ROOT or ROOT in (self.roles or ()):
            return self
        return replace(self, roles=(*(self.roles or ()), ROOT))

    def merged(self, change: "User", password: str) -> "User":
        """With ``password`` as it is to be stored.  Raises AuthError, also if nothing changes."""
        merged = User(self.name, password, self._roles_after(change))
        if merged == self:
            raise AuthError(400, "User not updated. Use grant/revoke/password to update the user.")
        return merged

    def _roles_after(self, change: "User") -> tuple[str, ...]:
        roles = set(self.roles or ())
        # etcd formats these two texts twice, so that a percent sign in a name is taken for a verb.
        for each in change.grant or ():
            if each in roles:
                raise AuthError(409, sprintf(f"Granting duplicate role {each} for user {self.name}"))
            roles.add(each)
        for each in change.revoke or ():
            if each not in roles:
                raise AuthError(409, sprintf(f"Revoking ungranted role {each} for user {self.name}"))
            roles.remove(each)
        return in_order(roles)

    def render(self) -> str:
        """What is stored; without a password what a change is answered with."""
        password = f'"password":"{json_text(self.password)}",' if self.password else ""
        return f'{{"user":"{json_text(self.name)}",{password}"roles":{_list(self.roles)}}}'


#: Never stored, and never changed.
ROOT_ROLE: Final = Role(ROOT, Permissions(("/*",), ("/*",)))
#: Made when authentication is enabled, unless there is one: guests go on as before until it is changed.
GUEST_ROLE: Final = Role(GUEST, Permissions(("/*",), ("/*",)))


def render_user(user: User, roles: Iterable[Role]) -> str:
    """What a GET shows of a user: its roles in full, and no password."""
    shown = ",".join(role.render() for role in roles)
    rest = f',"roles":[{shown}]' if shown else ""
    return f'{{"user":"{json_text(user.name)}"{rest}}}'


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """In the order of their bytes, as Go sorts strings."""
    return tuple(sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape")))


def _granted(kind: str, held: Names, more: Names) -> tuple[str, ...]:
    patterns = set(held or ())
    for each in more or ():
        if each in patterns:
            raise AuthError(409, f"Granting duplicate {kind} permission {each}")
        patterns.add(each)
    return in_order(patterns)


def _revoked(held: Names, less: Names) -> tuple[str, ...]:
    return in_order(set(held or ()) - set(less or ()))


def _list(names: Names) -> str:
    if names is None:
        return "null"
    return "[" + ",".join(f'"{json_text(name)}"' for name in names) + "]"
