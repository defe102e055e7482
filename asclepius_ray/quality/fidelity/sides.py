"""Which side of the body a text speaks of: pairs of a side and what follows it."""

from asclepius_ray.quality.fidelity.words import Words

Side = str
Pair = tuple[Side, str]

_SIDES = {"left": "left", "right": "right", "bilateral": "both", "bilaterally": "both", "both": "both"}
_OTHER = {"left": "right", "right": "left"}
_PASSED_OVER = frozenset(
    """
    sided side hand upper lower middle mid main anterior posterior superior inferior lateral medial proximal
    distal internal external common deep superficial dorsal ventral and or left right of the his her
    """.split()
)
_ENDS = frozenset(
    """
    a an in on with was were is are to for by at from but which that as had has have who no not after
    before due when while since due than then this these
    """.split()
)
_SAME = {
    "kidney": "renal",
    "kidneys": "renal",
    "lungs": "pulmon",
    "lung": "pulmon",
    "eye": "ocular",
    "eyes": "ocular",
}
_SAME |= {"liver": "hepati", "ovary": "ovaria", "ovaries": "ovaria", "leg": "limb", "arm": "limb"}
_STEM_CHARACTERS = 6


def find_sides(words: Words) -> list[Pair]:
    """(side, stem of the first word that says what is meant), in order."""
    found = []
    for index, word in enumerate(words):
        side = _SIDES.get(word)
        if side is None:
            continue
        followers = words[index + 1 : index + 6]
        what = next((word for word in followers if word not in _PASSED_OVER), "")
        if what.isalpha() and what not in _ENDS:
            found.append((side, _stem(what)))
        elif followers[:1] == ["side"]:
            found.append((side, "side"))
    return found


def find_wrong_sides(pairs: list[Pair], source: list[Pair]) -> list[Pair]:
    """Pairs of the text of which the source has the other side only."""
    sides_in_source: dict[str, set[Side]] = {}
    for side, stem in source:
        sides_in_source.setdefault(stem, set()).add(side)
    return [(side, stem) for side, stem in pairs if _is_wrong(side, sides_in_source.get(stem, set()))]


def _is_wrong(side: Side, in_source: set[Side]) -> bool:
    if not in_source or side in in_source:
        return False
    if side == "both":
        return in_source != {"left", "right"}
    return "both" not in in_source and in_source == {_OTHER[side]}


def _stem(word: str) -> str:
    return _SAME.get(word, word)[:_STEM_CHARACTERS]
