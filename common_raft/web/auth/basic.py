"""Basic authentication: name and password of a request's Authorization header (net/http, Request.BasicAuth)."""

import base64
import re
from typing import NamedTuple

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?").fullmatch


class Credentials(NamedTuple):
    name: str
    password: bytes


def parse_basic(header: bytes) -> Credentials | None:
    """None if it is something else."""
    encoded = header[6:]
    if header[:6].lower() != b"basic " or _BASE64(encoded) is None:
        return None
    name, colon, password = base64.b64decode(encoded).partition(b":")
    return Credentials(name.decode("utf-8", "surrogateescape"), password) if colon else None
