"""Nodes as JSON."""

import json

import pytest

from common_raft.keyspace import Node, Tree
from common_raft.web.listing import listed, ttl_seconds

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
FILE = Node("/d/f", "<1>", 3, 2)


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        (7 * SECOND, 7),
        (6 * SECOND + 1, 7),
        (1, 1),
        (0, 0),
        (-1, 0),
        (-SECOND, -1),
        (-SECOND - 1, -1),
        (-(2**63), -((2**63) // SECOND)),
        (-(2**63) - NOW, -((2**63) // SECOND)),  # as far as a duration of 64 bits goes
    ],
)
def test_what_is_left_is_rounded_up_and_what_is_over_towards_0(left: int, shown: int) -> None:
    assert ttl_seconds(NOW + left, NOW) == shown


def test_a_file() -> None:
    assert listed(Tree(FILE), NOW) == (
        '{"key":"/d/f","value":"\\u003c1\\u003e","modifiedIndex":3,"createdIndex":2}'
    )


def test_a_file_with_a_ttl() -> None:
    node = Node("/f", "", 3, 2, expiration=NOW + 1_500_000_000)
    assert listed(Tree(node), NOW) == (
        '{"key":"/f","value":"","expiration":"2023-11-14T22:13:21.5Z","ttl":2,"modifiedIndex":3,"createdIndex":2}'
    )


def test_a_node_that_is_gone_has_no_value() -> None:
    assert listed(Tree(Node("/f", None, 3, 2)), NOW) == '{"key":"/f","modifiedIndex":3,"createdIndex":2}'
    assert listed(Tree(Node("/d", None, 3, 2, dir=True)), NOW) == (
        '{"key":"/d","dir":true,"modifiedIndex":3,"createdIndex":2}'
    )


def test_a_directory_without_anything_to_show_has_no_list() -> None:
    directory = Node("/d", None, 3, 2, dir=True)
    for tree in (Tree(directory), Tree(directory, [])):
        assert listed(tree, NOW) == '{"key":"/d","dir":true,"modifiedIndex":3,"createdIndex":2}'


def test_directories_in_directories() -> None:
    inner = Tree(
        Node("/d/e", None, 4, 4, dir=True, expiration=NOW + SECOND), [Tree(Node("/d/e/x", "1", 4, 4))]
    )
    tree = Tree(
        Node("/d", None, 2, 2, dir=True), [inner, Tree(FILE), Tree(Node("/d/g", None, 5, 5, dir=True))]
    )
    assert listed(tree, NOW) == (
        '{"key":"/d","dir":true,"nodes":['
        '{"key":"/d/e","dir":true,"expiration":"2023-11-14T22:13:21Z","ttl":1,"nodes":['
        '{"key":"/d/e/x","value":"1","modifiedIndex":4,"createdIndex":4}'
        '],"modifiedIndex":4,"createdIndex":4},'
        '{"key":"/d/f","value":"\\u003c1\\u003e","modifiedIndex":3,"createdIndex":2},'
        '{"key":"/d/g","dir":true,"modifiedIndex":5,"createdIndex":5}'
        '],"modifiedIndex":2,"createdIndex":2}'
    )
    assert json.loads(listed(tree, NOW))["nodes"][0]["nodes"][0]["key"] == "/d/e/x"


def test_a_key_that_ends_like_a_list_is_told_from_one() -> None:
    tree = Tree(
        Node("/d", None, 2, 2, dir=True), [Tree(Node("/d/[", "[", 3, 3)), Tree(Node("/d/]", "]", 4, 4))]
    )
    assert [node["key"] for node in json.loads(listed(tree, NOW))["nodes"]] == ["/d/[", "/d/]"]


def test_the_root_is_a_directory_and_nothing_more() -> None:
    assert listed(Tree(Node("/", None, 0, 0, dir=True), []), NOW) == '{"dir":true}'
