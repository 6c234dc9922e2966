"""A story of requests on authentication, and under it; what etcd 3.5.1 answers to each is in `auth_story.txt`.

    python -m common_raft.tests.auth_story PORT

has a fresh etcd at that port tell its part anew.
"""

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from common_raft.testing.processes import Answer, request

TOLD = Path(__file__).with_suffix(".txt")
FORM = "application/x-www-form-urlencoded"
#: Headers that say when, by whom and in which framing; those for browsers are the same in every answer.
PASSING = re.compile("date|server|x-raft-.*|connection|transfer-encoding|content-length|access-control-.*")
INDEX = re.compile(rb'("(?:modifiedIndex|createdIndex|index)":|/)(\d{20}|\d+)')

ROOT = "root:secret"
ANN = "ann:a"
BOB = "bob:b"


class Ask(NamedTuple):
    """``by`` is name:password, or with a blank in it a whole Authorization header."""

    method: str
    target: str
    body: str = ""
    by: str = ""

    def headers(self) -> dict[str, str]:
        headers = {} if self.target.startswith("/v2/auth") else {"Content-Type": FORM}
        if self.target.startswith("/v2/members"):
            headers["Content-Type"] = "application/json"
        if self.by:
            headers["Authorization"] = self.by if " " in self.by else basic(self.by)
        return headers

    def __str__(self) -> str:
        by = f" [{self.by}]" if self.by else ""
        return f"{self.method} {self.target}{by} {self.body}".rstrip()


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def user(name: str, by: str = "", **fields: object) -> Ask:
    body = json.dumps({"user": name, **fields}, ensure_ascii=False)
    return Ask("PUT", f"/v2/auth/users/{quote(name)}", body, by)


def role(name: str, by: str = "", **fields: object) -> Ask:
    body = json.dumps({"role": name, **fields}, ensure_ascii=False)
    return Ask("PUT", f"/v2/auth/roles/{quote(name)}", body, by)


def kv(read: object = None, write: object = None) -> dict[str, object]:
    return {"kv": {"read": read, "write": write}}


def get(target: str, by: str = "") -> Ask:
    return Ask("GET", target, by=by)


METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")
PATHS = (
    "/v2/auth", "/v2/auth/", "/v2/auth/foo", "/v2/auth/users", "/v2/auth/users/", "/v2/auth/users/x",
    "/v2/auth/users/x/", "/v2/auth/users/x/y", "/v2/auth/usersx", "/v2/auth/users//x", "/v2/auth/users/..",
    "/v2/auth/roles", "/v2/auth/roles/", "/v2/auth/roles/x", "/v2/auth/roles/root", "/v2/auth/roles/guest",
    "/v2/auth/roles/a/b/c", "/v2/auth/enable", "/v2/auth/enable/", "/v2/auth/enable/x",
)  # fmt: skip
NOT_JSON = (
    "", " ", "null", "nullx", "1", '"x"', "[]", "{", "{}", '{"user":1}', '{"user":"x"', '{"user":"x",}',
    "{'user':'x'}",
    '{"user":"x","roles":"a"}', '{"user":"x","roles":{}}', '{"user":"x","roles":[1]}', '{"user":"x","grant":[[]]}',
    '{"user":"x","password":null}', '{"user":"x","password":NaN}', '{"user":"x","other":01}', '{"user":"x\n"}',
    '{"user":"x","other":{"deep":[1,-2.5e7,true,null,"\\u00e9\\n"]}}', '{"USER":"x"} trailing', '{"u\u017fer":"x"}',
    '{"user":"y","user":"x"}', '{"user":"x","user":null}', '{"user":"x\\q"}', '{"user":"\\u0078"}', "\ufeff{}",
    '{"user":"y"}', '{"user":""}', '{"role":"x"}',
)  # fmt: skip
VERBS = (
    "50%", "%d%", "%5.3x", "%%", "%*d", "%[1]d", "%-08q", "% x", "%é", "%.*f", "%[x]d", "%[", "%!", "%v%w", "%+",
    "%T", "%#v", "%.[1]2d", "%5[1]d", "%5.%", "%\u2028", "%z%%%",
)  # fmt: skip
ODD_NAMES = (
    "a%20b", "%C3%BC", "%25", "%3Cb%3E", "_hidden", "=x", "a.b", "a%00b", "%ff", "a+b", "a;b", "%22", "a%2Fb",
    "%E2%80%A8", "...", "x" * 300,
)  # fmt: skip


