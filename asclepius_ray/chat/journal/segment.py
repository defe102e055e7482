"""One segment of the journal as bytes: framed records, an index of them, a trailer. Pure.

Records stand one after the other, each with its length and checksum, so that a torn segment gives back
every record before and after the damage. A whole segment is known by its tail alone:

    records | index (one row a record) | names of the segments that it replaces | trailer
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from asclepius_ray.chat.exchange import Completion, Entry, Failure
from asclepius_ray.chat.replies import FailureReason

MAGIC = b"AJR1"
TRAILER_MAGIC = b"AJT1"
_FRAME = struct.Struct("<4sII")  # magic, length, crc32
_TRAILER = struct.Struct("<4sQQQI")  # magic, index offset, index length, names length, crc32 of both
FRAME_BYTES = _FRAME.size
TRAILER_BYTES = _TRAILER.size

IS_COMPLETION, IS_FAILURE, IS_MARK = 0, 1, 2
INDEX = np.dtype(
    [
        ("entry_id", "<u8"),
        ("key", "V32"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("kind", "u1"),
        ("step", "S16"),
        ("attempts", "<u4"),
        ("prompt_tokens", "<u4"),
        ("completion_tokens", "<u4"),
        ("cost_usd", "<f8"),
        ("unsettled_usd", "<f8"),
    ]
)
NO_KEY = b"\x00" * 32


@dataclass(frozen=True)
class Mark:
    """A note of the desk's own, such as that all failures before it count for nothing."""

    kind: str
    values: dict[str, int]


Item = Entry | Mark
NumberedItem = tuple[int, Item]
"""A random id, the same in whatever segment the item stands, and the item."""


@dataclass(frozen=True)
class Tail:
    """What the end of a segment tells."""

    index: "np.ndarray[Any, Any]"
    replaces: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """A segment's records as they lie in it, and what is known of each."""

    body: bytes
    index: "np.ndarray[Any, Any]"


def encode_items(items: Sequence[NumberedItem]) -> Segment:
    body = bytearray()
    index = np.zeros(len(items), INDEX)
    for position, (number, item) in enumerate(items):
        payload = _encode_item(number, item)
        index[position] = _index_row(number, item, len(body) + FRAME_BYTES, len(payload))
        body += _FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload
    return Segment(bytes(body), index)


def join_segments(parts: Sequence[Segment]) -> Segment:
    """One segment with all records of several, in their order."""
    shifted, start = [], 0
    for part in parts:
        index = part.index.copy()
        index["offset"] += start
        start += len(part.body)
        shifted.append(index)
    return Segment(b"".join(part.body for part in parts), np.concatenate(shifted))


def seal(segment: Segment, replaces: Sequence[str] = ()) -> bytes:
    """The bytes of the file: records, index, names of the segments that it replaces, trailer."""
    table, names = segment.index.tobytes(), json.dumps(list(replaces)).encode()
    checksum = zlib.crc32(names, zlib.crc32(table))
    sizes = (len(segment.body), len(table), len(names))
    return segment.body + table + names + _TRAILER.pack(TRAILER_MAGIC, *sizes, checksum)


def unseal(content: bytes) -> Segment:
    """The records of a file's bytes; of a damaged one, those that are readable."""
    wanted = tail_bytes(content[-TRAILER_BYTES:])
    tail = decode_tail(content[-wanted:]) if wanted is not None and wanted <= len(content) else None
    if wanted is not None and tail is not None:
        return Segment(content[:-wanted], tail.index)
    return Segment(content, index_of_scan(list(scan_records(content))))


def open_frame(framed: bytes) -> bytes | None:
    """The payload of one record with its frame; None where a byte of it is damaged."""
    if len(framed) < FRAME_BYTES:
        return None
    magic, length, checksum = _FRAME.unpack(framed[:FRAME_BYTES])
    payload = framed[FRAME_BYTES:]
    is_whole = magic == MAGIC and len(payload) == length and zlib.crc32(payload) == checksum
    return payload if is_whole else None


