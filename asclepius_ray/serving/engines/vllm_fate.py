"""vLLM's engine processes end with the replica that started them, however it goes.

python vllm_fate.py PID...

vLLM ends them when it is shut down. Of a replica that is killed they know nothing: they would keep its
memory, a GPU's too, and the next replica would find no room there. A process of a few MiB waits for the end
of its input, which the replica holds open and the kernel closes, and kills what is left.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable


def end_with_this_process(process_ids: Iterable[int]) -> "subprocess.Popen[bytes]":
    """Starts the watch over these processes; `end_watch` ends it, once they have ended in order."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *map(str, process_ids)],
        stdin=subprocess.PIPE,
        # No signal to the replica's group is to reach it first.
        start_new_session=True,
    )


def end_watch(watch: "subprocess.Popen[bytes]") -> None:
    """Whatever of the watched processes still runs is killed."""
    watch.communicate()


def main() -> None:
    # Handles, not numbers: a process id is given out again.
    handles = [os.pidfd_open(int(process_id)) for process_id in sys.argv[1:]]
    sys.stdin.buffer.read()
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)


if __name__ == "__main__":
    main()
