"""Says a submitted job's log line by line until the job ends, over as many connections as it takes."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from asclepius_ray.errors import Interrupted, SubmitError
from asclepius_ray.launch.remote import read_job

Say = Callable[[str], None]

LOST_SECONDS = 120.0
"""So long a cluster that does not answer is asked again, and a log that breaks off is read again."""
SILENT_SECONDS = 60.0
"""So long a connection to the log may say nothing. A head that is taken away, or a machine that slept, closes
none, and nothing on the connection tells it from a quiet job; a stage at work says a line every 8 s."""
RETRY_SECONDS = 2.0


@dataclass
class _Log:
    """What has been read of a job's log."""

    say: Say
    num_characters: int = 0
    num_received: int = 0
    """Those that came again included: each connection brings the log from its beginning."""
    pending: str = ""
    """The beginning of a line whose end has not come."""

    async def read(self, client: JobSubmissionClient, job_id: str) -> None:
        """Says what is new over one connection, which starts at the log's first character, to its end.

        A TimeoutError where it is silent, a RuntimeError, OSError or aiohttp.ClientError where it breaks.
        """
        skipped = 0
        async with aclosing(client.tail_job_logs(job_id)) as texts:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    text = await anext(texts, None)
                if text is None:
                    return
                new = text[max(0, self.num_characters - skipped) :]
                skipped += len(text)
                self.num_received += len(text)
                self.num_characters = max(self.num_characters, skipped)
                *lines, self.pending = (self.pending + new).split("\n")
                for line in lines:
                    self.say(line)


def follow_job(client: JobSubmissionClient, job_id: str, address: str, say: Say) -> int:
    """Says the job's log until it ends; its exit code.

    An Interrupted on Ctrl-C says that the job goes on and how it is stopped; a SubmitError says that the
    cluster is not to be reached any more.
    """
    log = _Log(say)
    try:
        job = asyncio.run(_follow(client, job_id, address, log))
    except KeyboardInterrupt:
        raise Interrupted(
            f"the job {job_id} goes on without us; its log: {command('logs --follow', job_id, address)}; "
            f"to stop it: {command('stop', job_id, address)}"
        ) from None
    if job.status == JobStatus.SUCCEEDED:
        say(f"job {job_id} has succeeded")
        return 0
    code: int | None = job.driver_exit_code
    if code is None and job.status == JobStatus.FAILED:
        # Without a driver's end there is only what Ray saw of it: nothing, or that it was gone.
        say(f"job {job_id} {'was lost' if log.num_characters else 'did not start'}: {job.message}")
    else:
        say(f"job {job_id} was stopped" if job.status == JobStatus.STOPPED else f"job {job_id} has failed")
    if code is not None and code < 0:
        return 128 - code
    return code or 1


def command(verb: str, job_id: str, address: str) -> str:
    """What a user types to ask Ray about the job."""
    return f"ray job {verb} --address {address} {job_id}"


async def ask_for_job(client: JobSubmissionClient, job_id: str, address: str) -> JobDetails | None:
    """The job as the cluster knows it, None where it knows none; a SubmitError where it does not answer."""
    asked = time.monotonic()
    while True:
        try:
            return await asyncio.to_thread(read_job, client, address, job_id)
        except SubmitError as error:
            if time.monotonic() - asked > LOST_SECONDS:
                raise SubmitError(
                    f"the connection to {address} is lost, and the job {job_id} may go on ({error}); look "
                    f"for it later with: {command('logs --follow', job_id, address)}"
                ) from error
        await asyncio.sleep(RETRY_SECONDS)


async def _follow(client: JobSubmissionClient, job_id: str, address: str, log: _Log) -> JobDetails:
    """Says every line once; the job as it ended."""
    read_at, is_told = time.monotonic(), False
    while True:
        known, received = log.num_characters, log.num_received
        error = await _read(log, client, job_id)
        job = await ask_for_job(client, job_id, address)
        if job is None:
            raise SubmitError(
                f"the cluster at {address} does not know the job {job_id} any more: its head was started "
                "anew, and a job ends with its head; submit it again, it goes on from there"
            )
        has_ended = job.status.is_terminal()
        # What has ended owes the rest of its log; a job at work may be quiet, and what it said comes again.
        is_heard = log.num_received > received or error is None or isinstance(error, TimeoutError)
        if log.num_characters > known if has_ended else is_heard:
            read_at = time.monotonic()
        is_given_up = time.monotonic() - read_at > LOST_SECONDS
        if is_given_up and not is_told:
            said = " ".join(str(error).split()) or type(error).__name__
            log.say(f"the log of job {job_id} cannot be read ({said}); the job itself is still followed")
            is_told = True
        if has_ended and (is_given_up or error is None):
            if log.pending:
                log.say(log.pending)
            return job
        await asyncio.sleep(RETRY_SECONDS)


async def _read(log: _Log, client: JobSubmissionClient, job_id: str) -> Exception | None:
    """Reads the log over one connection; what ended it before its end."""
    try:
        await log.read(client, job_id)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        return error
    return None
