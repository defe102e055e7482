"""The one sentence of a stack of errors that says what is wrong."""

import re

_OURS = re.compile(r"asclepius_ray\.[\w.]+Error: (.+)")
_ANY = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception)): (.+)$", re.MULTILINE)


def reason(text: str) -> str:
    """Our own error's words where there is one, else those of the last error, else the first line."""
    ours = _OURS.findall(text)
    if ours:
        return str(ours[-1]).strip()
    others = _ANY.findall(text)
    if others:
        return f"{others[-1][0]}: {others[-1][1]}".strip()
    return text.strip().splitlines()[0] if text.strip() else "Ray Serve gave no reason"
