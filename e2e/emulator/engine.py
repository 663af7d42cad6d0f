"""A replica of the plant on the wall clock: one timer for its next event, and requests that wait for theirs.

The plant decides when things happen; this only notices, as soon as it can. The plant's clock is the event loop's
monotonic clock since the emulator's start. Nothing wakes per token: a replica is moved when something is due, when a
request comes or leaves, and when somebody asks for its counters.
"""

from __future__ import annotations

import asyncio

from wattzoo_policies.capacity.model import ReplicaModel
from wattzoo_policies.sim.metrics import ReplicaMetrics
from wattzoo_policies.sim.plant import Replica
from wattzoo_policies.sim.request import EventKind, PlantEvent, PlantRequest, ReplicaPhase


class PlantClock:
    """Seconds since the emulator's start on the event loop's monotonic clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.origin = loop.time()

    def now_seconds(self) -> float:
        """Return the present time."""
        return self.loop.time() - self.origin


class Ticket:
    """A request under way. `event` is the last that happened to it; `lost` says that the replica went away."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine = engine
        self.number = number
        self.event: PlantEvent | None = None
        self.lost = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def finished(self) -> bool:
        """Return whether nothing more will happen to it."""
        return self.lost or (self.event is not None and self.event.kind is EventKind.COMPLETED)

    async def wait(self, timeout_seconds: float | None = None) -> None:
        """Return at its next event, or after the timeout."""
        loop = self.engine.clock.loop
        self._waiter = waiter = loop.create_future()
        handle = None if timeout_seconds is None else loop.call_later(timeout_seconds, self.wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if handle is not None:
                handle.cancel()

    def wake(self) -> None:
        """Let whoever waits look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def tokens(self) -> int:
        """Return the tokens that exist by now."""
        if self.event is not None and self.event.kind is EventKind.COMPLETED:
            return self.event.request.output_tokens
        engine = self.engine
        return engine.replica.tokens_generated(self.number, engine.clock.now_seconds()) or 0

    def cancel(self) -> None:
        """Give up: the client left."""
        self.engine.cancel(self)


class Engine:
    """One emulated server's replica."""

    def __init__(
        self,
        clock: PlantClock,
        model: ReplicaModel,
        *,
        started: bool = False,
    ) -> None:
        self.clock = clock
        self.model = model
        self.replica = Replica(model, clock.now_seconds(), started=started)
        self.last_busy_seconds = clock.now_seconds()
        self._tickets: dict[int, Ticket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.catch_up()

    @property
    def ready(self) -> bool:
        """Return whether it takes requests."""
        self.catch_up()
        return self.replica.phase is ReplicaPhase.READY

    @property
    def open_requests(self) -> int:
        """Return requests taken and not ended."""
        return len(self._tickets)

    def submit(self, request: PlantRequest) -> Ticket:
        """Take a request; raises what `Replica.submit` raises."""
        self.catch_up()
        ticket = Ticket(self, self.replica.submit(request, self.replica.now_seconds))
        self._tickets[ticket.number] = ticket
        self.last_busy_seconds = self.replica.now_seconds
        self.catch_up()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request whose client left."""
        if self._tickets.pop(ticket.number, None) is not None:
            self.catch_up()
            self.replica.cancel(ticket.number, self.replica.now_seconds)
            self.catch_up()

    def stop(self) -> None:
        """Be gone: requests under way are lost."""
        self.catch_up()
        for number in self.replica.kill(self.replica.now_seconds):
            ticket = self._tickets.pop(number, None)
            if ticket is not None:
                ticket.lost = True
                ticket.wake()
        self._tickets.clear()
        self._arm()

    def metrics(self) -> ReplicaMetrics:
        """Return all counters as of now."""
        self.catch_up()
        return self.replica.metrics(self.replica.now_seconds)

    def power_watts(self) -> float:
        """Return the present power."""
        self.catch_up()
        return self.replica.power_watts(self.replica.now_seconds)

    def catch_up(self, due_seconds: float = 0.0) -> None:
        """Move the replica to the present, tell everyone whose event came, and arm the timer for the next one.

        due_seconds: the event that the timer rang for; the clock may show a rounding error less than that.
        """
        for event in self.replica.advance(max(self.clock.now_seconds(), self.replica.now_seconds, due_seconds)):
            completed = event.kind is EventKind.COMPLETED
            ticket = self._tickets.pop(event.ticket, None) if completed else self._tickets.get(event.ticket)
            if completed:
                self.last_busy_seconds = event.at_seconds
            if ticket is not None:
                ticket.event = event
                ticket.wake()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.replica.next_event_seconds()
        self._timer = None if due is None else self.clock.loop.call_at(self.clock.origin + due, self.catch_up, due)
