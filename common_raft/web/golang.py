"""The parts of Go's standard library that show through etcd's API: how it reads requests and writes JSON.

Each function follows Go 1.16, with which etcd 3.5.1 was built, down to the wording of errors; the Go package is named
in its docstring. Text that a client sent is ``str`` with bytes that are not UTF-8 as lone surrogates (PEP 383).
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import unquote_to_bytes

_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_JSON_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_JSON_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUOTE_SHORT = {**_JSON_SHORT, "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_MAX_UINT64 = 2**64 - 1

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_MEDIA_TYPE = re.compile(rf"({_TOKEN})(/?)((?:{_TOKEN})?)(.*)", re.DOTALL)
_MEDIA_PARAMETER = re.compile(rf'\s*;\s*({_TOKEN})\s*=\s*({_TOKEN}|"(?:[^"\\\r\n]|\\.)*")', re.DOTALL)


class GoError(ValueError):
    """An input that Go refuses; its text is Go's."""


def json_text(text: str) -> str:
    """The inside of a JSON string, escaped as encoding/json does, HTML's characters included."""
    if text.isalnum() or _JSON_SPECIAL.search(text) is None:
        return text
    return _JSON_SPECIAL.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    character = match.group()
    short = _JSON_SHORT.get(character)
    if short is not None:
        return short
    code = ord(character)
    return "\\ufffd" if code >= 0xDC80 else f"\\u{code:04x}"


def quote(data: bytes) -> str:
    """A Go string literal in double quotes, as strconv.Quote gives it."""
    text = data.decode("utf-8", "surrogateescape")
    return '"' + "".join(map(_quote_character, text)) + '"'


def _quote_character(character: str) -> str:
    short = _QUOTE_SHORT.get(character)
    if short is not None:
        return short
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def sprintf(text: str) -> str:
    """fmt.Sprintf of a text that somebody else chose, and of nothing to put into it."""
    return _VERB.sub(_verb, text) if "%" in text else text


_INDEX = r"\[[^\]]*\]|\["
_VERB = re.compile(
    rf"%[#0+\- ]*(?P<index>{_INDEX})?(?P<width>\*|\d*)"
    rf"(?P<point>\.(?P<precision_index>{_INDEX})?(?P<precision>\*|\d*))?(?P<verb_index>{_INDEX})?(?P<verb>.)?",
    re.DOTALL | re.ASCII,
)


def _verb(match: re.Match[str]) -> str:
    text = "%!(BADWIDTH)" if match["width"] == "*" else ""
    if match["precision"] == "*":
        text += "%!(BADPREC)"
    verb = match["verb"]
    if verb is None:
        return text + "%!(NOVERB)"
    if verb == "%":
        return text + "%"
    indexed = match["index"] or match["precision_index"] or match["verb_index"]
    return f"{text}%!{verb}({'BADINDEX' if indexed else 'MISSING'})"


def unescape_path(raw: bytes) -> str:
    """Percent-decoding of a path (net/url). Raises GoError."""
    if b"%" not in raw:
        return raw.decode("utf-8", "surrogateescape")
    bad = _ESCAPE.search(raw)
    if bad is not None:
        raise GoError(f"invalid URL escape {quote(raw[bad.start() : bad.start() + 3])}")
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


def unescape_query(raw: bytes) -> str:
    """Percent-decoding of a key or value of a form (net/url): ``+`` is a space. Raises GoError."""
    return unescape_path(raw.replace(b"+", b" ")) if b"+" in raw else unescape_path(raw)


def escape_path(path: str) -> str:
    """Percent-encoding of a path (net/url)."""
    data = path.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _PATH_SAFE else f"%{byte:02X}" for byte in data)


_PATH_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~$&+,/:;=@")


def parse_query(form: dict[str, str], raw: bytes) -> GoError | None:
    """Add the fields of a query or an urlencoded body to ``form`` (net/url); what is there already is kept.

    Like Go it goes on after a field that cannot be decoded, and returns the first such error.
    """
    error: GoError | None = None
    for field in raw.replace(b";", b"&").split(b"&"):
        if not field:
            continue
        name, _, value = field.partition(b"=")
        try:
            form.setdefault(unescape_query(name), unescape_query(value))
        except GoError as failure:
            error = error or failure
    return error


def parse_media_type(raw: str) -> str:
    """The media type of a Content-Type header, in lower case (mime.ParseMediaType). Raises GoError."""
    head, semicolon, rest = raw.partition(";")
    media_type = head.lower().strip()
    match = _MEDIA_TYPE.fullmatch(media_type)
    if match is None:
        raise GoError("mime: no media type")
    _, slash, subtype, tail = match.groups()
    if not slash and (subtype or tail):
        raise GoError("mime: expected slash after first token")
    if slash and not subtype:
        raise GoError("mime: expected token after slash")
    if tail:
        raise GoError("mime: unexpected content after media subtype")
    _check_media_parameters(semicolon + rest)
    return media_type


def _check_media_parameters(rest: str) -> None:
    names = set()
    while rest.strip() not in ("", ";"):
        match = _MEDIA_PARAMETER.match(rest)
        if match is None:
            raise GoError("mime: invalid media parameter")
        name = match.group(1).lower()
        if name in names:
            raise GoError("mime: duplicate parameter name")
        names.add(name)
        rest = rest[match.end() :]


def parse_bool(text: str) -> bool:
    """strconv.ParseBool. Raises ValueError."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(text)


def parse_uint(text: str) -> int:
    """strconv.ParseUint in base 10, 64 bits. Raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    digits = text.lstrip("0") or "0"  # of which int takes only so many
    if len(digits) > 20:
        raise ValueError(text)
    number = int(digits)
    if number > _MAX_UINT64:
        raise ValueError(text)
    return number


def wrap_int64(number: int) -> int:
    """What is left of a result in an int64, which overflows without a word."""
    return (number + 2**63) % 2**64 - 2**63


def go_time(nanoseconds: int) -> str:
    """A time since 1970 as time.Time's JSON: RFC 3339 with nanoseconds, without trailing zeros, in UTC."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def json_number(number: float) -> str:
    """A float64 as encoding/json writes it: the shortest digits; an exponent below 1e-6 and from 1e21 on."""
    plain = format(Decimal(repr(number)), "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    if number == 0 or 1e-6 <= abs(number) < 1e21:
        return plain
    digits, _, exponent = f"{Decimal(repr(number)):e}".partition("e")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    sign, size = exponent[0], exponent[1:].lstrip("0")
    return f"{digits}e{sign}{size if sign == '-' else size.zfill(2)}"


def clean_path(path: str) -> str:
    """The path that net/http's ServeMux would redirect to: no ``//``, ``.`` or ``..``; a trailing slash is kept."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    cleaned = "/" + "/".join(kept)
    return cleaned + "/" if path.endswith("/") and kept else cleaned


def escape_html(text: str) -> str:
    """What net/http does to a redirect's address in its body."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text
