"""Requests that a server may answer differently from etcd, each with the reason (the README names them, too)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from common_raft.tests.likeness.requests import Request, resolved


class Deviation(NamedTuple):
    servers: frozenset[str]
    why: str
    concerns: Callable[[Request], object]
    example: Request


#: What a deviation may be one of.  Granian hands a WSGI application less than it hands others.
HYPERCORN = frozenset(("hypercorn", "hypercorn with Flask"))
GRANIAN = frozenset(("granian", "granian with Flask"))
NATIVE = frozenset(("native",))
ALL = NATIVE | HYPERCORN | GRANIAN

DEVIATIONS: Mapping[str, Deviation] = {
    "HEAD with a body in chunks": Deviation(
        ALL,
        "400, as for any other body; Go answers it, takes the chunks for the next request, and refuses that",
        lambda request: request.method == "HEAD" and request.body is not None and request.chunked,
        Request("HEAD", "/v2/keys/a", "x", chunked=True),
    ),
    "a body in chunks": Deviation(
        frozenset(("granian with Flask",)),
        "411: granian does not tell a WSGI application whether all of it came",
        lambda request: request.body is not None and request.chunked,
        Request("PUT", "/v2/keys/a", "value=x", chunked=True),
    ),
    "what is not ASCII, unescaped": Deviation(
        HYPERCORN,
        "h11 refuses it with 400; clients escape it",
        lambda request: not request.target.isascii(),
        Request("GET", "/v2/keys/é"),
    ),
    "what is not ASCII, unescaped, in a target of a KiB or more": Deviation(
        NATIVE,
        "400: the front spells it anew for its parser, which it can where the line comes in one piece",
        lambda request: not request.target.isascii() and len(request.target) > 900,
        Request("GET", "/v2/keys/" + "é" * 1000),
    ),
    "what is ASCII and should be escaped": Deviation(
        GRANIAN,
        "granian refuses some of it with 400; clients escape all",
        lambda request: re.search(r'^[^?]*[`<>]|\?.*[<>"]', request.target),
        Request("GET", "/v2/keys/a<b"),
    ),
    "what looks like a fragment": Deviation(
        GRANIAN,
        "granian cuts off what follows a #, which no client sends",
        lambda request: "#" in resolved(request.target, 0, {}),
        Request("GET", "/v2/keys/a#b"),
    ),
    "what a proxy is asked": Deviation(
        GRANIAN,
        "granian cuts off the scheme and host before a path, so that redirects do not repeat them",
        lambda request: "://" in request.target.partition("?")[0],
        Request("GET", "http://elsewhere//version"),
    ),
    "a star with a query": Deviation(
        GRANIAN,
        "granian cuts off the query, so that it is 400 with less said, as a star alone",
        lambda request: request.target.startswith("*?"),
        Request("GET", "*?x"),
    ),
    "methods in lower case": Deviation(
        HYPERCORN,
        "ASGI has methods in upper case only, so that get is GET",
        lambda request: not request.method.isupper(),
        Request("get", "/v2/keys/a"),
    ),
    "bad escapes in the path": Deviation(
        frozenset(("granian with Flask",)),
        "granian unescapes the path before anybody sees it, so that %zz is taken for %25zz",
        lambda request: re.search(r"^[^?]*%(?![0-9a-fA-F]{2})", request.target),
        Request("GET", "/v2/keys/%zz"),
    ),
}


def excused(request: Request, servers: Iterable[str]) -> bool:
    """Whether some of ``servers`` may answer ``request`` as they like."""
    return any(
        deviation.concerns(request) and not deviation.servers.isdisjoint(servers)
        for deviation in DEVIATIONS.values()
    )
