"""The one place that knows what is bought, what is in flight, how fast one may ask and what is left to spend.

One desk a job. Workers speak to it in batches (`desk_messages`); it answers from the journal, lets each
key be bought by one worker only, and gives permits with the moment at which to send. A permit is given
only when the money for it is set aside durably. After a loss of the desk a new one loads the journal and
the workers tell it what they hold and what the lost one knew; until all have, no permit is given, so no
limit is lifted.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.account import Account
from asclepius_ray.chat.desk_messages import Ask, Heard, Memory, Said, Trouble
from asclepius_ray.chat.desk_money import DeskMoney
from asclepius_ray.chat.desk_queue import Claims, Permit, WorkerState
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.desk_storage import DeskStorage
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.estimates import TokenEstimates
from asclepius_ray.chat.exchange import Entry
from asclepius_ray.chat.gate import PROBE_STEP, Ending, Load, Outcome, Settled, tell_limiter
from asclepius_ray.chat.outage import Outage
from asclepius_ray.chat.row_deaths import DEATHS_MARK, LONE_DEATHS_MARK, RowDeaths

SECONDS_PER_WORKER = 0.004
SHORTEST_SECONDS = 0.025
LONGEST_SECONDS = 1.0
STALE_WORKER_SECONDS = 60.0
LONGEST_RESYNC_SECONDS = 5.0
"""So long an heir waits for the workers of the desk that was lost: some may have been lost with it."""


class Desk:
    """Opens the journal at `folder`; `exchange` is called by every worker, concurrently, on one loop.

    `is_heir`: another desk of this run was lost. `account`: what it shares with other desks of this process.
    """

    def __init__(
        self, folder: Folder, endpoint: Endpoint, is_heir: bool = False, account: Account | None = None
    ) -> None:
        account = account or Account.of(endpoint)
        self.life = secrets.token_hex(8)
        self._endpoint = endpoint
        self._storage = DeskStorage(folder)
        self._money = DeskMoney(folder, endpoint, self._storage, account.purse)
        self._limiter, self._quotas = account.limiter, account.quotas
        self._estimates = TokenEstimates()
        self._outage = Outage(endpoint.max_outage_seconds)
        self._claims = Claims()
        self._workers: dict[str, WorkerState] = {}
        self._is_heir = is_heir
        self._num_awaited = 0
        self._first_heard_at = math.inf
        self._turn = 0
        marks = self._storage.journal.marks
        self._deaths = RowDeaths(marks(DEATHS_MARK), marks(LONE_DEATHS_MARK))
        self._pumping = asyncio.Lock()
        self._trouble: Trouble | None = None
        self._answered_at = float("-inf")
        self._num_replayed = 0
        self._num_refusals = 0
        """Of what this desk has sent; its limiter may be that of an account, and knows the others' too."""
        self._is_started = False

    async def exchange(self, said: Said) -> Heard:
        """Takes one worker's message and returns all that there is for it."""
        self._start()
        worker = self._workers.get(said.worker)
        is_known = worker is not None and worker.process == said.process
        if said.desk and not said.is_resync and not (is_known and said.desk == self.life):
            # It has spoken to a desk that was lost, or was silent for so long that it was buried, and what
            # it had asked for with it.
            return Heard(self.life, needs_resync=True)
        if worker is None or said.is_resync or not is_known:
            worker = self._welcome(said)
        worker.heard_at = time.monotonic()
        self._first_heard_at = min(self._first_heard_at, worker.heard_at)
        try:
            await self._take(worker, said)
            await self._give_permits()
        except OSError as error:
            # An answer that cannot be read, or the mark of the budget that cannot be written.
            await self._storage_failed(error)
        return self._reply(worker)

    async def close(self) -> None:
        """Makes durable what is not; call it when the workers have nothing in flight any more."""
        await self._storage.close()
        await self._money.tighten()

    async def forget_failures(self) -> None:
        """Failed rows are asked anew, and rows that were given up get another chance."""
        self._storage.journal.void_failures()
        await self._keep_marks(self._deaths.pardon())
        await self._storage.flush()

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of those keys that are bought; nothing is sent for the others."""
        self._start()
        found = await asyncio.to_thread(self._storage.journal.read, keys)
        self._num_replayed += len(found)
        return found

    async def keep(self, entries: Sequence[Entry]) -> None:
        """Takes answers in that came by another way than a permit; returns when they are durable."""
        for entry in entries:
            if entry.key not in self._storage.journal:
                self._storage.journal.append(entry)
        await self._storage.flush()

    async def adopt_batches(self, loads: Sequence[Load]) -> str:
        """Batches with these requests are open since before this desk; returns its life, for what follows."""
        self._money.adopt_all(loads)
        return self.life

    async def reserve_batch(self, life: str, loads: Sequence[Load]) -> bool | None:
        """Sets aside the most that a batch can cost, durably; False where the budget forbids it.

        None where `life` is another desk's, which was lost: this one does not know what is open.
        """
        return await self._money.reserve_all(loads) if life == self.life else None

    async def settle_batch(self, life: str, settled: Sequence[Settled]) -> bool | None:
        """Lines of a batch have come to their end; None as above."""
        if life != self.life:
            return None
        for load, tokens in settled:
            self._money.settle_one(load, tokens)
        return True

    async def stop(self, trouble: Trouble) -> None:
        """Ends the run as one: nothing more is sent, what is in flight comes in."""
        self._trouble = self._trouble or trouble

    async def snapshot(self) -> DeskSnapshot:
        """Figures of the moment, for the progress line and the status."""
        now = time.monotonic()
        workers = self._workers.values()
        return DeskSnapshot(
            steps=self._storage.journal.totals(),
            unsettled_usd=self._money.unsettled_usd,
            has_price=self._endpoint.price is not None,
            budget_usd=self._endpoint.budget_usd,
            num_replayed=self._num_replayed,
            num_refusals=self._num_refusals,
            requests_per_minute=self._limiter.present_requests_per_minute,
            tokens_per_minute=self._limiter.present_tokens_per_minute,
            num_in_flight=sum(worker.in_flight for worker in workers),
            num_permits=sum(len(worker.permits) for worker in workers),
            num_waiting=sum(len(worker.waiting) for worker in workers),
            num_workers=len(self._workers),
            num_segments=self._storage.journal.num_segments,
            num_damaged_records=self._storage.journal.damaged_records,
            why_waiting=self._why_waiting(now),
            trouble=self._trouble,
        )

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._storage.start(self._storage_failed, self._money.tighten)

    async def _storage_failed(self, error: OSError) -> None:
        await self.stop(Trouble.of_storage(error))

    def _why_waiting(self, now: float) -> str:
        if self._trouble is not None:
            return "ending"
        if reason := self._outage.describe(now):
            return reason
        return self._limiter.pause_reason if self._limiter.blocked_until > now else ""

    def _welcome(self, said: Said) -> WorkerState:
        """A new worker, a new life of one, or one whose line to a desk was broken: this one or a lost one."""
        now = time.monotonic()
        old = self._workers.pop(said.worker, None)
        known: dict[int, Permit] = {}
        if old is not None and old.process == said.process:
            known = self._part_permits(old, said, now)
            self._forget(old, keep=said.buying)
            # What has ended while the line was broken is in no message.
            self._deaths.forget(old.process)
        elif old is not None:
            self._bury(old)
        worker = self._workers[said.worker] = WorkerState(said.worker, said.process)
        for number, load in said.held:
            lost = Permit(load, now, is_of_lost_desk=True)
            worker.permits[number] = known.get(number, lost)
        for key in said.buying:
            self._claims.restore(key, said.process)
        if said.desk and said.desk != self.life:
            self._is_heir = True
            self._num_awaited = max(self._num_awaited, said.memory.num_workers)
            self._limiter.inherit(said.memory.learnt, now)
        return worker

    def _part_permits(self, worker: WorkerState, said: Said, now: float) -> dict[int, Permit]:
        """Returns the permits that are still in use. One that never arrived is given back; of one that was
        used, and how is not known, the money counts as spent."""
        held, untold = {number for number, _load in said.held}, {ask.number for ask in said.asks}
        for number, permit in worker.permits.items():
            if number in untold:
                self._money.give_back(permit)
                self._limiter.settle(permit.reserved_tokens, 0, now)
            elif number not in held:
                self._money.lose(permit)
        return {number: permit for number, permit in worker.permits.items() if number in held}

    def _bury(self, worker: WorkerState) -> None:
        """Frees what a dead worker held: what it had in flight may have been charged and counts as spent."""
        for permit in worker.permits.values():
            self._money.lose(permit)
        self._forget(worker)
        for kind, counts in self._deaths.die(worker.process).items():
            self._storage.journal.append_mark(kind, counts)

    def _forget(self, worker: WorkerState, keep: Sequence[bytes] = ()) -> None:
        """Ends its claims, except for those of `keep`, and its part of the places in flight."""
        self._quotas.forget(worker.name)
        self._claims.forget_waiter(worker.name)
        self._requeue(self._claims.release_all(worker.process, keep))

    def _requeue(self, waiters: list[tuple[str, Ask]]) -> None:
        for name, ask in waiters:
            worker = self._workers.get(name)
            if worker is not None and self._claims.take(ask.key, worker, ask):
                worker.enqueue(ask)

    async def _keep_marks(self, marks: dict[str, dict[str, int]]) -> None:
        for kind, counts in marks.items():
            self._storage.journal.append_mark(kind, counts)

    async def _take(self, worker: WorkerState, said: Said) -> None:
        now = time.monotonic()
        if said.trouble is not None:
            await self.stop(said.trouble)
        for number, outcome in said.outcomes:
            self._settle(worker, number, outcome, now)
        for number, entry in said.deliveries:
            self._deliver(worker, number, entry)
        for key in said.abandoned:
            self._requeue(self._claims.release(key, worker.process))
        self._take_rows(worker, said)
        await self._queue(worker, said.asks)
        # What goes with the reply is not wanted any more, and may be the last that this worker asks for: one
        # that has no rows left is ended without a word, and must not keep places.
        worker.in_flight = said.in_flight
        worker.wanted = max(said.wanted - len(worker.bought), said.in_flight)
        # An heir does not know yet what the others hold: nobody gets more places than he uses.
        wanted = said.in_flight if self._awaits_workers() else worker.wanted
        worker.quota = self._quotas.report(worker.name, said.in_flight, wanted)

    def _take_rows(self, worker: WorkerState, said: Said) -> None:
        for row_id in said.rows_ended:
            self._deaths.end(worker.process, row_id)
        for row_id in said.rows_begun:
            worker.verdicts.append(self._deaths.begin(worker.process, row_id))
        for row_id, is_alone in said.rows_admitted:
            self._deaths.admit(worker.process, row_id, is_alone)

    async def _queue(self, worker: WorkerState, asks: list[Ask]) -> None:
        """Answers what is bought already; the rest waits for a permit, or for another's answer."""
        journal = self._storage.journal
        found: dict[bytes, Entry] = {}
        looked_for: set[bytes] = set()
        # Again until nothing is left: while some are read, others are bought.
        while keys := {ask.key for ask in asks if ask.key and ask.key in journal} - looked_for:
            looked_for |= keys
            found |= await asyncio.to_thread(journal.read, keys)
        self._num_replayed += sum(ask.key in found for ask in asks)
        for ask in asks:
            if ask.key in found:
                worker.bought.append(found[ask.key])
            elif not ask.key or self._claims.take(ask.key, worker, ask):
                worker.enqueue(ask)

    def _settle(self, worker: WorkerState, number: int, outcome: Outcome, now: float) -> None:
        permit = worker.permits.pop(number, None)
        if permit is None:
            return
        self._money.settle(permit, outcome)
        if outcome.ending is Ending.UNUSED:
            self._limiter.settle(permit.reserved_tokens, 0, now)
            return
        self._num_refusals += outcome.ending is Ending.LIMITED
        tell_limiter(self._limiter, outcome, permit.send_at, now, self.life)
        self._limiter.settle(permit.reserved_tokens, outcome.prompt_tokens + outcome.completion_tokens, now)
        self._outage.observe(outcome.ending, now)
        if outcome.ending in (Ending.ANSWERED, Ending.REJECTED):
            self._answered_at = now
        if outcome.ending is Ending.ANSWERED and permit.load.step != PROBE_STEP:
            self._estimates.observe(
                permit.load.step, permit.load.num_characters, outcome.prompt_tokens, outcome.completion_tokens
            )

    def _deliver(self, worker: WorkerState, number: int, entry: Entry) -> None:
        """Keeps a bought answer; what came twice after a resync is kept once."""
        journal = self._storage.journal
        # What came before is durable at the latest with all that is in the journal by now.
        ordinal = journal.num_appended
        if entry.key not in journal:
            ordinal = journal.append(entry)
        worker.undurable.append((number, ordinal))
        for name, _ask in self._claims.release(entry.key, worker.process):
            if (waiter := self._workers.get(name)) is not None:
                self._num_replayed += 1
                waiter.bought.append(entry)

    async def _give_permits(self) -> None:
        """Serves the workers in turn while the rate, the places and the budget allow."""
        async with self._pumping:
            self._bury_the_silent()
            if self._outage.has_lasted_too_long(time.monotonic()):
                await self.stop(Trouble("endpoint", self._outage.explain(self._endpoint.host)))
            horizon = 2 * self._next_seconds()
            while (
                self._trouble is None
                and not self._awaits_workers()
                and (found := self._whose_turn()) is not None
            ):
                worker, ask = found
                if ask.key and not self._claims.holds(ask.key, worker.process):
                    worker.drop(ask)
                    continue
                if not await self._grant(worker, ask, horizon):
                    break

    def _awaits_workers(self) -> bool:
        """Whether some may still hold permits of a lost desk that this one knows nothing of."""
        if not self._is_heir or time.monotonic() - self._first_heard_at > LONGEST_RESYNC_SECONDS:
            return False
        return not self._num_awaited or len(self._workers) < self._num_awaited

    async def _grant(self, worker: WorkerState, ask: Ask, horizon: float) -> bool:
        now = time.monotonic()
        if not self._outage.may_try(now):
            return False
        if not await self._money.allows(ask.load):
            if why := self._money.why_exhausted(ask.load):
                await self.stop(Trouble("budget", why))
            return False
        if self._workers.get(worker.name) is not worker or worker.next_ask() is not ask:
            # While the money was set aside, this worker died or said something else.
            return True
        load = ask.load
        tokens = self._estimates.expected_tokens(load.step, load.num_characters, load.max_tokens)
        send_at = self._limiter.reserve(tokens, now, horizon)
        if send_at is None:
            return False
        worker.drop(ask)
        worker.permits[ask.number] = Permit(load, send_at, tokens, self._money.reserve(load))
        worker.granted.append((ask.number, send_at))
        self._outage.tried(now)
        self._turn += 1
        return True

    def _whose_turn(self) -> tuple[WorkerState, Ask] | None:
        workers = list(self._workers.values())
        asking = [(worker, ask) for worker in workers if (ask := worker.next_ask()) is not None]
        if not asking:
            return None
        return next((pair for pair in asking if pair[1].load.is_urgent), asking[self._turn % len(asking)])

    def _bury_the_silent(self) -> None:
        now = time.monotonic()
        silent = [w for w in self._workers.values() if now - w.heard_at > STALE_WORKER_SECONDS]
        for worker in silent:
            del self._workers[worker.name]
            self._bury(worker)

    def _next_seconds(self) -> float:
        return min(max(SECONDS_PER_WORKER * len(self._workers), SHORTEST_SECONDS), LONGEST_SECONDS)

    def _reply(self, worker: WorkerState) -> Heard:
        now = time.monotonic()
        last_durable = self._storage.journal.last_durable
        while worker.undurable and worker.undurable[0][1] <= last_durable:
            worker.durable = worker.undurable.popleft()[0]
        heard = Heard(
            desk=self.life,
            bought=worker.bought,
            permits=[(number, max(send_at - now, 0.0)) for number, send_at in worker.granted],
            verdicts=worker.verdicts,
            quota=worker.quota,
            durable=worker.durable,
            memory=Memory(len(self._workers), self._limiter.learnt(now)),
            answered_age_seconds=now - self._answered_at if math.isfinite(self._answered_at) else math.inf,
            next_seconds=self._next_seconds(),
            trouble=self._trouble,
        )
        worker.bought, worker.granted, worker.verdicts = [], [], []
        return heard


Exchange = Callable[[Said], Awaitable[Heard]]
