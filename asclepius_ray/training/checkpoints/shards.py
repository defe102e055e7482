"""Pieces ↔ safetensors files of bounded size, so that a reader fetches little that it does not need."""

import errno
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from asclepius_ray.training.checkpoints.catalog import DamagedCheckpointError, Fragment

ELEMENTS_PER_FILE = 1 << 24
"""Parameters of one file: 200 MB of three 32-bit numbers each."""
FIELDS = ("master", "exp_avg", "exp_avg_sq")
WRITERS = 4
_PRIVATE = 0o600
_ERROR_NUMBER = re.compile(r"os error (\d+)")


@dataclass(frozen=True)
class Piece:
    """A fragment of one parameter with its tensors, each flat and a view of the optimizer's own."""

    fragment: Fragment
    master: torch.Tensor
    """The weights as the optimizer holds them, in 32 bits."""
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor

    def part(self, first: int, last: int) -> "Piece":
        """The piece of elements `first : last`, counted from the start of this one."""
        fragment = Fragment(self.fragment.name, self.fragment.start + first, last - first)
        return Piece(fragment, *(getattr(self, field)[first:last] for field in FIELDS))


def group_pieces(pieces: Iterable[Piece], limit: int = ELEMENTS_PER_FILE) -> list[list[Piece]]:
    """The pieces of each file, in order; one that is too long is cut."""
    files: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        first = 0
        while first < piece.fragment.size:
            if room == 0:
                files.append([])
                room = limit
            last = min(piece.fragment.size, first + room)
            files[-1].append(piece.part(first, last))
            room -= last - first
            first = last
    return files


def write_files(folder: Path, names: list[str], groups: list[list[Piece]]) -> None:
    """Writes one file a group, several at once; an OSError tells of a full disk."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(_write_file, [folder / name for name in names], groups):
            pass


def _write_file(path: Path, pieces: list[Piece]) -> None:
    tensors = {
        _key(piece.fragment, field): getattr(piece, field).cpu() for piece in pieces for field in FIELDS
    }
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # It carries the system's error as text alone.
        number = _ERROR_NUMBER.search(str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from None
    path.chmod(_PRIVATE)


def wanted_by_name(pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    wanted: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        wanted[piece.fragment.name].append(piece)
    return wanted


def overlaps(fragment: Fragment, wanted: dict[str, list[Piece]]) -> list[tuple[int, int, Piece]]:
    """Elements `first : last` of the parameter that are in both, with the piece that wants them."""
    end = fragment.start + fragment.size
    found = []
    for piece in wanted.get(fragment.name, []):
        own = piece.fragment
        first, last = max(fragment.start, own.start), min(end, own.start + own.size)
        if first < last:
            found.append((first, last, piece))
    return found


def check_coverage(stored: Iterable[Fragment], wanted: dict[str, list[Piece]]) -> None:
    """A DamagedCheckpointError if some element of a wanted piece is in no file."""
    missing = {name: sum(piece.fragment.size for piece in pieces) for name, pieces in wanted.items()}
    for fragment in stored:
        for first, last, _ in overlaps(fragment, wanted):
            missing[fragment.name] -= last - first
    if lacking := [name for name, count in missing.items() if count]:
        raise DamagedCheckpointError(f"it holds {lacking[0]} in part only")


def copy_into(content: bytes, fragments: Iterable[Fragment], wanted: dict[str, list[Piece]]) -> None:
    """Copies what is wanted out of a file's content into the optimizer's own tensors."""
    tensors = load(content)
    with torch.no_grad():
        for fragment in fragments:
            for first, last, piece in overlaps(fragment, wanted):
                for field in FIELDS:
                    source = tensors[_key(fragment, field)][first - fragment.start : last - fragment.start]
                    start = first - piece.fragment.start
                    getattr(piece, field)[start : start + last - first].copy_(source)


def _key(fragment: Fragment, field: str) -> str:
    return f"{fragment.name}/{fragment.start}/{field}"
