"""Requests as nearly all clients send them, recognised in one step where a parser calls back a dozen times.

What is recognised here is read by the parser in the same way (tests compare them); the parser reads everything else.
"""

import re

#: A request is looked at only if it is no longer, in bytes.
MAX_BYTES = 1 << 10

# Headers that mean nothing here, or what is so in any case.
_OTHER = (
    rb"(?:User-Agent|Accept|Accept-Encoding|Accept-Language|Cache-Control): [ -~]*|Connection: keep-alive"
)


def _once(group: int, header: bytes) -> bytes:
    """``header``, unless it has come before; ``group`` is the number of the group in it."""
    return rb"(?(%d)(?!)|%s)" % (group, header)


_MATCH = re.compile(
    rb"(GET|PUT) (/v2/keys[0-9A-Za-z/?&=._~%-]*) HTTP/1\.1\r\n(?:(?:"
    + rb"|".join(
        (
            _once(3, rb"Host: ([0-9A-Za-z.:-]+)"),
            _once(4, rb"Content-Length: ([0-9]{1,4})"),
            _once(5, rb"Content-Type: ([0-9A-Za-z/.+-]+(?:; ?[0-9A-Za-z=.-]+)?)"),
            _OTHER,
        )
    )
    + rb")\r\n)*\r\n"
).match


def plain_request(data: bytes) -> tuple[str, bytes, bytes | None, bytes] | None:
    """Method, target, content type and body if ``data`` is one plain request and no more; None: parse it."""
    match = _MATCH(data)
    if match is None:
        return None
    method, target, host, length, content_type = match.groups()
    if host is None:
        return None
    if method == b"GET":
        nothing_else = length is None and content_type is None and match.end() == len(data)
        return ("GET", target, None, b"") if nothing_else else None
    if length is None or content_type is None:
        return None
    body = data[match.end() :]
    return ("PUT", target, content_type, body) if len(body) == int(length) else None
