"""Conversations by name, each with what etcd answered: the file ``cases.txt``, to be read as a text.

A case is a comment (its name) and requests, each with its answer, indented, below it.  A request is a method, a
target and, two spaces apart, a body and its content type where that is not a form's.  Headers that each answer on
keys has are left out; where those for browsers are missing, that is said.  ``SLEEP 2`` lets two seconds pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common_raft.tests.likeness.requests import FORM, SLEEP, Request
from common_raft.tests.likeness.shown import Shown

FILE = Path(__file__).with_name("cases.txt")
#: Headers of each answer; a differential test compares these too.
USUAL = re.compile(r"access-control-.*|x-etcd-cluster-id|content-type")
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Case:
    """``expected``: the answers as text, one for each request; nothing for a pause."""

    name: str
    requests: Sequence[Request]
    expected: Sequence[str]

    def text(self, answers: Sequence[str]) -> str:
        """The case as the file has it, with these answers."""
        lines = [f"# {line}" for line in self.name.split("\n")]
        for request, answer in zip(self.requests, answers, strict=True):
            lines.append(_line(request))
            lines += [f"    {line}" for line in answer.split("\n") if line]
        return "\n".join(lines) + "\n"


def read(text: str) -> list[Case]:
    """Raises ValueError for what is no case."""
    return [_case(block) for block in re.split(r"\n\n+", text.strip()) if not block.startswith("##")]


def rewritten(text: str, answers: Mapping[str, Sequence[str]]) -> str:
    """``text`` with new answers to the cases that are named."""
    blocks = re.split(r"\n\n+", text.strip())
    told = []
    for block in blocks:
        case = None if block.startswith("##") else _case(block)
        told.append(
            block if case is None or case.name not in answers else case.text(answers[case.name]).strip()
        )
    return "\n\n".join(told) + "\n"


def answer_text(answer: Shown | None) -> str:
    """An answer as the file has it."""
    if answer is None:
        return ""
    headers = dict(answer.headers)
    if headers.get("content-type") == JSON:
        del headers["content-type"]
    raft = [headers.pop(name, None) for name in ("x-raft-index", "x-raft-term")]
    shown = [
        f"{name}: {value}"
        for name, value in headers.items()
        if not USUAL.fullmatch(name) or name == "content-type"
    ]
    if raft != [None, None]:
        shown.append("x-raft-*")
    assert raft.count(None) != 1, raft
    if "access-control-allow-origin" not in headers:
        shown.append("no access-control-*")
    body = answer.body.decode("utf-8", "backslashreplace").rstrip("\n")
    lines = ["  ".join([str(answer.status), *shown]), *(f"| {line}" for line in body.split("\n") if body)]
    return "\n".join(lines if answer.ended else [*lines, "..."])


def _case(block: str) -> Case:
    names: list[str] = []
    requests: list[Request] = []
    expected: list[list[str]] = []
    for line in block.split("\n"):
        if line.startswith("# "):
            names.append(line[2:])
        elif line.startswith("    "):
            expected[-1].append(line[4:])
        else:
            requests.append(_request(line))
            expected.append([])
    if not names or not requests:
        raise ValueError(f"a case has a comment and a request: {block!r}")
    return Case("\n".join(names), requests, ["\n".join(lines) for lines in expected])


def _request(line: str) -> Request:
    first, *more = line.split("  ")
    method, space, target = first.partition(" ")
    if not space or len(more) > 2:
        raise ValueError(f"no request: {line!r}")
    if not more:
        return Request(method, target)
    kind = more[1][1:-1] if len(more) == 2 else FORM
    return Request(method, target, more[0], None if kind == "none" else kind)


def _line(request: Request) -> str:
    line = f"{request.method} {request.target}"
    if request.method == SLEEP or request.body is None:
        return line
    kind = "" if request.content_type == FORM else f"  ({request.content_type or 'none'})"
    return f"{line}  {request.body}{kind}"
