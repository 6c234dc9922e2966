"""What etcd answers by name (``likeness/cases.txt``, which etcd wrote), answered without a process or a socket."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from common_raft.tests.likeness.cases import FILE, Case, answer_text, read, rewritten
from common_raft.tests.likeness.conversation import learn
from common_raft.tests.likeness.deviations import DEVIATIONS
from common_raft.tests.likeness.requests import SLEEP, Request, resolved
from common_raft.tests.likeness.shown import shown
from common_raft.tests.likeness.wire import Answer, Head
from common_raft.tests.web_fakes import FakeNode
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.response import Response
from common_raft.web.stream import Stream

README = Path(__file__).parents[2] / "README.md"
CASES = read(FILE.read_text())


def hold(requests: Sequence[Request]) -> list[str]:
    """The answers of a node with an empty keyspace, as text; what goes on is looked at in the end."""
    node = FakeNode()
    api = EtcdV2(node, node.keyspace)
    began = time.time()
    known: dict[str, int] = {}
    given: list[Response | Stream | None] = []
    for request in requests:
        if request.method == SLEEP:
            pause(node)
            given.append(None)
            continue
        answers: list[Response | Stream] = []
        body = b"" if request.body is None else resolved(request.body, 0, known).encode()
        kind = None if request.body is None or request.content_type is None else request.content_type.encode()
        target = resolved(request.target, 0, known).encode()
        api.handle(request.method, target, kind, body, answers.append)
        [answer] = answers
        if isinstance(answer, Response):
            learn(known, answer.body)
        given.append(answer)
    return [
        "" if answer is None else told(request, answer, began)
        for request, answer in zip(requests, given, strict=True)
    ]


def pause(node: FakeNode) -> None:
    """As long as ttls of a second take, with the leader's clock."""
    for _ in range(6):
        time.sleep(0.2)
        node.expire()


def told(request: Request, answer: Response | Stream, began: float) -> str:
    if isinstance(answer, Stream):
        pieces, ended = answer.take()
        head, body = Response(200, answer.head, b""), b"".join(pieces)
    else:
        head, body, ended = answer, b"" if request.method == "HEAD" else answer.body, True
    headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers()]
    whole = Answer(Head(answer.status, headers), body, ended, time.time())
    return answer_text(shown(whole, 0, began, in_order=request.sorts))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_answered_as_by_etcd(case: Case) -> None:
    assert case.text(hold(case.requests)) == case.text(case.expected)


def test_the_file_is_read_as_it_is_written() -> None:
    text = FILE.read_text()
    assert len(CASES) > 45
    assert rewritten(text, {case.name: case.expected for case in CASES}) == text
    for case in CASES:
        for request, answer in zip(case.requests, case.expected, strict=True):
            assert bool(answer) is (request.method != SLEEP), (case.name, request)


def test_a_wrong_answer_is_seen() -> None:
    [first, *_] = CASES
    other = [*first.requests[1:], first.requests[0]]
    assert hold(other) != list(first.expected)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_concerns_its_example_and_the_readme_names_it(name: str) -> None:
    assert DEVIATIONS[name].concerns(DEVIATIONS[name].example)
    assert f"| {name}" in README.read_text()


@pytest.mark.parametrize("text", ["GET /v2/keys/a", "# a name alone", "# a\nGET", "# a\nGET /a  b  c  d"])
def test_what_is_no_case_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="request"):
        read(text)