def disabled() -> Iterator[Ask]:
    """Before there is anything, then users and roles as they come and go."""
    for method in METHODS:
        yield from (Ask(method, path) for path in PATHS)
    for path in ("users", "roles", "users/x", "roles/root", "enable"):
        yield get(f"/v2/auth/{path}?a=%zz")
    yield from (Ask("PUT", "/v2/auth/users/x", body) for body in NOT_JSON)
    yield user("x", password="")
    yield Ask("PUT", "/v2/auth/users/x", '{"user":"x","password":"p"}xx')
    yield from (get("/v2/auth/users/x?a=%zz"), get("/v2/auth/users/x"), get("/v2/auth/users"))
    yield from (user("x"), user("x"), user("x", grant=[]), user("x", password="q"))
    yield from (
        user("x", grant=["a"]),
        user("x", grant=["a"]),
        user("x", grant=["c", "c"]),
        user("x", revoke=["b"]),
    )
    yield from (user("x", grant=["b"], revoke=["b"]), user("x", grant=["b"], revoke=["a"]))
    yield from (get("/v2/auth/users/x"), get("/v2/auth/users"))
    yield from (
        user("x", roles=["a"], grant=["b"]),
        user("x", roles=["a"]),
        user("x", roles=["a"], password="q"),
    )
    yield from (
        user("n", roles=["b", "a", "a"], password="q"),
        user("n", grant=["ü<b>&"]),
        user("n", revoke=["a", "a"]),
    )
    yield from (user("n", revoke=[each]) for each in VERBS)
    yield from (user("n", grant=["%d"]), user("n", grant=["%d"]), user("n", revoke=["a"], password="zz"))
    yield from (user("nope", grant=["a"]), Ask("DELETE", "/v2/auth/users/nope"))
    yield from (Ask("DELETE", "/v2/auth/users/n"), Ask("DELETE", "/v2/auth/users/n"), get("/v2/auth/users/n"))


def roles() -> Iterator[Ask]:
    yield from (role("r"), role("r"), role("r", grant={}), role("r", permissions=kv(["/x"])))
    yield Ask("PUT", "/v2/auth/roles/r", '{"role":"q"}')
    for body in (
        '{"role":"r2","grant":{},"revoke":{"kv":{"read":[]}}}',
        '{"role":"r3","permissions":{"kv":null},"grant":null}',
        '{"role":"r4","permissions":{"KV":{"read":["/a"]}},"permissions":{"kv":{"Write":["/b"]}}}',
        '{"role":"r5","permissions":[]}', '{"role":"r5","permissions":{"kv":[]}}',
        '{"role":"r5","permissions":{"kv":{"read":"/a"}}}', '{"role":"r5","permissions":null,"revoke":{"kv":{}}}',
        '{"role":"r6","grant":{"kv":{"read":["/a"]}},"grant":null}', '{"role":"r7","permissions":{"read":["/a"]}}',
    ):  # fmt: skip
        yield Ask("PUT", f"/v2/auth/roles/{body[9:11]}", body)
    yield get("/v2/auth/roles/r2")
    yield get("/v2/auth/roles")
    for fields in (
        {"revoke": kv(["/x"])}, {"revoke": kv(["/x"])}, {"grant": kv(["/b", "/a"], ["/w*"])},
        {"grant": kv(["/b", "/a"], ["/w*"])}, {"grant": kv(None, ["/w*"])},
        {"grant": kv(["/a"]), "permissions": kv(["/q"])}, {"grant": kv(["/c", "/c"])},
        {"grant": kv(["/c"]), "revoke": kv(["/c"])}, {"grant": kv(["/c"]), "revoke": kv(["/a", "/nope"])},
        {"permissions": kv(["/q"])}, {"grant": kv(["/%d"])}, {"grant": kv(["/%d"])}, {"grant": kv(["/ü<&"])},
    ):  # fmt: skip
        yield role("r2", **fields)
    yield from (role("root"), role("root", grant=kv(["/"])), Ask("DELETE", "/v2/auth/roles/root"))
    yield from (
        role("nope", grant=kv(["/"])),
        Ask("DELETE", "/v2/auth/roles/nope"),
        Ask("DELETE", "/v2/auth/roles/r"),
    )
    yield from (
        role("q", permissions=kv(["/b", "/a", "/a"])),
        role("q", revoke=kv(["/a"])),
        get("/v2/auth/roles/q"),
    )


