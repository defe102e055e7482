"""Answer about a note → whether it says that the note does not hold what was asked.

Phrases, sentence by sentence, that speak of what a text tells: "the summary does not mention …", "is not
specified", "it cannot be determined from the note". What was not found, given or done to a patient is an
answer. Gaps in brackets, as in a list of names, are no decline of the question.

What they are worth, as `pytest -s tests/quality/test_declining.py` shows it:

    labelled answers                                 declines   precision   recall
    real ones, even rows (the phrases' own)          25 of 110  25 of 30    25 of 25
    real ones, odd rows (held out)                   45 of 131  44 of 47    44 of 45
    made up, many turns and hard negatives (own)     129 of 248 127 of 129  127 of 129
    made up after the phrases were done (held out)   30 of 60   27 of 27    27 of 30

The real ones are answers of three models in camel_eval_500.jsonl: every decline that a search for negations
found there, what is nearest to one, and some others. Most false alarms there answer a question after the
text itself: "No, there is no mention of a family history", where it was asked whether there is one.
"""

import re

# A plain "report" may be a radiologist's, and a "record" one of fever: these want a word before them.
_NOTE = (
    r"(?:(?:the|this|that|her|his|their|your|our|any|a) )?"
    r"(?:(?:given|provided|supplied|available|discharge|clinical|hospital|case|medical|present|above|short"
    r"|whole|current|patient's) ){0,3}"
    r"(?:summary|note|text|document|documentation|chart|passage|letter|excerpt"
    r"|(?:(?<=the )|(?<=this )|(?<=discharge )|(?<=case )|(?<=medical ))(?:report|records?))"
)
_IN_NOTE = rf"\b(?:in|by|from|within|throughout|on the basis of|based on|according to|of) {_NOTE}\b"
_HOW = (
    r"(?:(?:explicitly|specifically|clearly|directly|actually|even|otherwise|really|ever|fully|seem to"
    r"|appear to|anywhere|further) )*"
)
# "The note says that the patient does not report pain": from here on another subject may have begun.
_SAME_SUBJECT = (
    r"(?:(?!(?:that|which|who|whom|he|she|patient|they|states?|says?|notes?|shows?|indicates?|mentions?"
    r"|describes?|reports?|documents?|lists?)\b)[\w'-]+ ){0,6}"
)
_TELL = (
    r"(?:mention|provide|specify|state|say|tell|indicate|document|describe|discuss|include|contain|give|list"
    r"|report|record|reveal|disclose|clarify|explain|elaborate|address|name|offer|allow|permit|support|detail|make"
    r"|answer|refer|cover|hold|touch|go into|identify)"
)
_KINDS_OF_TELLING = (
    r"(?:mention|information|details?|documentation|reference|statement|description|explanation|data|record"
    r"|indication|reason|account|word|answer|hint)"
)
# Of these one cannot say that they were done to a patient.
_SAID = r"(?:mentioned|specified|stated|disclosed|spelled out|spelt out)"
# Of these one can: "was not given", "was not noted on examination".
_SAID_OR_DONE = (
    r"(?:provided|documented|described|discussed|indicated|given|recorded|listed|included|named|detailed"
    r"|addressed|clarified|explained|reported|noted|identified|available|found|present|contained|covered"
    r"|answered|shown|known|clear|established|part)"
)
_BE = r"(?:is|are|was|were|has been|have been|be)"
_FIND_OUT = (
    r"(?:determined?|ascertain(?:ed)?|establish(?:ed)?|infer(?:red)?|answer(?:ed)?|concluded?|identif(?:y|ied)"
    r"|know|known|derived?|judged?|assess(?:ed)?|deduced?|tell|told|say|said|stated?|given?|clarif(?:y|ied)"
    r"|specif(?:y|ied)|named?|find|found|locate)"
)
# What a note gives of an event, and a clinician does not look for in a patient.
_FACT = (
    r"(?:date|dates|time|timing|duration|length|name|names|number|dose|dosage|age|frequency|route|identity"
    r"|specialty|reason|value|values)"
)
_ENOUGH = r"(?:information|details?|data|context|documentation)"

