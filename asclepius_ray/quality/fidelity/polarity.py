"""For each word of a text: is it said to be so, said not to be so, or left open?

In the manner of NegEx (Chapman et al., 2001): cues before or after what they negate, and words that
end their reach.
"""

from enum import IntEnum

from asclepius_ray.quality.fidelity.words import SENTENCE_ENDS, Words

LONGEST_REACH_WORDS = 25
LONGEST_REACH_BACK_WORDS = 8


class Polarity(IntEnum):
    """How a text speaks of something."""

    AFFIRMED = 0
    NEGATED = 1
    OPEN = 2
    """Possible, feared, looked for, or advice for a later time."""


_NEGATES_WHAT_FOLLOWS = """
no|not|nor|neither|without|denies|denied|deny|denying|never|absence of|negative for|free of|lack of|lacked
no evidence of|no sign of|no signs of|no history of|not have|not had|no longer|ruled out for|failed to reveal
failed to show|failed to demonstrate|rather than|did not|does not|was not|were not|cannot|non|nil
"""
_NEGATES_WHAT_PRECEDES = """
absent|was negative|were negative|is negative|are negative|came back negative|tested negative
ruled out|excluded
not seen|not noted|not observed|not found|not detected|not present|not identified|not evident|not reported
not noticed|not palpable|not visible|not revealed|not demonstrated|not documented|was denied|were denied|none
was not seen|were not seen|was not observed|were not observed|was not found|were not found|was not detected
were not detected|was not present|were not present|was not noted|were not noted|was not identified
were not identified|was not evident|were not evident|never occurred|did not occur
"""
_NEGATES_NOTHING = """
not only|no change|no changes|no increase|no decrease|no improvement|no significant change|not certain
no significant improvement|no worsening|not worsen|not improve|not improved|without improvement|no response
not respond|without difficulty|no further|not resolve|not resolved|not subside|no cause|not necessarily
not increase|not decrease|no interval|not to mention|no doubt|not relieved|not relieve|no relief
gram negative|negative pressure|not controlled|not alleviated|no other|no apparent cause
"""
_LEAVES_OPEN = """
if|monitor for|monitored for|monitoring for|monitoring of|watch for|risk of|risk for
risk factors for|prevent|prevention of
prophylaxis|signs of|in case of|to rule out|rule out|possible|possibly|potential|concern for|concerning for
screen for|screening for|avoid|should|recommended|advised|advise|suspected|suspicion of|suspicious for|such as
may be|may have|may also|may indicate|might|could|would|family history|mother|father|brother|sister
siblings|parents|educated|counseled|discussed
differential|return|seek|report any|consider|considered|evaluate for|assess for|likely|vs|versus
"""
_ENDS_REACH = """
but|however|except|although|though|yet|which|who|whom|because|despite|besides|apart from|other than
is|was|were
are|had|has|have|showed|shows|revealed|reveals|presented|presents|developed|complained|reported|demonstrated
underwent|received|admitted|noted|found|when|while|until|then|after|before|since|he|she|we|they|with|;|there
aside from|until|secondary to|due to|as well as|led|resulted|remained|started|normal|began
"""

_CUES: dict[str, list[tuple[tuple[str, ...], str]]] = {}
for _kind, _table in {
    "follows": _NEGATES_WHAT_FOLLOWS,
    "precedes": _NEGATES_WHAT_PRECEDES,
    "nothing": _NEGATES_NOTHING,
    "open": _LEAVES_OPEN,
    "end": _ENDS_REACH,
}.items():
    for _cue in _table.replace("\n", "|").split("|"):
        if _words := tuple(_cue.split()):
            _CUES.setdefault(_words[0], []).append((_words, _kind))
for _of_word in _CUES.values():
    _of_word.sort(key=lambda cue: -len(cue[0]))


def find_polarity(words: Words) -> bytearray:
    """The Polarity of each word."""
    polarity = bytearray(len(words))
    state, reach, skip_until = Polarity.AFFIRMED, 0, 0
    for index, word in enumerate(words):
        reach -= 1
        if word in SENTENCE_ENDS or (reach <= 0 and state is Polarity.NEGATED):
            state = Polarity.AFFIRMED
        if index < skip_until:
            polarity[index] = state
            continue
        cue, kind = _cue_at(words, index) if word in _CUES else ((), "")
        skip_until = index + len(cue)
        if kind == "follows":
            state, reach = Polarity.NEGATED, LONGEST_REACH_WORDS
        elif kind == "open":
            state = Polarity.OPEN
        elif kind == "end" and state is Polarity.NEGATED:
            state = Polarity.AFFIRMED
        elif kind == "precedes":
            _negate_back(words, polarity, index)
        polarity[index] = state
    return polarity


def _cue_at(words: Words, index: int) -> tuple[tuple[str, ...], str]:
    for cue, kind in _CUES.get(words[index], ()):
        if len(cue) == 1 or tuple(words[index : index + len(cue)]) == cue:
            return cue, kind
    return (), ""


def _negate_back(words: Words, polarity: bytearray, index: int) -> None:
    for back in range(index - 1, max(-1, index - 1 - LONGEST_REACH_BACK_WORDS), -1):
        word = words[back]
        if word in SENTENCE_ENDS or word == ";":
            return
        if word in _CUES and back < index - 2 and _cue_at(words, back)[1] == "end":
            return
        polarity[back] = Polarity.NEGATED