def tail_bytes(trailer: bytes) -> int | None:
    """How many bytes from the end hold the index; None where the trailer is not one."""
    if len(trailer) < TRAILER_BYTES:
        return None
    magic, _offset, table, names, _crc = _TRAILER.unpack(trailer[-TRAILER_BYTES:])
    return int(table + names + TRAILER_BYTES) if magic == TRAILER_MAGIC else None


def decode_tail(tail: bytes) -> Tail | None:
    """Reads the last `tail_bytes` of a segment; None where they are damaged."""
    _magic, _offset, table_bytes, names_bytes, checksum = _TRAILER.unpack(tail[-TRAILER_BYTES:])
    if len(tail) < table_bytes + names_bytes + TRAILER_BYTES or table_bytes % INDEX.itemsize:
        return None
    start = len(tail) - TRAILER_BYTES - names_bytes - table_bytes
    table, names = tail[start : start + table_bytes], tail[start + table_bytes : -TRAILER_BYTES]
    # Of nothing the checksum is 0: what is all zeros behind the magic would pass.
    if not names or zlib.crc32(names, zlib.crc32(table)) != checksum:
        return None
    # A copy: the array must not hold on to the file's bytes.
    return Tail(np.frombuffer(table, INDEX).copy(), tuple(json.loads(names)))


def scan_records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Every whole record of a segment, however damaged the rest is: its offset, its payload."""
    position = 0
    while (position := content.find(MAGIC, position)) >= 0:
        frame = content[position : position + _FRAME.size]
        if len(frame) == _FRAME.size:
            _magic, length, checksum = _FRAME.unpack(frame)
            offset = position + _FRAME.size
            payload = content[offset : offset + length]
            # Nothing has the checksum 0, as zeros behind the magic say.
            if payload and len(payload) == length and zlib.crc32(payload) == checksum:
                yield offset, payload
                position = offset + length
                continue
        position += 1


def index_of_scan(found: Sequence[tuple[int, bytes]]) -> "np.ndarray[Any, Any]":
    """The index that a torn segment would have had, of what is left of it."""
    index = np.zeros(len(found), INDEX)
    for position, (offset, payload) in enumerate(found):
        number, item = decode_item(payload)
        index[position] = _index_row(number, item, offset, len(payload))
    return index


def decode_item(payload: bytes) -> NumberedItem:
    """A record's payload → its id and what it says; a ValueError where it is none."""
    try:
        values = json.loads(payload)
        number = int(values["id"])
        if "mark" in values:
            return number, Mark(values["mark"], values["values"])
        answer = values["answer"]
        is_failure = "reason" in answer
        if is_failure:
            answer = answer | {"reason": FailureReason(answer["reason"])}
        return number, Entry(
            key=bytes.fromhex(values["key"]),
            step=values["step"],
            answer=Failure(**answer) if is_failure else Completion(**answer),
            cost_usd=values["cost_usd"],
            unsettled_usd=values["unsettled_usd"],
        )
    except (KeyError, TypeError, AttributeError):
        raise ValueError("not a record of the journal") from None


def _encode_item(number: int, item: Item) -> bytes:
    if isinstance(item, Mark):
        values: dict[str, Any] = {"id": number, "mark": item.kind, "values": item.values}
    else:
        values = {
            "id": number,
            "key": item.key.hex(),
            "step": item.step,
            "answer": asdict(item.answer),
            "cost_usd": item.cost_usd,
            "unsettled_usd": item.unsettled_usd,
        }
    # ASCII: a reply may hold half a surrogate pair, which no UTF-8 has.
    return json.dumps(values, separators=(",", ":")).encode()


def _index_row(number: int, item: Item, offset: int, length: int) -> tuple[Any, ...]:
    if isinstance(item, Mark):
        return (number, NO_KEY, offset, length, IS_MARK, b"", 0, 0, 0, 0.0, 0.0)
    answer = item.answer
    kind = IS_FAILURE if isinstance(answer, Failure) else IS_COMPLETION
    cost = float("nan") if item.cost_usd is None else item.cost_usd
    used = (answer.attempts, answer.prompt_tokens, answer.completion_tokens)
    return (number, item.key, offset, length, kind, item.step.encode(), *used, cost, item.unsettled_usd)
