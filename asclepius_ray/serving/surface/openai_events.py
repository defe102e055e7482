"""The chunks of both OpenAI routes: what is the same in all chunks of a stream is written once."""

from typing import Any

from asclepius_ray.serving.surface.event_stream import DONE_EVENT, compact
from asclepius_ray.serving.surface.generation import Answering


class ChunkFrame:
    """What stands around the one choice of a chunk."""

    def __init__(self, frame: dict[str, Any], answering: Answering, includes_usage: bool) -> None:
        self._answering = answering
        self._includes_usage = includes_usage
        self._head = f'data: {compact(frame)[:-1]},"choices":['
        usage = ',"usage":null' if includes_usage else ""
        self._tail = f"]{usage}}}\n\n"
        self._begun = [False] * len(answering.choices)

    def begin(self, index: int) -> bool:
        """True for the first chunk of this choice alone."""
        first = not self._begun[index]
        self._begun[index] = True
        return first

    def chunk(self, index: int, content: str, logprobs: str = "null", finish_reason: str = "") -> str:
        """One event; `content` and `logprobs` are JSON already."""
        reason = f'"{finish_reason}"' if finish_reason else "null"
        fields = f'"index":{index},{content},"logprobs":{logprobs},"finish_reason":{reason}'
        return f"{self._head}{{{fields}}}{self._tail}"

    def closing(self) -> bytes:
        """The usage where it was asked for, and the end of the stream."""
        if not self._includes_usage:
            return DONE_EVENT
        return f'{self._head}],"usage":{compact(self._answering.usage)}}}\n\n'.encode() + DONE_EVENT
