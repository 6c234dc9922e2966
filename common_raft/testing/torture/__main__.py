"""Tortures a cluster until it is time, or until something is wrong: ``python -m common_raft.testing.torture``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

from common_raft.testing.key_values import KeyValueModel, load_history
from common_raft.testing.linearizability import Undecided, check
from common_raft.testing.torture.faults import FAULTS
from common_raft.testing.torture.run import CLIENTS, Settings, TortureFailed, torture

#: One run's part of the time, so that a long torture is many histories, each with a seed of its own.
RUN_SECONDS = 60.0


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _faults(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FAULTS)}")
    return names


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m common_raft.testing.torture",
        description="Runs real nodes under faults and load, and judges whether every answer was linearizable.",
    )
    add = parser.add_argument
    add("--variant", default="v2.reactive", metavar="MODULE", help="the service (default: v2.reactive)")
    add("--nodes", type=_count, default=3, help="size of the cluster (default: 3)")
    add("--seconds", type=_positive, default=60.0, help="how long in all (default: 60)")
    add("--seed", type=int, help="of the first run (default: any); the next one's is the next number")
    add("--clients", type=_count, default=CLIENTS, help=f"concurrent clients (default: {CLIENTS})")
    add("--faults", type=_faults, default=list(FAULTS), metavar="F,F", help=f"some of {', '.join(FAULTS)}")
    add("--judge", type=Path, metavar="FILE", help="only judge the history in this file once more")
    return parser.parse_args(arguments)


def _judge(file: Path) -> int:
    try:
        violation = check(load_history(file), KeyValueModel())
    except (OSError, ValueError, Undecided) as error:
        print(f"{file}: {error}", file=sys.stderr)
        return 1
    print(violation or f"{file}: linearizable")
    return 1 if violation else 0


def _torture(options: argparse.Namespace) -> int:
    seed = options.seed if options.seed is not None else SystemRandom().getrandbits(31)
    left = options.seconds
    while left > 0:
        seconds = min(left, RUN_SECONDS)
        directory = Path(tempfile.mkdtemp(prefix="torture-"))
        print(
            f"seed {seed}: {options.nodes} nodes of {options.variant}, {seconds:g} s, in {directory}",
            flush=True,
        )
        command = [sys.executable, "-m", options.variant]
        settings = Settings(command, directory, seed, seconds, options.nodes, options.clients, options.faults)
        try:
            print(torture(settings, tell=lambda text: print(f"  {text}", flush=True)), flush=True)
        except TortureFailed as failure:
            print(failure)
            return 1
        _remove(directory)
        left -= seconds
        seed += 1
    return 0


def _remove(directory: Path) -> None:
    """What a run without a failure leaves behind; waits, since removing large files keeps a disk busy."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()
    time.sleep(0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return _judge(options.judge) if options.judge else _torture(options)


if __name__ == "__main__":
    sys.exit(main())