def odd_names() -> Iterator[Ask]:
    for kind, field in (("users", "user"), ("roles", "role")):
        for name in ODD_NAMES:
            path = f"/v2/auth/{kind}/{name}"
            plain = unquote(name, errors="replace")
            yield get(path)
            yield Ask("DELETE", path)
            yield Ask("PUT", path, json.dumps({field: plain, "password": "p"}))
            yield get(path)
        yield get(f"/v2/auth/{kind}")
        for name in ODD_NAMES:
            yield Ask("DELETE", f"/v2/auth/{kind}/{name}")


def enabling() -> Iterator[Ask]:
    yield from (Ask("PUT", "/v2/auth/enable"), Ask("DELETE", "/v2/auth/enable"), get("/v2/auth/enable"))
    yield from (user("root", password="secret"), user("root", revoke=["root"]), get("/v2/auth/users/root"))
    yield from (user("root", roles=["x"], password="s"), user("root", password="secret"))
    yield from (Ask("DELETE", "/v2/auth/users/root"), user("root", roles=["x"], password="secret"))
    yield from (get("/v2/auth/users"), user("root", grant=["root"]), user("root", revoke=["x"]))
    yield from (
        role("a", permissions=kv(["/a", "/a/*", "/both*"], ["/a/w*"])),
        role("b", permissions=kv([], ["/b"])),
    )
    yield from (user("ann", roles=["a"], password="a"), user("bob", roles=["gone", "b"], password="b"))
    yield from (
        user("eve", password="e"),
        user("adm", roles=["root"], password="p:q"),
        user("long", password="x" * 80),
    )
    yield from (Ask("PUT", "/v2/keys/a/w/1", "value=1"), Ask("PUT", "/v2/keys/b", "value=1"))
    yield from (Ask("PUT", "/v2/auth/enable"), get("/v2/auth/enable"))


#: Who may come: root with and without the right password, others, and headers that name nobody.
CALLERS = (
    "", ROOT, "root:wrong", "nobody:x", ANN, "ann:", BOB, "eve:e", "adm:p:q", "long:" + "x" * 80, "long:" + "x" * 72,
    "long:" + "x" * 71, "Basic", "Basic ", "Basic x", "Bearer abc", "basic cm9vdDpzZWNyZXQ=",
    "BASIC  cm9vdDpzZWNyZXQ=",
    "Basic cm9vdDpzZWNyZXQ", "Basic cm9vdDpzZWNyZXQ==", "Basic cm9vdA==", "Basic cm9vdDpzZWNyZXR=", "Negotiate x y",
)  # fmt: skip


