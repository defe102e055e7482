"""The part of a note that the model is given, and the passages of it that an answer leans on."""

from collections.abc import Sequence
from dataclasses import dataclass

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.passage import Passage, find_passages
from asclepius_ray.tokens.shortening import OMISSION

Range = tuple[int, int]


@dataclass(frozen=True)
class KeptNote:
    """A note as it was sent, and the text that stands in the prompt for it."""

    note: str
    kept: str

    @property
    def was_shortened(self) -> bool:
        return self.kept != self.note

    def passages(self, answer: str) -> list[Passage]:
        """Passages of the note, only from what the model has seen: an answer leans on nothing else."""
        return find_passages(self.note, answer, kept_ranges(self.note, self.kept))


def kept_ranges(note: str, kept: str) -> Sequence[Range]:
    """Where in the note the text stands that was kept of it: all of it, or its head and its tail."""
    if kept == note:
        return [(0, len(note))]
    place = kept.find(OMISSION)
    while place >= 0:
        # The note may have such a mark of its own; at the one that was put in, both sides fit the note.
        head, tail = kept[:place].removesuffix("\n"), kept[place + len(OMISSION) :].removeprefix("\n")
        is_joint = "\n".join(part for part in (head, OMISSION, tail) if part) == kept
        has_room = len(head) + len(tail) <= len(note)
        if is_joint and has_room and note.startswith(head) and note.endswith(tail):
            return [(0, len(head)), (len(note) - len(tail), len(note))]
        place = kept.find(OMISSION, place + 1)
    raise ServingError("a shortened note is not its own head and tail; shorten_note and kept_ranges differ")
