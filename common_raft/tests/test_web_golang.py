"""Go's way with text: each expectation was read off Go 1.16 or off etcd 3.5.1."""

import pytest

from common_raft.web.golang import (
    GoError,
    clean_path,
    escape_path,
    json_text,
    parse_bool,
    parse_media_type,
    parse_query,
    parse_uint,
    quote,
    unescape_path,
    unescape_query,
)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain ü 日本 \x7f", "plain ü 日本 \x7f"),
        ('"\\/', '\\"\\\\/'),
        ("\n\r\t\b\f\x00\x1f", "\\n\\r\\t\\u0008\\u000c\\u0000\\u001f"),
        ("<a>&\u2028\u2029", "\\u003ca\\u003e\\u0026\\u2028\\u2029"),
        (b"\xff\xe2\x82".decode("utf-8", "surrogateescape"), "\\ufffd\\ufffd\\ufffd"),
    ],
)
def test_json_is_escaped_as_by_encoding_json(text: str, escaped: str) -> None:
    assert json_text(text) == escaped


@pytest.mark.parametrize(
    ("data", "literal"),
    [
        (b"%zz", '"%zz"'),
        (b'%"\\', '"%\\"\\\\"'),
        (b"%\xff\x00", '"%\\xff\\x00"'),
        ("%é".encode(), '"%é"'),
        ("%\u00ad".encode(), '"%\\u00ad"'),
        (b"%\x7f\n", '"%\\x7f\\n"'),
    ],
)
def test_quoting_follows_strconv(data: bytes, literal: str) -> None:
    assert quote(data) == literal


def test_plus_is_a_space_in_a_query_and_itself_in_a_path() -> None:
    assert (unescape_path(b"/a+b%2B"), unescape_query(b"a+b%2B")) == ("/a+b+", "a b+")


@pytest.mark.parametrize(("raw", "shown"), [(b"a%zzb", "%zz"), (b"%", "%"), (b"%1", "%1"), (b"%41%4", "%4")])
def test_a_bad_escape_is_named_with_at_most_three_bytes(raw: bytes, shown: str) -> None:
    with pytest.raises(GoError, match=f'^invalid URL escape "{shown}"$'):
        unescape_path(raw)


def test_of_fields_with_one_name_the_first_counts_and_semicolons_separate() -> None:
    form: dict[str, str] = {"c": "kept"}
    assert parse_query(form, b"a=1&a=2;b=x%20y+z&&c=lost&d&=e&f=g=h") is None
    assert form == {"a": "1", "b": "x y z", "c": "kept", "d": "", "": "e", "f": "g=h"}


def test_fields_after_a_bad_one_still_count_and_the_first_error_is_told() -> None:
    form: dict[str, str] = {}
    error = parse_query(form, b"a=%zz&b=1&c=%yy")
    assert str(error) == 'invalid URL escape "%zz"'
    assert form == {"b": "1"}


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        ("application/X-www-Form-urlencoded", "application/x-www-form-urlencoded"),
        (" text/plain ; charset=utf-8", "text/plain"),
        ('a/b; c="d;e"; f=g;', "a/b"),
        ("token", "token"),
    ],
)
def test_media_types_that_go_reads(raw: str, media_type: str) -> None:
    assert parse_media_type(raw) == media_type


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (";", "mime: no media type"),
        ("a b", "mime: expected slash after first token"),
        ("a/", "mime: expected token after slash"),
        ("a/b c", "mime: unexpected content after media subtype"),
        ("a/b; c", "mime: invalid media parameter"),
        ("a/b; c=d; C=e", "mime: duplicate parameter name"),
    ],
)
def test_media_types_that_go_refuses(raw: str, message: str) -> None:
    with pytest.raises(GoError, match=f"^{message}$"):
        parse_media_type(raw)


def test_booleans_are_those_of_parse_bool() -> None:
    assert all(parse_bool(text) for text in ("1", "t", "T", "TRUE", "true", "True"))
    assert not any(parse_bool(text) for text in ("0", "f", "F", "FALSE", "false", "False"))
    for text in ("", "yes", "tRUE", "01", " true"):
        with pytest.raises(ValueError):
            parse_bool(text)


def test_numbers_are_those_of_parse_uint() -> None:
    assert (parse_uint("007"), parse_uint("18446744073709551615")) == (7, 2**64 - 1)
    assert (parse_uint("0" * 5000), parse_uint("0" * 5000 + "7")) == (0, 7)
    for text in ("", "-1", "+1", "1_0", "0x1", "18446744073709551616", "9" * 30, " 1", "٣"):
        with pytest.raises(ValueError):
            parse_uint(text)


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("/a/", "/a/"),
        ("//a//b/", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("/../..", "/"),
        ("/..a/b..", "/..a/b.."),
    ],
)
def test_paths_are_cleaned_as_by_serve_mux(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


def test_a_path_is_escaped_as_by_net_url() -> None:
    assert escape_path("/a b/ü?#%$&+,:;=@!\udcff") == "/a%20b/%C3%BC%3F%23%25$&+,:;=@%21%FF"
