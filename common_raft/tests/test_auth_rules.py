"""Users, roles and permissions: their JSON, what is merged into them, and who may do what."""

import pytest

from common_raft.web.auth.basic import parse_basic
from common_raft.web.auth.decoding import decode_role, decode_user
from common_raft.web.auth.flow import Flow, Step, run, wait
from common_raft.web.auth.models import AuthError, Permissions, Role, User, render_user
from common_raft.web.auth.permissions import allows
from common_raft.web.golang import GoError, sprintf


def reader(*patterns: str) -> Role:
    return Role("reader", Permissions(patterns, ()))


@pytest.mark.parametrize(
    ("pattern", "key", "plain", "recursive"),
    [
        ("/a", "/a", True, False),
        ("/a", "/a/", False, False),
        ("/a", "/a/b", False, False),
        ("/a/*", "/a", False, False),
        ("/a/*", "/a/", True, True),
        ("/a/*", "/a/b/c", True, True),
        ("/a*", "/a", True, True),
        ("/a*", "/ab", True, True),
        ("/a*", "/b", False, False),
        ("/*", "", False, False),
        ("/*", "/", True, True),
        ("*", "", True, True),
        ("/a*b", "/a*b", True, False),
        ("/a*b", "/axb", False, False),
        ("", "", False, False),
    ],
)
def test_a_pattern_allows_a_key_or_what_begins_like_it(
    pattern: str, key: str, plain: bool, recursive: bool
) -> None:
    role = reader(pattern)
    assert allows([role], key, write=False, recursive=False) is plain
    assert allows([role], key, write=False, recursive=True) is recursive
    assert not allows([role], key, write=True, recursive=False)


def test_any_of_several_roles_is_enough_and_root_may_do_all() -> None:
    writer = Role("writer", Permissions(None, ("/w",)))
    assert allows([reader("/a"), writer], "/w", write=True, recursive=False)
    assert not allows([reader("/a"), writer], "/w", write=False, recursive=False)
    assert allows([Role("root")], "", write=True, recursive=True)
    assert not allows([], "/a", write=False, recursive=False)


def test_permissions_are_granted_once_and_revoked_wherever_they_are() -> None:
    held = Permissions(("/b",), None)
    assert held.granted(Permissions(("/a",), ("/w",))) == Permissions(("/a", "/b"), ("/w",))
    with pytest.raises(AuthError, match="auth: Granting duplicate read permission /b"):
        held.granted(Permissions(("/b",)))
    with pytest.raises(AuthError, match="auth: Granting duplicate write permission /w"):
        held.granted(Permissions(None, ("/w", "/w")))
    assert held.revoked(Permissions(("/b", "/nope"))) == Permissions((), ())


def test_names_are_in_the_order_of_their_bytes() -> None:
    smile, private = "\U0001f600", "\ue000"  # in UTF-16 it would be the other way round
    merged = User("u").merged(User("u", grant=(smile, private, "b", "a")), "hash")
    assert merged.roles == ("a", "b", private, smile)


def test_an_update_that_changes_nothing_is_refused_but_null_is_something_else_than_empty() -> None:
    emptied = User("u", "hash").merged(User("u"), "hash")
    assert emptied == User("u", "hash", ())
    with pytest.raises(AuthError, match="User not updated"):
        emptied.merged(User("u"), "hash")
    assert emptied.merged(User("u"), "other").password == "other"
    role = Role("r").merged(Role("r", revoke=Permissions(("/x",))))
    assert role == Role("r", Permissions((), ()))
    with pytest.raises(AuthError, match="Role not updated"):
        role.merged(Role("r", revoke=Permissions(("/x",))))


def test_roles_are_granted_and_revoked_in_one_go() -> None:
    user = User("u", "hash", ("a", "a", "b"))
    assert user.merged(User("u", grant=("c",), revoke=("a", "c")), "hash").roles == ("b",)
    with pytest.raises(AuthError, match="Granting duplicate role c for user u"):
        user.merged(User("u", grant=("c", "c")), "hash")
    with pytest.raises(AuthError, match="Revoking ungranted role a for user u") as refused:
        user.merged(User("u", revoke=("a", "a")), "hash")
    assert refused.value.status == 409


def test_the_user_root_has_the_role_root_once() -> None:
    assert User("root").with_root_role().roles == ("root",)
    assert User("root", roles=("a",)).with_root_role().roles == ("a", "root")
    assert User("root", roles=("root", "a")).with_root_role().roles == ("root", "a")
    assert User("ann").with_root_role().roles is None


