"""``python -m benchmarks.bare``: an HTTP server with next to nothing behind it.

It answers the workloads' requests with bodies like etcd's and keeps nothing: what is left is the HTTP server's own
part of a request.  The servers are set up as the services set them up; the application is bare ASGI or bare WSGI, in
one process.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

KEYS = "/v2/keys"
JSON = "application/json"
REASONS = {200: "200 OK", 201: "201 Created"}
BACKLOG = 4096

Scope = MutableMapping[str, Any]


def answer(method: str, path: str) -> tuple[int, bytes]:
    """Status and body, of about the length of etcd's."""
    if path == "/health":
        return 200, b'{"health":"true"}'
    if path == "/version":
        return 200, b'{"etcdserver":"none","etcdcluster":"none"}'
    action, status = ("set", 201) if method == "PUT" else ("get", 200)
    node = f'{{"key":"{path.removeprefix(KEYS)}","value":"1","modifiedIndex":100,"createdIndex":100}}'
    return status, f'{{"action":"{action}","node":{node}}}'.encode()


async def asgi(
    scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Callable[[Scope], Awaitable[None]]
) -> None:
    if scope["type"] != "http":  # hypercorn asks for a lifespan; an exception says that there is none
        raise NotImplementedError(scope["type"])
    while (await receive()).get("more_body", False):
        pass
    status, body = answer(scope["method"], scope["path"])
    headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]
) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    status, body = answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    start_response(REASONS[status], [("Content-Type", JSON), ("Content-Length", str(len(body)))])
    return [body]


def run_granian(interface: str, host: str, port: int) -> None:
    from granian.constants import HTTPModes, Interfaces

    if interface == "asgi":
        import uvloop
        from granian.server.embed import Server as Embedded

        server = Embedded(
            asgi,
            host,
            port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=BACKLOG,
            log_enabled=False,
        )
        uvloop.run(server.serve())
        return
    from granian import Granian

    Granian(
        "benchmarks.bare:wsgi",
        host,
        port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKLOG,
        blocking_threads=BLOCKING_THREADS,
        log_enabled=False,
    ).serve()


#: For WSGI: at most as many requests are in the application's hands at once; as the services have it.
BLOCKING_THREADS = 1024


def run_hypercorn(interface: str, host: str, port: int) -> None:
    import uvloop
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{host}:{port}"]
    config.backlog = BACKLOG
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    application: Any = asgi if interface == "asgi" else wsgi
    mode: Any = interface
    uvloop.run(serve(application, config, mode=mode))


RUN = {"granian": run_granian, "hypercorn": run_hypercorn}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=__doc__)
    parser.add_argument("--server", choices=list(RUN), required=True)
    parser.add_argument("--interface", choices=["asgi", "wsgi"], required=True)
    parser.add_argument("--name", help="as the services have it; not used")
    parser.add_argument("--listen-client-urls", metavar="URL", required=True)
    parser.add_argument("--advertise-client-urls", metavar="URL", help="as the services have it; not used")
    options = parser.parse_args()
    place = urlsplit(options.listen_client_urls)
    try:
        RUN[options.server](options.interface, place.hostname or "127.0.0.1", place.port or 2379)
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass


if __name__ == "__main__":
    main()
