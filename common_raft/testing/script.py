"""Scripts: a cluster driven by hand, command by command, with everything that it says written out.

A script is a text file of blocks: comment lines, commands, ``----``, and the output of those commands, up to an
empty line (the format of etcd raft's testdata).  A reader sees the protocol run; a test compares the output.
There is no time and no chance in it: nothing moves unless a command says so, and election timeouts are exactly
``election_tick`` (plus the node's ``jitter``).

    cluster N [FIELD=VALUE ...]      nodes 1 to N, empty; the fields are those of `core.Config`, voters=1,2 too
    node ID [log=TERM,TERM,...] [term=T] [vote=V] [commit=C] [jitter=J]     (re)starts a node from such a disk
    campaign ID | tick ID [COUNT] | propose ID WORD ... | read ID CONTEXT
    transfer ID TARGET | unreachable ID PEER | forget ID
    change ID [CHANGE ...] [implicit|explicit]   proposes +4 (voter), ~4 (learner), -4 (remove); none: leaves
    snapshot ID | compact ID INDEX   writes a snapshot of what is applied; drops entries, also on disk
    report ID PEER ok|failed         tells how it went with a snapshot that was sent
    step MESSAGE FIELD=VALUE ...     hands a node a message made by hand (entries=TERM,TERM,...)
    ready ID                         takes one Ready: sends, queues its writes and what is to apply
    persist ID [COUNT]               the first COUNT writes in the disk's queue (all) become durable
    apply ID                         restores, or applies, what was handed out
    deliver FROM->TO [COUNT]         delivers the first COUNT messages (all) under way on that link; * is any node
    drop FROM->TO [COUNT]            loses them
    cut FROM->TO | cut ID | heal     what is sent on a cut link is lost; ``cut ID`` isolates a node
    crash ID [SURVIVING] | restart ID        writes in the queue are lost, but for the first SURVIVING
    stabilize [ID ...]               ready, persist, apply and deliver (among these nodes) until nothing is left
    status [ID ...] | logs [ID ...]  what the nodes know; the terms of their logs
    configuration [ID ...]           who takes part, as far as they have applied it
    progress ID                      what a leader knows of its followers
    quiet COMMAND                    the same without output

An InstallSnapshot takes its snapshot's file along; nothing reports how that went unless a command does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from common_raft.core import (
    ConfChange,
    ConfChangeKind,
    ConfChanges,
    Config,
    Entry,
    EntryKind,
    HardState,
    Message,
    RaftError,
    RawNode,
    Ready,
    Transition,
    decode_changes,
)
from common_raft.core import messages as core_messages
from common_raft.core.messages import InstallSnapshot
from common_raft.testing.disk import Disk, Write
from common_raft.testing.durable import Durable
from common_raft.testing.machine import Accumulator
from common_raft.testing.process import Process
from common_raft.testing.trace import (
    describe,
    describe_entries,
    describe_node,
    describe_progress,
    describe_snapshot,
)

SEPARATOR = "----"

#: Rounds of `stabilize` beyond which the nodes are talking in circles.
MAX_ROUNDS = 200


class ScriptError(Exception):
    """The script itself is wrong: an unknown command, a node that does not exist."""


@dataclass(frozen=True, slots=True)
class Block:
    comments: list[str]
    commands: list[str]
    output: list[str]

    def __str__(self) -> str:
        if not self.commands:
            return "\n".join(self.comments)
        return "\n".join([*self.comments, *self.commands, SEPARATOR, *self.output])


def parse(text: str) -> Iterator[Block]:
    """The blocks of a script, which empty lines separate."""
    for chunk in text.strip().split("\n\n"):
        lines = chunk.strip("\n").split("\n")
        if SEPARATOR in lines:
            end = lines.index(SEPARATOR)
            head, output = lines[:end], lines[end + 1 :]
        else:  # a new block whose output is not written yet, or a remark
            head, output = lines, []
        comments = [line for line in head if line.startswith("#")]
        commands = [line for line in head if line and not line.startswith("#")]
        yield Block(comments, commands, output)


def replay(text: str) -> str:
    """The same script with the output that its commands give now."""
    script = Script()
    blocks = []
    for block in parse(text):
        output = [line for command in block.commands for line in script.run(command)]
        blocks.append(str(Block(block.comments, block.commands, output or ["ok"])))
    return "\n\n".join(blocks) + "\n"


class Jitter:
    """The randomness of a scripted node: always the same number."""

    def __init__(self, jitter: int) -> None:
        self._jitter = jitter

    def randrange(self, start: int, stop: int, /) -> int:
        return min(start + self._jitter, stop - 1)


class Script:
    """The state of a running script.  `run` does one command and returns its output, line by line."""

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._config: dict[str, int | bool] = {}
        self._voters: tuple[int, ...] = ()
        self._jitter: dict[int, int] = {}
        self._under_way: list[Message] = []
        self._cut: set[tuple[int, int]] = set()
        self._commands: dict[str, Callable[[list[str]], list[str]]] = {
            "apply": self._apply,
            "campaign": lambda words: self._input(words, lambda node: node.campaign()),
            "change": self._change,
            "cluster": self._cluster,
            "compact": self._compact,
            "configuration": self._configuration,
            "crash": self._crash,
            "cut": self._cut_links,
            "deliver": self._deliver,
            "drop": self._drop,
            "forget": lambda words: self._input(words, lambda node: node.forget_leader()),
            "heal": self._heal,
            "logs": self._logs,
            "node": self._node,
            "persist": self._persist,
            "progress": self._progress,
            "propose": self._propose,
            "quiet": self._quiet,
            "read": lambda words: self._input(words, lambda node: node.read_index(int(words[1]))),
            "ready": self._ready,
            "report": lambda words: self._input(
                words, lambda node: node.report_snapshot(int(words[1]), words[2] == "ok")
            ),
            "restart": self._restart,
            "snapshot": self._snapshot,
            "stabilize": self._stabilize,
            "status": self._status,
            "step": self._step,
            "tick": self._tick,
            "transfer": lambda words: self._input(
                words, lambda node: node.transfer_leadership(int(words[1]))
            ),
            "unreachable": lambda words: self._input(
                words, lambda node: node.report_unreachable(int(words[1]))
            ),
        }

    def run(self, command: str) -> list[str]:
        verb, *words = command.split()
        if verb not in self._commands:
            raise ScriptError(f"unknown command {verb!r} in {command!r}: see common_raft/testing/script.py")
        try:
            return self._commands[verb](words)
        except RaftError as error:
            return [f"{type(error).__name__}: {error}"]

    def _process(self, word: str) -> Process:
        try:
            return self._processes[int(word)]
        except (KeyError, ValueError):
            raise ScriptError(f"no node {word!r}: the cluster has {list(self._processes)}") from None

    def _chosen(self, words: Sequence[str]) -> list[Process]:
        return [self._process(word) for word in words] or list(self._processes.values())

    # --- setting up -------------------------------------------------------------------------------------------

    def _cluster(self, words: list[str]) -> list[str]:
        fields = _fields(words[1:])
        nodes = range(1, int(words[0]) + 1)
        self._voters = (
            tuple(map(int, fields.pop("voters").split(","))) if "voters" in fields else tuple(nodes)
        )
        self._config = {name: _value(value) for name, value in fields.items()}
        self._processes = {node: Process(node) for node in nodes}
        self._under_way.clear()
        self._cut.clear()
        for process in self._processes.values():
            self._start(process)
        return []

    def _node(self, words: list[str]) -> list[str]:
        process, fields = self._process(words[0]), _fields(words[1:])
        terms = [int(term) for term in fields.get("log", "").split(",") if term]
        hard_state = HardState(
            int(fields.get("term", terms[-1] if terms else 0)),
            int(fields.get("vote", 0)),
            int(fields.get("commit", 0)),
        )
        self._jitter[process.id] = int(fields.get("jitter", 0))
        process.disk = Disk(Durable(hard_state, 1, _entries(terms)))
        self._start(process)
        return [self._describe(process)]

    def _start(self, process: Process) -> None:
        config = Config(id=process.id, voters=self._voters, **self._config)  # type: ignore[arg-type]
        process.start(config, Jitter(self._jitter.get(process.id, 0)), RawNode, Accumulator)

    def _crash(self, words: list[str]) -> list[str]:
        process = self._process(words[0])
        process.crash(int(words[1]) if len(words) > 1 else 0)
        return []

    def _restart(self, words: list[str]) -> list[str]:
        process = self._process(words[0])
        self._start(process)
        return [self._describe(process)]

    # --- input ------------------------------------------------------------------------------------------------

    def _input(self, words: list[str], act: Callable[[RawNode], None]) -> list[str]:
        try:
            act(self._process(words[0]).core)
        except ValueError as error:
            return [f"ValueError: {error}"]
        return []

    def _tick(self, words: list[str]) -> list[str]:
        for _ in range(int(words[1]) if len(words) > 1 else 1):
            self._process(words[0]).core.tick()
        return []

    def _propose(self, words: list[str]) -> list[str]:
        self._process(words[0]).core.propose([word.encode() for word in words[1:]])
        return []

    def _change(self, words: list[str]) -> list[str]:
        _, *parts = words
        transition = Transition.AUTO
        if parts and parts[-1] in ("implicit", "explicit"):
            transition = Transition[parts.pop().upper()]
        if any(part[0] not in _CHANGES for part in parts):
            raise ScriptError(f"{parts} must be changes (+4, ~4, -4), then implicit or explicit or nothing")
        changes = [ConfChange(_CHANGES[part[0]], int(part[1:])) for part in parts]
        self._process(words[0]).core.propose_conf_change(ConfChanges(changes, transition))
        return []

    def _step(self, words: list[str]) -> list[str]:
        kind = getattr(core_messages, words[0], None)
        if kind is None:
            raise ScriptError(f"no message {words[0]!r} in core/messages.py")
        fields: dict[str, object] = {}
        for name, value in _fields(words[1:]).items():
            is_log = name == "entries"
            fields[name] = _entries([int(t) for t in value.split(",") if t]) if is_log else _value(value)
        message: Message = kind(**fields)
        self._process(str(message.to)).core.step(message)
        return [describe(message)]

    # --- the driver's duties ----------------------------------------------------------------------------------

    def _ready(self, words: list[str]) -> list[str]:
        process = self._process(words[0])
        if not process.core.has_ready():
            return [f"{process.id} has nothing new"]
        return self._take_ready(process) + list(_waiting(process.disk.queue[-1]))

    def _take_ready(self, process: Process) -> list[str]:
        ready = process.core.ready()
        sent = self._send(ready.messages, "send")
        process.take(ready)
        return [f"{process.id} ready {ready.number}", *_describe_ready(ready), *sent]

    def _snapshot(self, words: list[str]) -> list[str]:
        process = self._process(words[0])
        return [f"{process.id} has snapshot {describe_snapshot(process.take_snapshot())}"]

    def _compact(self, words: list[str]) -> list[str]:
        process, index = self._process(words[0]), int(words[1])
        try:
            process.core.compact(index)
        except ValueError as error:
            return [f"ValueError: {error}"]
        process.disk.stored.purge(index)
        return []

    def _persist(self, words: list[str]) -> list[str]:
        process = self._process(words[0])
        queued = len(process.disk.queue)
        count = min(int(words[1]), queued) if len(words) > 1 else queued
        if count == 0:
            return [f"{process.id} has nothing to persist"]
        return self._write(process, count)

    def _write(self, process: Process, count: int) -> list[str]:
        done = process.disk.complete(count)
        lines = [f"{process.id} persisted {done[-1].number}"]
        for write in done:
            lines += self._send(write.messages, "send")
        process.core.on_persisted(done[-1].number)
        return lines

    def _apply(self, words: list[str]) -> list[str]:
        process = self._process(words[0])
        lines = []
        if process.can_restore():
            lines.append(f"{process.id} restored {describe_snapshot(process.restore_next())}")
        elif process.to_apply and process.restore_from is None:
            first = process.to_apply[0][0]
            entries = [process.apply_next()[1] for _ in range(len(process.to_apply))]
            lines.append(f"{process.id} applied {describe_entries(first, entries)}")
            if any(entry.kind is EntryKind.CONFIGURATION for entry in entries):
                lines.append(f"  configuration: {process.core.configuration}")
        else:
            return [f"{process.id} has nothing to apply"]
        process.core.on_applied(process.applied)
        return lines

    # --- the network ------------------------------------------------------------------------------------------

    def _send(self, messages: Sequence[Message], how: str) -> list[str]:
        lines = []
        for message in messages:
            lost = (message.sender, message.to) in self._cut
            if not lost:
                self._under_way.append(message)
            lines.append(f"  {how}: {describe(message)}{' (lost)' if lost else ''}")
        return lines

    def _hand_over(self, message: Message) -> None:
        """Gives a message to whom it is for, and a snapshot's file before it."""
        receiver = self._processes[message.to]
        if isinstance(message, InstallSnapshot):
            place = message.snapshot.index, message.snapshot.term
            receiver.disk.files[place] = self._processes[message.sender].disk.files[place]
        receiver.core.step(message)

    def _take_from_link(self, words: list[str]) -> list[Message]:
        sender, _, to = words[0].partition("->")
        on_link = [m for m in self._under_way if fnmatch(str(m.sender), sender) and fnmatch(str(m.to), to)]
        taken = on_link[: int(words[1])] if len(words) > 1 else on_link
        for message in taken:
            # By identity: a repeated message equals the first one.
            self._under_way.pop(next(i for i, m in enumerate(self._under_way) if m is message))
        return taken

    def _deliver(self, words: list[str]) -> list[str]:
        lines = []
        for message in self._take_from_link(words):
            lines.append(describe(message))
            if self._processes[message.to].running:
                self._hand_over(message)
            else:
                lines[-1] += " (nobody is there)"
        return lines or ["nothing is under way"]

    def _drop(self, words: list[str]) -> list[str]:
        return [f"{describe(message)} (lost)" for message in self._take_from_link(words)] or [
            "nothing is under way"
        ]

    def _cut_links(self, words: list[str]) -> list[str]:
        sender, arrow, to = words[0].partition("->")
        if arrow:
            self._cut.add((int(sender), int(to)))
        else:
            node = self._process(words[0]).id
            self._cut |= {link for peer in self._processes for link in ((node, peer), (peer, node))}
        return []

    def _heal(self, _words: list[str]) -> list[str]:
        self._cut.clear()
        return []

    def _stabilize(self, words: list[str]) -> list[str]:
        chosen = [process for process in self._chosen(words) if process.running]
        ids = {process.id for process in chosen}
        lines: list[str] = []
        for _ in range(MAX_ROUNDS):
            before = len(lines)
            for process in chosen:
                lines += self._settle(process)
            for message in [m for m in self._under_way if m.sender in ids and m.to in ids]:
                self._under_way.remove(message)
                lines.append(describe(message))
                self._hand_over(message)
            if len(lines) == before:
                return lines or ["nothing to do"]
        raise ScriptError(f"the nodes still talk after {MAX_ROUNDS} rounds")

    def _settle(self, process: Process) -> list[str]:
        """Everything that one node has to do before it needs to hear something."""
        lines: list[str] = []
        while process.core.has_ready() or process.disk.queue or process.to_apply or process.restore_from:
            if process.core.has_ready():
                lines += self._take_ready(process)
            elif process.disk.queue:
                silent = all(write.empty and not write.messages for write in process.disk.queue)
                written = self._write(process, len(process.disk.queue))
                lines += [] if silent else written
            else:
                lines += self._apply([str(process.id)])
        return lines

    # --- looking ----------------------------------------------------------------------------------------------

    def _describe(self, process: Process) -> str:
        return f"{process.id}: {describe_node(process.node) if process.node is not None else 'down'}"

    def _status(self, words: list[str]) -> list[str]:
        return [self._describe(process) for process in self._chosen(words)]

    def _logs(self, words: list[str]) -> list[str]:
        lines = []
        for process in self._chosen(words):
            if not process.running:
                lines.append(f"{process.id}: down")
                continue
            log = process.core.log
            terms = " ".join(str(entry.term) for entry in log.slice(log.first_index, log.last_index))
            lines.append(f"{process.id}: {terms or '(empty)'}")
        return lines

    def _configuration(self, words: list[str]) -> list[str]:
        return [
            f"{process.id}: {process.core.configuration if process.running else 'down'}"
            for process in self._chosen(words)
        ]

    def _progress(self, words: list[str]) -> list[str]:
        followers = self._process(words[0]).core.followers
        return [f"{peer}: {describe_progress(progress)}" for peer, progress in followers.items()]

    def _quiet(self, words: list[str]) -> list[str]:
        self.run(" ".join(words))
        return []


