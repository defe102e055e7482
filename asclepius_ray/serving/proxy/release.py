"""Which HAProxys a proxy of Serve has started, and their end where that proxy has gone without ending them.

Ray ends its HAProxy in order; a signal to a whole process group, or a kill, ends Ray first. An HAProxy that
stayed behind would hold the port, and every later start would fail on it.
"""

import contextlib
import os
import signal
from pathlib import Path

RECORD = "haproxy.pids"


def record_proxy(folder: Path, process_id: int, parent: int) -> None:
    """Notes that `parent` started this HAProxy; the write is small enough never to mix with another's."""
    with (folder / RECORD).open("a") as record:
        record.write(f"{process_id} {parent}\n")


def release_proxies(folder: Path, parent: int) -> None:
    """Has the HAProxys of `parent` close their port at once, and end with the last open stream."""
    try:
        lines = (folder / RECORD).read_text().splitlines()
    except FileNotFoundError:
        return  # After an orderly end the folder is gone, and nothing runs from it.
    for line in lines:
        process_id, started_by = map(int, line.split())
        if started_by == parent and _runs_from(folder, process_id):
            # Its soft stop. `hard-stop-after`, which Ray sets, bounds it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGUSR1)


def _runs_from(folder: Path, process_id: int) -> bool:
    """Whether the process is still the one that was recorded: process ids are given out again."""
    try:
        arguments = Path(f"/proc/{process_id}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(folder) in arguments
