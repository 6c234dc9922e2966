"""The comparison itself, with etcd on both sides: it is fair, sees what differs, and reaches what etcd can answer.

What every server is to answer like etcd stands in ``likeness/cases.txt`` as well, by name; etcd wrote it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from common_raft.tests.likeness.cases import FILE, read, rewritten
from common_raft.tests.likeness.differences import Difference, difference, shortest, told
from common_raft.tests.likeness.generator import requests
from common_raft.tests.likeness.requests import Request
from common_raft.tests.services.variants import CLUSTERS, etcd_cluster
from common_raft.tests.services.yardstick import (
    FLAGS,
    Yardstick,
    compare,
    conversations_alone,
    conversations_with_clusters,
    hold,
    hold_case,
    ports_of,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
#: What an answer on keys begins with: which action it was, or which error.
TOLD = re.compile(rb'\{"(?:action|errorCode)":"?(\w+)')


def test_cases_are_what_etcd_says(one_etcd: Yardstick) -> None:
    """With REWRITE_CASES=1 in the environment they are written anew; read the difference before you commit it."""
    text = FILE.read_text()
    [port] = ports_of(one_etcd.cluster)
    answers = {case.name: hold_case(port, case) for case in read(text)}
    if os.environ.get("REWRITE_CASES"):
        FILE.write_text(rewritten(text, answers))
    else:
        assert rewritten(text, answers) == text


def test_one_run_compares_more_than_twenty_thousand_answers() -> None:
    alone = sum(map(len, conversations_alone()))
    with_each = sum(map(len, conversations_with_clusters()))
    assert with_each >= 2_000
    assert alone + len(CLUSTERS) * with_each > 20_000


def test_one_etcd_is_like_another(one_etcd: Yardstick, tmp_path: Path) -> None:
    with etcd_cluster(tmp_path, 1, FLAGS) as other:
        assert compare(one_etcd, other, conversations_alone()[-3:]) is None


def test_three_etcds_are_like_three_others(three_etcds: Yardstick, tmp_path: Path) -> None:
    with etcd_cluster(tmp_path, 3, FLAGS) as other:
        assert compare(three_etcds, other, conversations_with_clusters()[1:3]) is None


def test_a_difference_is_found_and_made_small(one_etcd: Yardstick) -> None:
    """One that etcd makes because it is asked something else at one place."""
    asked = [each for each in islice(requests(5), 120) if not each.waits]
    ports = ports_of(one_etcd.cluster)
    theirs = hold(ports, asked)
    marker = asked[
        max(place for place, answer in enumerate(theirs.answers) if answer and answer.status == 201)
    ]

    def both(these: Sequence[Request]) -> Difference | None:
        theirs = hold(ports, these)
        others = [Request("PUT", "/v2/keys/elsewhere") if each is marker else each for each in these]
        return difference(theirs, hold(ports, others, theirs))

    found = both(asked)
    assert found is not None
    fewer, found = shortest(asked, found, both, 30)
    assert fewer == [marker]
    assert str(marker) in told(fewer, found)


def test_the_conversations_reach_all_that_etcd_can_answer(one_etcd: Yardstick) -> None:
    reached: Counter[str] = Counter()
    for asked in conversations_alone()[2:]:
        for answer in filter(None, one_etcd.told(asked).answers):
            reached[str(answer.status)] += 1
            reached.update(match[1].decode() for match in TOLD.finditer(answer.body))
    wanted = (
        "get", "set", "create", "update", "compareAndSwap", "compareAndDelete", "delete", "expire",
        "100", "101", "102", "104", "105", "107", "108", "201", "202", "203", "209", "210", "211", "212", "300",
        "401",
        "200", "301", "400", "403", "404", "405", "412", "500",
    )  # fmt: skip
    assert not [each for each in wanted if reached[each] < 3], reached