def _fields(words: Sequence[str]) -> dict[str, str]:
    fields = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ScriptError(f"{word!r} must have the form NAME=VALUE")
        fields[name] = value
    return fields


def _value(word: str) -> int | bool:
    return word == "yes" if word in ("yes", "no") else int(word)


#: How a change is written.
_CHANGES = {"+": ConfChangeKind.ADD_VOTER, "~": ConfChangeKind.ADD_LEARNER, "-": ConfChangeKind.REMOVE}


def _entries(terms: Sequence[int]) -> list[Entry]:
    return [Entry(term, EntryKind.COMMANDS, b"x") for term in terms]


def _describe_ready(ready: Ready) -> Iterator[str]:
    if ready.soft_state is not None:
        role, leader, term = ready.soft_state
        yield f"  state: {role.value} term={term} leader={leader or '-'}"
    if ready.snapshot is not None:
        yield f"  write: snapshot {describe_snapshot(ready.snapshot)}"
    if ready.hard_state is not None:
        term, vote, commit = ready.hard_state.term, ready.hard_state.vote, ready.hard_state.commit
        yield f"  write: term={term} vote={vote or '-'} commit={commit}"
    if ready.entries:
        yield f"  write: {describe_entries(ready.first_index, ready.entries)}"
        yield from _describe_changes(ready.entries)
    if ready.committed:
        yield f"  apply: {describe_entries(ready.committed_index, ready.committed)}"
    for state in ready.read_states:
        yield f"  read: context={state.context} index={state.index}"


def _describe_changes(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        if entry.kind is EntryKind.CONFIGURATION:
            yield f"    changes to: {decode_changes(entry.data).configuration}"


def _waiting(write: Write) -> Iterator[str]:
    for message in write.messages:
        yield f"  when persisted: {describe(message)}"