_DECLINES = re.compile(
    "|".join(
        (
            # The note as the one who does not tell.
            rf"\b{_NOTE} {_SAME_SUBJECT}(?:(?:does|do|did|has|have) not|never|cannot|fails to) {_HOW}{_TELL}",
            rf"\b{_NOTE} {_SAME_SUBJECT}\w+s (?:to )?(?:nothing|neither|none)\b",
            rf"\b{_NOTE} {_SAME_SUBJECT}(?:mention|state|specifie|provide|indicate|say|contain)s no\b",
            rf"\b{_NOTE} {_SAME_SUBJECT}(?:gives|makes|offers|has|holds|includes) (?:no|little|few) "
            rf"(?:\w+ )?{_KINDS_OF_TELLING}",
            rf"\b{_NOTE} {_SAME_SUBJECT}(?:is silent|is not (?:explicit|clear|specific)|lacks?\b|omits?\b)",
            rf"\b{_NOTE} {_SAME_SUBJECT}leaves? (?:\w+ )?(?:open|unstated|unclear)\b",
            rf"\b{_NOTE}\b[^.;]{{0,80}}\b(?:but|and) (?:does not|never) {_HOW}{_TELL}",
            r"\bit gives no (?:\w+ )?\w+",
            rf"\b{_NOTE} {_SAME_SUBJECT}(?:is|are) (?:insufficient|inadequate|not (?:sufficient|enough))\b",
            rf"\bit (?:does not|never) {_HOW}(?:mention|specify|state|say|disclose|name|tell)\b",
            rf"\bit is not {_HOW}{_SAID_OR_DONE} (?:whether|if|when|who|how|why|which|what|where)\b",
            r"\bnothing is (?:said|stated|written|reported|documented)\b",
            rf"\bneither\b[^.;]{{0,60}}\b(?:{_SAID}|{_SAID_OR_DONE})\b[^.;]{{0,40}}{_IN_NOTE}",
            # What was asked as what is not told.
            rf"\b(?<!information )not {_HOW}{_SAID}\b",
            rf"\b(?:(?:is|are) not|(?:has|have) not been) {_HOW}"
            r"(?:provided|documented|given|recorded|listed|reported|known)(?=\s*(?:[.;,]|$|in |but |so ))",
            rf"\bnot (?:explicitly|specifically|clearly|directly) {_SAID_OR_DONE}\b",
            rf"^\W*not {_SAID_OR_DONE}\W*$",
            rf"\bnot {_HOW}{_SAID_OR_DONE}\b[^.;]{{0,40}}{_IN_NOTE}",
            rf"\bnot (?:something|information|a detail)\b[^.;]{{0,30}}\b{_NOTE}\b",
            rf"\bdoes not appear (?:anywhere )?{_IN_NOTE}",
            rf"\b(?:missing|absent|omitted|left out) (?:from|in) {_NOTE}\b",
            rf"\b{_ENOUGH}\b[^.;]{{0,60}}\b(?:is|are) (?:lacking|missing|absent|unavailable)\b",
            r"\b(?:is|are) left (?:unsaid|open)\b",
            r"\b(?:remains?|is|are) (?:unspecified|unstated|undocumented|unmentioned)\b",
            r"\bunspecified (?:date|time|day|location|place|duration)\b",
            rf"\b{_FACT}\b[^.;]{{0,60}}\b(?:is|are|remains?) (?:unknown|not known|unclear|not available)\b",
            # No word of it.
            rf"\bno (?:\w+ )?{_KINDS_OF_TELLING} (?:[\w-]+ ){{0,8}}?(?:is|are|was|were) "
            r"(?:provided|given|made|available|included)",
            r"\b(?:is|are) no (?:\w+ )?(?:mention|information|details?|documentation|reference|statement"
            r"|explanation|data)\b",
            rf"\bno (?:\w+ )?(?:{_KINDS_OF_TELLING}|evidence)\b[^.;]{{0,60}}{_IN_NOTE}",
            r"\bno (?:mention|statement|reference) is made\b",
            rf"\bno (?!other\b)(?:[\w'/-]+,? ){{1,14}}?(?:{_BE} )?{_HOW}{_SAID}\b",
            rf"\bno (?!other\b)(?:[\w'/-]+ ){{1,10}}?(?:{_BE} )?{_HOW}{_SAID_OR_DONE} {_IN_NOTE}",
            r"\bno (?:clear|explicit|direct|apparent|obvious|stated) "
            rf"(?:relation|link|connection|association)[^.;]{{0,160}}(?:{_IN_NOTE}|{_SAID}\b)",
            rf"\b(?:none|nothing|neither) (?:of (?:them|these|this) )?(?:{_BE} )?{_HOW}{_SAID}\b",
            rf"\bnothing {_IN_NOTE}|\bwe are not told\b",
            # It cannot be found out.
            r"\b(?:cannot|could not|not possible|impossible|unable|difficult|hard) (?:to )?(?:be )?"
            rf"(?:\w+ly )?{_FIND_OUT}\b[^.;]{{0,80}}(?:{_IN_NOTE}|\bwhat is (?:given|provided|stated)"
            r"|\b(?:the|this|without) (?:\w+ )?information)",
            r"\b(?:one|this|i|it|question|that) cannot (?:be )?"
            r"(?:determined?|answer(?:ed)?|concluded?|infer(?:red)?|say|said|tell|told)\b",
            r"\bcannot be (?:determined|inferred|answered|stated|named|said\b|given(?=\W*$))",
            r"\bis not possible to (?:tell|say|determine|answer|infer|know)\b",
            rf"\b(?:unclear|not clear|uncertain|unknown|not known|not stated) {_IN_NOTE}",
            r"\b(?:is|are) (?:therefore )?(?:unclear|not clear|uncertain|not known) (?:whether|if)\b",
            # There is too little of it.
            r"\b(?:not (?:enough|sufficient)|insufficient|inadequate|too little|lack of) "
            rf"(?:\w+ )?{_ENOUGH}\b",
            rf"\bwithout (?:any )?(?:further|more|additional) {_ENOUGH}\b",
            rf"\b(?:more|further|additional) {_ENOUGH} (?:is|are|would be) (?:needed|required|necessary)\b",
        )
    )
)
# Most sentences hold none of these words, and are done ten times as quickly.
_HINT = re.compile(
    r"\b(?:no|not|never|none|nothing|neither|cannot|fails|silent|lacks?|omits?|leaves?|missing|absent|omitted"
    r"|lacking|left|un\w+|insufficient|inadequate|little|few|without|more|further|additional|impossible"
    r"|difficult|hard)\b"
)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")
_NOT = re.compile(r"\b(do|does|did|is|are|was|were|has|have|could|would)n't\b")


def declines(answer: str) -> bool:
    """Whether the answer says that the note does not allow one, or not in full."""
    sentences = _SENTENCE.split(_plain(answer))
    return any(_HINT.search(sentence) and _DECLINES.search(sentence) for sentence in sentences)


def _plain(answer: str) -> str:
    """In lower case, with straight apostrophes, full negations and single spaces, without brackets."""
    lowered = answer.lower().replace("\u2019", "'")
    spelt = _NOT.sub(r"\1 not", lowered).replace("can't", "cannot").replace("can not", "cannot")
    spelt = spelt.replace("there's", "there is")
    return re.sub(r"[ \t]+", " ", _BRACKETS.sub(" ", spelt)).replace(" ,", ",")