def enabled() -> Iterator[Ask]:
    for by in CALLERS:
        yield get("/v2/keys/b", by)
        yield get("/v2/auth/users/eve", by)
        yield get("/v2/auth/enable", by)
    for by in ("", ROOT, ANN):
        for path in (
            "/v2/auth/users",
            "/v2/auth/users/nope",
            "/v2/auth/users/x/y",
            "/v2/auth/roles",
            "/v2/auth/foo",
        ):
            yield from (Ask(method, path, "{}", by) for method in ("GET", "PUT", "PATCH", "OPTIONS"))
        for path in ("/v2/members/zz", "/v2/members/leader/x", "/v2/stats/self/", "/v2/machines/"):
            yield from (Ask(method, path, "{}", by) for method in ("GET", "PUT", "POST", "DELETE"))
        yield from (Ask(method, "/v2/members/", "{}", by) for method in ("PUT", "DELETE", "PATCH"))
        yield Ask("PUT", "/v2/auth/enable", by=by)
    yield Ask("DELETE", "/v2/auth/users/root", by=ROOT)
    yield from under_permissions()
    yield from guests()
    yield from (user("eve", ROOT, password="f"), get("/v2/keys/b", "eve:e"), get("/v2/keys/b", "eve:f"))
    yield from (
        user("eve", ROOT, grant=["b"]),
        Ask("PUT", "/v2/keys/b", "value=2", "eve:f"),
        get("/v2/keys/b", "eve:f"),
    )
    yield from (Ask("DELETE", "/v2/auth/roles/b", by=ROOT), Ask("PUT", "/v2/keys/b", "value=3", "eve:f"))
    yield from (Ask("DELETE", "/v2/auth/users/eve", by=ROOT), get("/v2/keys/b", "eve:f"))
    yield from (user("adm", ROOT, revoke=["root"]), get("/v2/auth/users", "adm:p:q"))


def under_permissions() -> Iterator[Ask]:
    """Ann reads /a, /a/* and /both*, and writes /a/w*."""
    for key in (
        "",
        "/",
        "/a",
        "/a/",
        "/a/w",
        "/a/w/1",
        "/a/wx",
        "/aa",
        "/both",
        "/bothx/y",
        "/bot",
        "/a%2Fw",
        "/%61",
    ):
        for query in ("", "?recursive=true", "?sorted=true&recursive=false"):
            yield get(f"/v2/keys{key}{query}", ANN)
        yield Ask("HEAD", f"/v2/keys{key}", by=ANN)
    for key in ("", "/", "/a", "/a/", "/a/n", "/a/wy", "/a/w/2", "/b"):
        yield Ask("PUT", f"/v2/keys{key}", "value=1", ANN)
        yield Ask("PUT", f"/v2/keys{key}?recursive=true", "value=2", ANN)
        yield Ask("POST", f"/v2/keys{key}", "value=1", ANN)
        yield Ask("PUT", f"/v2/keys{key}?prevExist=false", "value=1", ANN)
        yield Ask("DELETE", f"/v2/keys{key}", by=ANN)
        yield Ask("DELETE", f"/v2/keys{key}?recursive=true", by=ANN)
    for target in (
        "/v2/keys/b?ttl=x", "/v2/keys/b?prevIndex=x", "/v2/keys/b?recursive=x", "/v2/keys/b?%zz", "/v2/keys//b",
        "/v2/keys/b?wait=x",
    ):  # fmt: skip
        yield from (get(target), get(target, ANN))
    for key in ("b?wait=true", "b?wait=true&recursive=true&stream=true", "a?wait=true&recursive=true"):
        yield from (get(f"/v2/keys/{key}", ANN), get(f"/v2/keys/{key}", "nobody:x"))
    yield from (
        Ask("PATCH", "/v2/keys/b", by=ANN),
        Ask("OPTIONS", "/v2/keys/b", by=ANN),
        get("/v2/keysx", ANN),
    )
    yield from (
        Ask("PUT", "/v2/keys/b", "value=7", BOB),
        get("/v2/keys/b", BOB),
        get("/v2/keys/b?recursive=true", BOB),
    )
    yield Ask("PUT", "/v2/keys/b?recursive=true", "value=7", BOB)


