"""Requests as nearly all clients send them, recognised in one step where a parser calls back a dozen times.

What is recognised here is read by the parser in the same way (tests compare them); the parser reads everything else.
"""

import re

#: A request is looked at only if it is no longer, in bytes.
MAX_BYTES = 1 << 10

# Headers that mean nothing here, or what is so in any case.  None may come twice where that would matter.
_OTHER = (
    rb"(?:(?:User-Agent|Accept|Accept-Encoding|Accept-Language|Cache-Control): [ -~]*\r\n"
    rb"|Connection: keep-alive\r\n)*"
)
_MATCH = re.compile(
    rb"(?:(GET)|(?:PUT)) (/v2/keys[0-9A-Za-z/?&=._~%-]*) HTTP/1\.1\r\n"
    rb"Host: [0-9A-Za-z.:-]+\r\n" + _OTHER + rb"(?(1)|"
    rb"Content-Type: ([0-9A-Za-z/.+-]+(?:; ?[0-9A-Za-z=.-]+)?)\r\n"
    + _OTHER
    + rb"Content-Length: ([0-9]{1,4})\r\n"
    + _OTHER
    + rb")\r\n"
).match


def plain_request(data: bytes) -> tuple[str, bytes, bytes | None, bytes] | None:
    """Method, target, content type and body if ``data`` is one plain request and no more; None: parse it."""
    match = _MATCH(data)
    if match is None:
        return None
    is_get, target, content_type, length = match.groups()
    if is_get is not None:
        return ("GET", target, None, b"") if match.end() == len(data) else None
    body = data[match.end() :]
    return ("PUT", target, content_type, body) if len(body) == int(length) else None
