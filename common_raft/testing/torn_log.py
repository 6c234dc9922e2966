"""A log on disk as a crash in the middle of a write leaves it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from common_raft.core.messages import Entry, EntryKind
from common_raft.storage.records import END, HEADER_FRAME, Frame, FrameEncoder, decode_header, read_frame
from common_raft.storage.recovery import read_log
from common_raft.storage.segment import SUFFIX, write_all

#: The end of a frame: without its checksum it cannot be taken for a whole one.
_CHECKSUM_AND_END = 4 + len(END)


def tear(directory: Path, rng: Random) -> int:
    """Writes the beginning of one more frame behind the log's last, as a node that was killed there would have.

    Returns how many bytes, up to the last that is not zero; 0, and nothing is changed, where there is no log or its
    end is torn already.
    """
    segments = sorted(directory.glob("*" + SUFFIX))
    if not segments:
        return 0
    with segments[-1].open("rb") as file:
        header = read_frame(file.read(HEADER_FRAME), 0, 0, None)
    if not isinstance(header, Frame):
        return 0
    ids = decode_header(header.payload)
    log = read_log(directory, ids.cluster_id, ids.node_id)
    if log is None or log.torn is not None:
        return 0
    next_index = log.first_index + len(log.entries)
    entry = Entry(log.hard_state.term, EntryKind.COMMANDS, rng.randbytes(rng.randrange(2000)))
    encoder = FrameEncoder()
    frame = encoder.encode_batch([(log.hard_state, next_index, [entry])], log.sequence + 1)
    frame = encoder.finish(frame, log.end, log.segment.header.salt)
    torn = frame[: rng.randrange(1, len(frame) - _CHECKSUM_AND_END)].rstrip(b"\0")
    with log.segment.path.open("r+b") as file:
        write_all(file.fileno(), torn, log.end)
    return len(torn)
