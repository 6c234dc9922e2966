"""Seeded random requests on few keys, so that they meet: all methods, every parameter with good, bad, empty and
repeated values, in query and form, sensible and not.

Nothing expires while requests go on, but in a pause at most, and no value is a number: what is compared would depend
on time, or could not be told from an index.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from common_raft.tests.likeness.requests import FORM, SLEEP, Request

#: Names of keys, the common ones first.
NAMES = ("a", "b", "c", "_h", "d.e", "é", "\u2603 x", "<&>", "%", "+", "~q?;#")
LEAVES = ("x", "y")
#: The same as bytes that are no text, escaped.
ODD_NAMES = ("%FF", "%FF%FE", "%00", "%0A", "%C3", "%ED%A0%80", "a%7F", "%E2%80%A8", "x%22%5C")
VALUES = (
    "x",
    "y",
    "two words",
    "",
    "ünï ☃",
    '"q"\\\t\n',
    "<b>&amp;</b>",
    "a=b&c=d;e",
    "\u2028\u2029",
    "\x00\x7f",
    "\U0001f600",
)

BOOLEANS = {
    "good": ("true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "False", "True", "FALSE"),
    "bad": ("", "yes", "tRue", "2", " true", "no", "01"),
}
NUMBERS = (
    "",
    "abc",
    "-1",
    "+3",
    "1_0",
    "0x10",
    "1.5",
    "1e3",
    "999999999999",
    "18446744073709551615",
    "18446744073709551616",
    " 5",
    "٣",
    "0",
)
#: Far enough apart to be told from each other although time passes; the hugest overflows Go's durations.
TTLS = ("1000", "5000", "100000", "31536000", "18446745074", "0001000")
BAD_TTLS = ("", "abc", "-1", "1.5", "+100", "1e9", "0x1000", "18446744073709551616", " 1000")
SWITCHES = (
    "dir",
    "recursive",
    "sorted",
    "quorum",
    "wait",
    "stream",
    "refresh",
    "prevExist",
    "noValueOnSuccess",
)
METHODS = ("PATCH", "OPTIONS", "TRACE", "LOCK", "get", "PROPFIND", "FOO")
ELSEWHERE = (
    "/", "/v2", "/v2/", "/version", "/version/", "/versionx", "/v2/stats", "/v2/stats/", "/v2/stats/self/",
    "/health/", "/healthy", "/metrics/", "/v2/auth", "/v2/auth/", "/v2/stats/store/", "*",
    "http://elsewhere/v2/keys/a", "http://elsewhere//version", "https://elsewhere:1/version?x", "http://elsewhere",
    "/v2/keysx", "/v2/key", "/v1/keys/a", "/v2/members/nobody", "/v2/machinesx",
    "/v2/../v2/keys/a", "/a/../b", "//", "/%76%32/keys/a", "/v2%2Fkeys/a", "/V2/keys/a",
)  # fmt: skip


def requests(seed: int) -> Iterator[Request]:
    """Without end."""
    generator = Generator(seed, TTLS, 0.15)
    while True:
        yield generator.request()


def expiring(seed: int, before: int) -> Iterator[Request]:
    """So many requests that make and change keys which expire in the pause that follows; then others, without end.

    All expire a second after they were made, and so in that order, which is told to who has watched all along.
    """
    generator = Generator(seed, ("1",), 0.5)
    yield Request("GET", "/v2/keys?wait=true&recursive=true&stream=true")
    for _ in range(before):
        yield generator.request()
    yield Request(SLEEP, "2.5")
    generator.live_longer()
    while True:
        yield generator.request()


class Generator:
    def __init__(self, seed: int, ttls: Sequence[str], mortal: float) -> None:
        """``mortal``: the share of writes that have a ttl; it is one of ``ttls``."""
        self.random = random.Random(seed)
        self._ttls, self._mortal = ttls, mortal
        self._asked = 0

    def live_longer(self) -> None:
        self._ttls = TTLS

    def request(self) -> Request:
        self._asked += 1
        kinds = (
            (self._put, 26), (self._get, 18), (self._delete, 13), (self._post, 6), (self._conditional, 18),
            (self._watch, 3), (self._anything, 13), (self._elsewhere, 2), (self._method, 1),
        )  # fmt: skip
        [kind] = self.random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        request: Request = kind()
        return request

    # What a client would ask.

    def _put(self) -> Request:
        pairs: list[tuple[str, str]] = []
        if self._chance(0.15):
            pairs.append(("dir", "true"))
        elif not self._chance(0.05):
            pairs.append(("value", self._value()))
        if self._chance(self._mortal):
            pairs.append(("ttl", self._one(self._ttls)))
        if self._chance(0.2):
            pairs.append(("prevExist", self._one(("true", "false"))))
        if self._chance(0.05):
            pairs.append(("noValueOnSuccess", "true"))
        return self._sent("PUT", self._path(leaf=0.05 if ("dir", "true") in pairs else 0.85), pairs)

    def _get(self) -> Request:
        pairs = [(name, "true") for name in ("recursive", "sorted", "quorum") if self._chance(0.25)]
        method = "HEAD" if self._chance(0.1) else "GET"
        return Request(method, self._path(nothing=0.2) + self._query(pairs))

    def _delete(self) -> Request:
        pairs = [(name, "true") for name in ("recursive", "dir") if self._chance(0.45)]
        return Request("DELETE", self._path() + self._query(pairs))

    def _post(self) -> Request:
        pairs = [("dir", "true")] if self._chance(0.15) else [("value", self._value())]
        if self._chance(self._mortal):
            pairs.append(("ttl", self._one(self._ttls)))
        if self._chance(0.1):
            pairs.append(("noValueOnSuccess", "true"))
        return self._sent("POST", self._path(nothing=0.1, leaf=0.05), pairs)

    def _conditional(self) -> Request:
        """Compare-and-swap, compare-and-delete and refresh, with conditions that often hold."""
        key = self._key(0.9)
        pairs: list[tuple[str, str]] = []
        if self._chance(0.55):
            pairs.append(("prevIndex", "{@/" + "/".join(key) + "}" if self._chance(0.7) else self._index()))
        if self._chance(0.5):
            pairs.append(("prevValue", self._value() or self._one(("x", "x", ""))))
        if self._chance(0.25):
            pairs.append(("prevExist", self._one(("true", "true", "false"))))
        path = "/v2/keys/" + "/".join(quote(name, safe="") for name in key)
        if self._chance(0.35):
            pairs += [(name, "true") for name in ("recursive", "dir") if self._chance(0.15)]
            return Request("DELETE", path + self._query(pairs))
        if self._chance(0.25):
            pairs += [("refresh", "true"), ("ttl", self._one(self._ttls if self._chance(0.9) else BAD_TTLS))]
            if self._chance(0.8):
                pairs.append(("prevExist", "true"))
            if self._chance(0.1):
                pairs.append(("value", self._one(("", "x"))))
        else:
            pairs.append(("value", self._value()))
            if self._chance(self._mortal):
                pairs.append(("ttl", self._one(self._ttls)))
        pairs += [(name, "true") for name in ("dir", "noValueOnSuccess") if self._chance(0.1)]
        return self._sent("PUT", path, pairs)

    def _watch(self) -> Request:
        pairs = [("wait", "true")]
        if self._chance(0.75):
            pairs.append(("waitIndex", self._index() if self._chance(0.85) else "1"))
        pairs += [
            (name, self._one(("true", "true", "false")))
            for name in ("recursive", "stream")
            if self._chance(0.5)
        ]
        if self._chance(0.1):
            pairs.append(("quorum", "true"))
        return Request("GET", self._path(nothing=0.15) + self._query(pairs))

    # What a client would not.

    def _anything(self) -> Request:
        """Any method with any parameters, twice too, wherever they are."""
        method = self._one(("GET", "HEAD", "PUT", "PUT", "PUT", "POST", "POST", "DELETE", "DELETE"))
        pairs = [self._pair() for _ in range(self.random.choice((0, 1, 1, 2, 2, 3, 4, 6)))]
        if method in ("PUT", "POST") and self._chance(0.5):
            pairs.append(("value", self._value()))
        path = self._path(nothing=0.1)
        cut = self.random.randint(0, len(pairs))
        query = self._query(pairs[:cut])
        if self._chance(0.07):
            query += self._one(
                ("&", "?", ";", "&&", "&=", "&%zz", "&a=%f", "?&?", "&value", "&dir", ";value=z", "#x")
            )
        if self._chance(0.95 if method in ("GET", "HEAD") else 0.4):
            return Request(method, path + query)
        body = self._query(pairs[cut:])[1:]
        if self._chance(0.01):
            body = "value=" + "v" * self.random.choice((70_000, 300_000))
        if self._chance(0.07):
            body += self._one(
                ("&%zz=1", "&value=%", ";dir=true", "&&", "=", "&ttl=%GG", "\x00", "&value=%FF")
            )
        kind: str | None = FORM
        if self._chance(0.12):
            kind = self._one(
                (None, "", "text/plain", FORM.upper(), FORM + "; charset=utf-8", FORM + ";", FORM + "; a", FORM + "x",
                 "application/json", "multipart/form-data; boundary=x", "multipart/form-data", "a/b/c", "/")
            )  # fmt: skip
        return Request(method, path + query, body, kind, chunked=self._chance(0.05))

    def _elsewhere(self) -> Request:
        method = self._one(("GET", "GET", "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"))
        return self._sent(method, self._one(ELSEWHERE), [("value", "x")] if self._chance(0.2) else [])

    def _method(self) -> Request:
        return Request(self._one(METHODS), self._one((self._path(), self._path(), self._one(ELSEWHERE))))

    # Their parts.

    def _key(self, leaf: float = 0.7) -> list[str]:
        """``leaf``: how often its last name is one that seldom is a directory's."""
        depth = self.random.choice((1, 1, 1, 2, 2, 2, 3, 4))
        common = 3 if self._chance(0.85) else len(NAMES)
        key = [self._one(NAMES[:common]) if not self._chance(0.06) else "_h" for _ in range(depth)]
        if self._chance(leaf):
            key[-1] = self._one(LEAVES)
        return key

    def _path(self, nothing: float = 0.03, leaf: float = 0.5) -> str:
        """A target on a key; ``nothing``: how often on the root."""
        if self._chance(nothing):
            return self._one(("/v2/keys", "/v2/keys/"))
        names = [quote(name, safe="") for name in self._key(leaf)]
        if self._chance(0.08):
            return self._odd_path(names)
        return "/v2/keys/" + "/".join(names) + ("/" if self._chance(0.05) else "")

    def _odd_path(self, names: list[str]) -> str:
        path = "/v2/keys/" + "/".join(names)
        match self.random.randrange(14):
            case 0:
                return path + self._one(
                    ("//", "/.", "/..", "/./", "/../x", "/...", "%2F", "/%2e", "/%2E%2e/x")
                )
            case 1:
                return "/v2/keys/" + self._one(("/", "./", "../", "%2F", "%2e%2e/")) + "/".join(names)
            case 2:
                return "/v2/keys/" + self._one(("//", "/./", "%2F", "/%2F", "%2f%2f")).join(names)
            case 3:
                return path + self._one(("%zz", "%", "%4", "%G1"))
            case 4 | 5 | 6:
                return "/v2/keys/" + "/".join([*names[:1], self._one(ODD_NAMES)])
            case 7:
                return "/v2/keys/" + self._one(ODD_NAMES)
            case 8:
                return "/v2/keys/" + "".join(f"%{byte:02x}" for byte in "/".join(names).encode())
            case 9:
                return path + "/" + "long" * self.random.choice((20, 500, 2000))
            case 10:
                return path + "/é☃"  # not escaped
            case 11:
                return path + self._one(("/a+b", "/$&,:;=@!*'()[]", "/{}|^", "/a\\b", '/"', "/`", "/<>"))
            case 12:
                return "/v2/keys/" + "/".join(["n"] * self.random.choice((20, 200)))
            case _:
                return path + f"/{{#{self.random.randint(0, self._asked)}}}"

    def _value(self) -> str:
        if self._chance(0.7):
            return self._one(VALUES[:2])
        if self._chance(0.03):
            return "v" * self.random.choice((1000, 3000))
        return self._one(VALUES)

    def _index(self) -> str:
        """One that there may be already, or not yet."""
        return f"{{+{self.random.randint(1, self._asked + 20)}}}"

    def _pair(self) -> tuple[str, str]:
        """A parameter, with a value that may be good."""
        match self.random.randrange(10):
            case 0 | 1 | 2 | 3:
                good = self._chance(0.7)
                return self._one(SWITCHES), self._one(BOOLEANS["good" if good else "bad"])
            case 4:
                return "ttl", self._one(self._ttls if self._chance(0.5) else BAD_TTLS)
            case 5:
                return "prevIndex", self._one(NUMBERS) if self._chance(0.5) else self._index()
            case 6:
                return "waitIndex", self._one(NUMBERS) if self._chance(0.5) else self._index()
            case 7:
                return "prevValue", self._value()
            case 8:
                return "value", self._value()
            case _:
                return self._one(("", "Value", "dIr", "unknown", "key", "ttl ", "prevNode")), self._value()

    def _sent(self, method: str, path: str, pairs: Sequence[tuple[str, str]]) -> Request:
        """As curl sends it, or with the parameters in the query."""
        if not pairs or self._chance(0.3):
            return Request(method, path + self._query(pairs))
        if self._chance(0.2):
            return Request(method, path + self._query(pairs[:1]), self._query(pairs[1:])[1:])
        return Request(method, path, self._query(pairs)[1:], chunked=self._chance(0.02))

    def _query(self, pairs: Sequence[tuple[str, str]]) -> str:
        """With the question mark; nothing if there is nothing to ask."""
        if not pairs:
            return ""
        told = (
            (quote(name), value if value.startswith("{") else quote(value, safe="")) for name, value in pairs
        )
        between = ";" if self._chance(0.03) else "&"
        text = "?" + between.join(
            name if not value and self._chance(0.3) else f"{name}={value}" for name, value in told
        )
        return text.replace("%20", "+") if self._chance(0.5) else text

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _one(self, choices: Sequence[str | None]) -> str:
        return self.random.choice(choices)  # type: ignore[return-value]