def guests() -> Iterator[Ask]:
    """With the guest's role as it was made, then with less, then without any."""
    yield from (get("/v2/auth/roles/guest", ROOT), role("guest", ROOT, revoke=kv(["/*"], ["/*"])))
    yield from (get("/v2/keys/b"), Ask("PUT", "/v2/keys/b", "value=4"), get("/v2/keys/b", ROOT))
    yield role("guest", ROOT, grant=kv(["/b", "/p/*"], ["/p/*"]))
    for key in ("/b", "/p", "/p/", "/p/x", "/q", "/", ""):
        yield from (get(f"/v2/keys{key}"), get(f"/v2/keys{key}?recursive=true"))
    yield from (
        Ask("PUT", "/v2/keys/p/x", "value=5"),
        Ask("DELETE", "/v2/keys/p/x"),
        Ask("POST", "/v2/keys/p/", "value=1"),
    )
    yield from (Ask("DELETE", "/v2/auth/roles/guest", by=ROOT), get("/v2/keys/b"), get("/v2/keys/b", ROOT))


def disabling() -> Iterator[Ask]:
    yield from (Ask("DELETE", "/v2/auth/enable"), Ask("DELETE", "/v2/auth/enable", by=ANN))
    yield from (Ask("DELETE", "/v2/auth/enable", by=ROOT), Ask("DELETE", "/v2/auth/enable", by=ROOT))
    yield from (
        get("/v2/keys/b"),
        get("/v2/keys/b", "nobody:x"),
        get("/v2/auth/users"),
        get("/v2/auth/enable"),
    )
    yield from (
        Ask("PUT", "/v2/auth/enable"),
        get("/v2/auth/roles/guest", ROOT),
        Ask("DELETE", "/v2/auth/enable", by=ROOT),
    )
    yield Ask("DELETE", "/v2/auth/users/root")


def story() -> list[Ask]:
    parts = (disabled, roles, odd_names, enabling, enabled, disabling)
    return [ask for part in parts for ask in part()]


class Teller:
    """Has a server tell the story, indexes counted from where it begins."""

    def __init__(self, ask: Callable[[Ask], Answer]) -> None:
        self._ask = ask
        ask(Ask("PUT", "/v2/keys/story", "value=1"))
        self._start = int(ask(Ask("DELETE", "/v2/keys/story")).headers["x-etcd-index"])

    def tell(self, asked: Ask) -> str:
        answer = self._ask(asked)
        headers = [
            self._header(name, text)
            for name, text in sorted(answer.headers.items())
            if not PASSING.fullmatch(name)
        ]
        body = INDEX.sub(self._counted, answer.body).decode()
        return f"{answer.status} {'; '.join(headers)} {body!a}"

    def _header(self, name: str, text: str) -> str:
        if name == "x-etcd-cluster-id":
            text = "some"
        elif name == "x-etcd-index" and text != "0":
            text = str(int(text) - self._start)
        return f"{name}: {text}"

    def _counted(self, match: re.Match[bytes]) -> bytes:
        number = int(match[2])
        if match[1] != b"/":
            return b"%s%d" % (match[1], number - self._start if number else 0)
        return b"/%020d" % (number - self._start) if len(match[2]) == 20 else match[0]  # a key made in order


def ask_port(port: int) -> Callable[[Ask], Answer]:
    def ask(asked: Ask) -> Answer:
        return request(port, asked.method, asked.target, asked.body.encode(), asked.headers())

    return ask


def told() -> list[str]:
    """What etcd answered to `story`, one each."""
    return [line.removeprefix("    ") for line in TOLD.read_text().splitlines() if line.startswith("    ")]


if __name__ == "__main__":
    teller = Teller(ask_port(int(sys.argv[1])))
    TOLD.write_text("".join(f"{str(asked)!a}\n    {teller.tell(asked)}\n" for asked in story()))