def test_what_is_kept_is_read_back_as_it_was() -> None:
    users = (User("a<b>", "$2b$10$x", ("ü", "x")), User("b", "h", ()), User("c", "h", None))
    assert [decode_user(user.render().encode()) for user in users] == list(users)
    roles = (
        Role("r", Permissions(("/a\u2028",), None)),
        Role("q", Permissions((), ("/w",)), grant=Permissions(), revoke=Permissions((), None)),
    )
    assert [decode_role(role.render().encode()) for role in roles] == list(roles)


def test_a_user_is_shown_without_password_and_with_its_roles_in_full() -> None:
    assert render_user(User("u", "hash", ()), []) == '{"user":"u"}'
    shown = render_user(User("u", "hash"), [reader("/a")])
    assert shown == '{"user":"u","roles":[{"role":"reader","permissions":{"kv":{"read":["/a"],"write":[]}}}]}'


def test_json_is_read_as_go_reads_it() -> None:
    assert decode_user(b' {"USER":"a","u\xc5\xbfer":"b","x":[{}]} and more') == User("b")
    assert decode_user(b'{"user":"a\xff\xe2\x82","roles":["\\ud800x",null]}') == User(
        "a\ufffd\ufffd\ufffd", "", ("\ufffdx", "")
    )
    assert decode_user(b"null") == User("")
    assert decode_user(b'{"roles":["a"],"roles":null}') == User("")
    assert decode_user(b'{"user":"\\ud83d\\ude00"}') == User("\U0001f600")
    merged = decode_role(b'{"permissions":{"kv":{"read":["/a"]}},"Permissions":{"KV":{"write":[]}}}')
    assert merged == Role("", Permissions(("/a",), ()))
    assert decode_role(b'{"grant":{},"revoke":{},"revoke":null}') == Role("", grant=Permissions())
    assert decode_user(b'{"other":' + b"1" * 10_000 + b"}") == User("")
    assert decode_user('{"pa\u00dfword":"p","passwor\u0131":"q"}'.encode()) == User("")


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[]", b"1", b'"x"', b"true", b'{"user":1}', b'{"roles":{}}', b'{"roles":[1]}',
        b"{'user':1}",
        b'{"user":"a\x01"}', b'{"x":NaN}', b'{"x":-Infinity}', b'{"user":"\\x"}', b'{"user":"a",}', b"\xef\xbb\xbf{}",
        b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_go_cannot_read_is_refused(body: bytes) -> None:
    with pytest.raises(GoError):
        decode_user(body)
    with pytest.raises(GoError):
        decode_role(b'{"permissions":[]}')


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"Basic YTpi", ("a", b"b")),
        (b"bASIC YTpi", ("a", b"b")),
        (b"Basic YTpiOmM=", ("a", b"b:c")),
        (b"Basic Og==", ("", b"")),
        (b"Basic /zr/", ("\udcff", b"\xff")),
        (b"Basic YTpiOmN=", ("a", b"b:c")),  # Go does not look at the bits that are left over
        (b"Basic YTpiOmM", None),
        (b"Basic YTpi=", None),
        (b"Basic YTpiOmM==", None),
        (b"Basic  YTpi", None),
        (b"Basic YTpi ", None),
        (b"Basic YWI=", None),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Bearer YTpi", None),
        (b"", None),
    ],
)
def test_basic_authentication(header: bytes, expected: tuple[str, bytes] | None) -> None:
    assert parse_basic(header) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", "100"),
        ("%", "%!(NOVERB)"),
        ("%5.2d%%", "%!d(MISSING)%"),
        ("%*.*f", "%!(BADWIDTH)%!(BADPREC)%!f(MISSING)"),
        ("%[1]d %[", "%!d(BADINDEX) %!(NOVERB)"),
    ],
)
def test_a_text_without_arguments_is_formatted_as_go_does(text: str, expected: str) -> None:
    assert sprintf(text) == expected


@pytest.mark.parametrize("later", [False, True])
def test_a_flow_goes_on_when_its_step_ends(later: bool) -> None:
    ends: list[object] = []
    waiting: list[object] = []

    def doubled(number: int) -> Step[int]:
        def step(done: object) -> None:
            assert callable(done)
            if later:
                waiting.append(lambda: done(2 * number))
            else:
                done(2 * number)

        return step

    def flow() -> Flow[int]:
        first = yield from wait(doubled(1))
        return first + (yield from wait(doubled(first)))

    run(flow(), ends.append)
    while waiting:
        assert not ends
        end = waiting.pop()
        assert callable(end)
        end()
    assert ends == [6]
