"""One process that wants a root, as a test starts it: `lease_processes.py`.

What it says goes to its output, a line each, with seconds of a clock that all processes of a machine share.
"""

import json
import os
import signal
import sys
import threading
import time
from unittest.mock import patch

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import LeaseError
from asclepius_ray.fence import confirm_root
from asclepius_ray.lease import Timing, acquire, join

PURPOSE = "synthesize:1"


def say(event: str, **values: object) -> None:
    sys.stdout.write(json.dumps({"event": event, "at": time.monotonic(), **values}) + "\n")
    sys.stdout.flush()


def told_by(number: signal.Signals) -> threading.Event:
    """Set by that signal."""
    told = threading.Event()
    signal.signal(number, lambda *_: told.set())
    return told


def be_elsewhere(host: str, clock_ahead_seconds: float) -> None:
    """This process takes itself for one of another host, whose clock shows another time."""
    clock = time.time
    patch("socket.gethostname", return_value=host).start()
    patch("time.time", lambda: clock() + clock_ahead_seconds).start()


def hold_in_turns(root: Folder, timing: Timing, seconds: float) -> None:
    """Takes the root again and again until it is told to end, holding it for a moment each time."""
    until, ended = time.monotonic() + seconds, told_by(signal.SIGUSR1)
    say("ready")
    while time.monotonic() < until and not ended.is_set():
        try:
            lease = acquire(root, PURPOSE, timing)
        except LeaseError:
            continue
        say("held")
        time.sleep(0.1)
        say("left")
        lease.release(0)


def work(root: Folder, timing: Timing, seconds: float) -> None:
    """Joins the root's holder, or holds it and makes one artefact after the other; exits as a job would."""
    lease = join(root, PURPOSE, lambda line: say("follows", line=line), timing)
    if isinstance(lease, int):
        say("followed", code=lease)
        raise SystemExit(lease)
    until, number = time.monotonic() + seconds, 0
    ended, told_to_stop = told_by(signal.SIGUSR1), told_by(signal.SIGUSR2)
    say("held")
    while time.monotonic() < until and not ended.is_set():
        if told_to_stop.is_set():
            # Here and not where the signal finds it: between the look and the write it would write once more.
            told_to_stop.clear()
            os.kill(os.getpid(), signal.SIGSTOP)
        confirm_root()
        try:
            root.write_bytes("work/manifest.json", f"{sys.argv[5]} {number}".encode())
        except OSError:
            # The bucket went away within the write; what a stage writes is tried again as well.
            time.sleep(0.2)
            continue
        number += 1
        say("wrote", number=number)
        time.sleep(0.1)
    lease.release(0)
    say("left")


if __name__ == "__main__":
    what, uri, seconds, heartbeat, _name, host, clock_ahead = sys.argv[1:]
    if host:
        be_elsewhere(host, float(clock_ahead))
    beat = float(heartbeat)
    timing = Timing(beat, valid=4.5 * beat, stale=6 * beat, look=min(0.2, beat / 2), cut_off=60 * beat)
    {"turns": hold_in_turns, "work": work}[what](Folder(uri), timing, float(seconds))
