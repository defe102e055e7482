"""Words that stand for a patient's text in tests: whoever finds one in a log has found a leak."""

from pathlib import Path

CANARIES = ("kryptonithemia", "zyqcanary", "zebracanary", "zebrafinch")
"""In lower case; every test whose text must stay out of logs uses one of them."""


def leaking_files(folder: Path) -> list[str]:
    """The files below the folder that hold one of the words, in any case; never the line itself."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes().lower()
            found += [f"{path.name}: {word}" for word in CANARIES if word.encode() in content]
    return found
