"""The story of `auth_story`: told by this service, over a node that is a cluster by itself, as etcd told it."""

import pytest

from common_raft.testing.processes import Answer
from common_raft.tests.auth_story import Ask, Teller, story, told
from common_raft.tests.web_fakes import FakeNode
from common_raft.web.auth import passwords
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.response import Response


class Direct:
    """Asks an API as a front does that passes everything on."""

    def __init__(self, api: EtcdV2) -> None:
        self.api = api

    def __call__(self, asked: Ask) -> Answer:
        headers = asked.headers()
        content_type = headers.get("Content-Type")
        answers: list[Response] = []
        self.api.handle(
            asked.method,
            asked.target.encode(),
            None if content_type is None else content_type.encode(),
            asked.body.encode(),
            answers.append,
            headers["Authorization"].encode() if self.api.wants_authorization and asked.by else None,
        )
        (answer,) = answers
        shown = {name.decode(): value.decode() for name, value in answer.headers()}
        return Answer(answer.status, shown, b"" if asked.method == "HEAD" else answer.body)


def test_the_story_is_told_as_etcd_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "COST", 4)
    node = FakeNode()
    teller = Teller(Direct(EtcdV2(node, node.keyspace)))
    for number, (asked, expected) in enumerate(zip(story(), told(), strict=True)):
        assert teller.tell(asked) == expected, f"{number}: {asked}"
