"""The metric lines of a training: one JSON object a line, in `metrics.jsonl`.

A local file is appended to. A bucket knows no appending: there the lines lie in segments, named by the bytes
before them, of which only the newest is ever written again; when the training is finished they are joined
into the one file. A checkpoint holds the number of bytes before it and none of the lines, and to go on from
it takes as long after a million steps as after ten.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.transfers import tried_again

METRICS_NAME = "metrics.jsonl"
SEGMENTS = "metrics"
SEGMENT_BYTES = 200_000
UPLOAD_SECONDS = 60.0
"""How old what a reader sees of a run in a bucket may be; between two of these, nothing is sent."""
_PRIVATE = 0o600


class MetricLog:
    """The lines of one training, written by one process; a context that closes the file.

    `position` bytes count; whatever else is found is of steps that were lost, and is removed.
    """

    def __init__(self, folder: Folder, position: int) -> None:
        self._sink = _LocalFile(folder, position) if folder.is_local else _Segments(folder, position)
        self.position = self._sink.kept
        """Bytes of the lines so far."""
        self.missing = position - self.position
        """Bytes that the checkpoint has counted and that are no longer there."""

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.close()

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line; it may be lost with this machine until `sync` returns.

        A ValueError for infinity and NaN, which are no JSON.
        """
        content = json.dumps(line, allow_nan=False).encode() + b"\n"
        self._sink.append(content)
        self.position += len(content)

    def sync(self) -> None:
        """Returns when every line so far outlives this machine."""
        self._sink.sync()


class _LocalFile:
    """The file itself, cut off at the position and appended to."""

    def __init__(self, folder: Folder, position: int) -> None:
        path = folder.local_path / METRICS_NAME
        self._stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE), "r+b")
        size = self._stream.seek(0, os.SEEK_END)
        self.kept = position if size >= position else self._end_of_last_line()
        self._stream.truncate(self.kept)
        self._stream.seek(self.kept)

    def append(self, content: bytes) -> None:
        self._stream.write(content)
        self._stream.flush()

    def sync(self) -> None:
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def _end_of_last_line(self) -> int:
        self._stream.seek(0)
        return self._stream.read().rfind(b"\n") + 1


class _Segments:
    """Keeps the newest segment in memory, and sends it when it is full, when it is old, and at `sync`."""

    def __init__(self, folder: Folder, position: int) -> None:
        self._folder = folder.child(SEGMENTS)
        found = _segment_starts(folder)
        if folder.exists(METRICS_NAME):
            # Finished before: all lines are in the one file, which becomes the first segment.
            usable, content = [], folder.read_bytes(METRICS_NAME)
            self._start = 0
        else:
            usable = [start for start in found if start <= position]
            self._start = max(usable, default=0)
            content = self._folder.read_bytes(_segment_name(self._start)) if usable else b""
        self._content = bytearray(content[: max(0, position - self._start)])
        self.kept = self._start + len(self._content)
        self._sent = -1
        self._sent_at = time.monotonic()
        self.sync()
        for start in found:
            if start != self._start and start not in usable:
                self._folder.delete(_segment_name(start))
        folder.delete(METRICS_NAME)

    def append(self, content: bytes) -> None:
        self._content += content
        if len(self._content) >= SEGMENT_BYTES:
            self.sync()
            self._start, self._content, self._sent = self._start + len(self._content), bytearray(), 0
        elif time.monotonic() - self._sent_at >= UPLOAD_SECONDS:
            self._sent_at = time.monotonic()
            # This one is for readers: what fails is still in memory, and is sent the next time.
            with contextlib.suppress(OSError):
                self._send()

    def sync(self) -> None:
        tried_again(self._send, self._folder)

    def _send(self) -> None:
        if self._sent != len(self._content):
            self._folder.write_bytes(_segment_name(self._start), bytes(self._content))
            self._sent = len(self._content)
            self._sent_at = time.monotonic()

    def close(self) -> None:
        self.sync()


def join_segments(folder: Folder) -> None:
    """Makes the one file out of the segments of a finished training, if there are any."""
    if found := _segment_starts(folder):
        # Where both are there the one file counts: this may be interrupted at any point.
        folder.write_bytes(METRICS_NAME, _read_whole_lines(folder))
        for start in found:
            folder.child(SEGMENTS).delete(_segment_name(start))


def has_metrics(folder: Folder) -> bool:
    """Whether any line was ever written."""
    return folder.exists(METRICS_NAME) or bool(_segment_starts(folder))


def read_metrics(folder: Folder) -> list[dict[str, Any]]:
    """Every whole line; a ValueError if one is not JSON. None are there before the first step."""
    return [json.loads(line) for line in _read_whole_lines(folder).splitlines()]


def _read_whole_lines(folder: Folder) -> bytes:
    """The lines as they were written; the torn last one of a writer that was killed is left out."""
    if folder.exists(METRICS_NAME):
        content = folder.read_bytes(METRICS_NAME)
    else:
        segments = folder.child(SEGMENTS)
        content = b"".join(segments.read_bytes(_segment_name(start)) for start in _segment_starts(folder))
    return content[: content.rfind(b"\n") + 1]


def _segment_name(start: int) -> str:
    return f"{start:015d}.jsonl"


def _segment_starts(folder: Folder) -> list[int]:
    """The bytes before each segment, rising."""
    return sorted(int(name.removesuffix(".jsonl")) for name in folder.child(SEGMENTS).names())
