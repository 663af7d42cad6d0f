"""One replica of a model server as a discrete-event model: continuous batching, KV limit, latency, power, life cycle.

The engine works in iterations. Each takes up to `max_batched_tokens`: one for every decoding sequence, the rest for
prompts in chunks, first come, first served, while the batch limit and the KV cache admit their requests. An iteration
of c prompt tokens in which b sequences get a token lasts c*tp + t0 + t1*b; prompts that end in it give their first
token. Without prompts the batch is constant between completions, so any number of iterations is one *segment*; the
plant jumps from segment to segment. A segment ends only for reasons of the model (a completion, an arrival that can
be admitted, a start or a drain), never because somebody looked, and its energy and tokens are booked when it ends:
hence stepping in real time gives bit for bit the same times and joules as one jump to the end.

Simplifications: a request reserves the KV cache of its whole length when admitted (a real engine grows and preempts);
prefill and decode add up in time, the prompts' part first and at full power; else power depends on the batch alone.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from wattzoo_policies.capacity.model import ReplicaModel
from wattzoo_policies.sim.metrics import ReplicaMetrics
from wattzoo_policies.sim.request import (
    EventKind,
    NotServingError,
    PlantEvent,
    PlantRequest,
    ReplicaPhase,
    RequestTooLargeError,
)
from wattzoo_policies.sim.segments import Doing, Running, Segment


class Replica:
    """A replica that starts at `created_seconds`; feed it with `submit`, move it with `advance`."""

    def __init__(
        self,
        model: ReplicaModel,
        created_seconds: float = 0.0,
        *,
        started: bool = False,
    ) -> None:
        """Begin to start, or be ready at once when `started`."""
        self.model = model
        self.created_seconds = created_seconds
        self.gone_seconds: float | None = None
        self._now = created_seconds
        self._segment = (
            Segment(Doing.IDLE, created_seconds, math.inf)
            if started or model.startup_seconds == 0.0
            else Segment(Doing.STARTING, created_seconds, created_seconds + model.startup_seconds)
        )
        self._leave_after: float | None = None
        self._waiting: deque[tuple[int, PlantRequest, float]] = deque()
        self._running: dict[int, Running] = {}
        self._finishing: list[tuple[int, int]] = []
        self._step = 0
        self._kv_reserved = 0
        self._prefilling: list[Running] = []
        self._finishing_prompt: list[Running] = []
        self._tickets = 0
        self._events: list[PlantEvent] = []
        self._metrics = ReplicaMetrics()

    # What may be asked at any time from the last `advance` on

    @property
    def now_seconds(self) -> float:
        """Return the time up to which the replica has been moved."""
        return self._now

    @property
    def phase(self) -> ReplicaPhase:
        """Return where in its life the replica is."""
        if self._segment.doing is Doing.GONE:
            return ReplicaPhase.GONE
        if self._segment.doing is Doing.STARTING:
            return ReplicaPhase.STARTING
        return ReplicaPhase.READY if self._leave_after is None else ReplicaPhase.DRAINING

    @property
    def running_requests(self) -> int:
        """Return sequences in the batch."""
        return len(self._running)

    @property
    def waiting_requests(self) -> int:
        """Return requests not yet admitted."""
        return len(self._waiting)

    @property
    def kv_reserved_tokens(self) -> int:
        """Return KV cache tokens promised to admitted requests."""
        return self._kv_reserved

    def next_event_seconds(self) -> float | None:
        """Return when something happens by itself, or `None` while nothing is due."""
        return None if math.isinf(self._segment.end) else self._segment.end

    def kv_usage(self, at_seconds: float) -> float:
        """Return the share of the KV cache that prompts and generated tokens fill."""
        steps = self._step + self._steps_done(at_seconds)
        filled = sum(r.request.input_tokens - r.prompt_left + r.tokens(steps) for r in self._running.values())
        return filled / self.model.kv_tokens

    def power_watts(self, at_seconds: float) -> float:
        """Return the power at this moment."""
        segment = self._segment
        if segment.doing is Doing.GONE:
            return 0.0
        if segment.doing is Doing.STARTING:
            return self.model.start_watts
        if segment.doing is Doing.PREFILLING and at_seconds < segment.start + segment.prefill_seconds:
            return self.model.max_watts
        return self.model.decode_watts(segment.batch)

    def tokens_generated(self, ticket: int, at_seconds: float) -> int | None:
        """Return tokens that exist of a waiting or running request; `None` when it is neither (any more)."""
        running = self._running.get(ticket)
        if running is not None:
            return running.tokens(self._step + self._steps_done(at_seconds))
        return 0 if any(waiting[0] == ticket for waiting in self._waiting) else None

    def metrics(self, at_seconds: float) -> ReplicaMetrics:
        """Return a copy of all counters as of this moment, the running segment's share included."""
        metrics = self._metrics.copy()
        segment = self._segment
        self._book_energy(metrics, at_seconds)
        if segment.doing is Doing.DECODING:
            steps = self._steps_done(at_seconds)
            metrics.generation_tokens += steps * segment.batch
            metrics.inter_token.add(segment.step_seconds, steps * segment.batch)
        return metrics

    # What moves it

    def submit(self, request: PlantRequest, at_seconds: float) -> int:
        """Take a request and return its ticket.

        Raises `NotServingError` while starting or gone (a draining replica still takes what reaches it),
        `RequestTooLargeError` when it can never fit, `ValueError` when time runs backwards.
        """
        self._move(at_seconds)
        if self._segment.doing in (Doing.STARTING, Doing.GONE):
            raise NotServingError(f"the replica is {self.phase.value.lower()} and takes no request")
        if self._kv_need(request) > self.model.kv_tokens:
            raise RequestTooLargeError(
                f"request {request.request_id} needs {self._kv_need(request)} tokens of KV cache, "
                f"the replica has {self.model.kv_tokens}"
            )
        self._tickets += 1
        self._waiting.append((self._tickets, request, at_seconds))
        if self._segment.doing is Doing.IDLE:
            self._end_segment(at_seconds)
        elif self._segment.doing is Doing.DECODING and len(self._waiting) == 1 and self._fits(request):
            self._cut_segment(at_seconds)
        return self._tickets

    def cancel(self, ticket: int, at_seconds: float) -> bool:
        """Forget a request whose client left; a running one leaves the batch after the step in progress."""
        self._move(at_seconds)
        segment = self._segment
        decoding = segment.doing is Doing.DECODING
        for entry in self._waiting:
            if entry[0] == ticket:
                self._waiting.remove(entry)
                self._metrics.requests_cut += 1
                if decoding and self._waiting and self._fits(self._waiting[0][1]):
                    self._cut_segment(at_seconds)
                return True
        running = self._running.get(ticket)
        if running is None or running.cut:
            return False
        running.cut = True
        if running.finish_step is None:
            return True  # dropped when the iteration in progress ends
        steps = self._steps_done(at_seconds) + 1
        running.finish_step = self._step + steps
        self._finishing = [(r.finish_step, r.ticket) for r in self._running.values() if r.finish_step is not None]
        heapq.heapify(self._finishing)
        if decoding and steps < segment.steps:
            segment.steps = steps
            segment.end = segment.start + steps * segment.step_seconds
        return True

    def drain(self, at_seconds: float, linger_seconds: float = 0.0) -> None:
        """Leave when nothing runs or waits, not before `linger_seconds` are over; a starting replica leaves at once."""
        self._move(at_seconds)
        if self._leave_after is not None or self._segment.doing is Doing.GONE:
            return
        if self._segment.doing is Doing.STARTING:
            self.kill(at_seconds)
            return
        self._leave_after = at_seconds + linger_seconds
        if self._segment.doing is Doing.IDLE:
            self._segment.end = self._leave_after
            self._move(at_seconds)

    def kill(self, at_seconds: float) -> tuple[int, ...]:
        """Be gone at once; returns the tickets of the requests that were cut."""
        self._move(at_seconds)
        if self._segment.doing is Doing.GONE:
            return ()
        self._metrics = self.metrics(at_seconds)
        lost = (*self._running, *(entry[0] for entry in self._waiting))
        self._metrics.requests_cut += len(lost)
        self._running.clear()
        self._finishing.clear()
        self._waiting.clear()
        self._prefilling.clear()
        self._finishing_prompt.clear()
        self._kv_reserved = 0
        self._leave(at_seconds)
        return lost

    def advance(self, until_seconds: float) -> list[PlantEvent]:
        """Move to this time and return everything that happened since the last call, in order."""
        self._move(until_seconds)
        events, self._events = self._events, []
        return events

    # The engine

    def _move(self, until: float) -> None:
        if until < self._now:
            raise ValueError(f"time runs backwards: the replica is at {self._now} s, asked for {until} s")
        while self._segment.end <= until:
            self._end_segment(self._segment.end)
        self._now = until

    def _end_segment(self, at: float) -> None:
        """Book the segment, let finished requests go, admit waiting ones and begin the next segment."""
        segment = self._segment
        self._book_energy(self._metrics, at)
        if segment.doing is Doing.PREFILLING:
            self._step += segment.steps
            self._book_prefill(at, segment)
        elif segment.doing is Doing.DECODING:
            self._step += segment.steps
            self._metrics.generation_tokens += segment.steps * segment.batch
            self._metrics.inter_token.add(segment.step_seconds, segment.steps * segment.batch)
        elif segment.doing is Doing.IDLE and not self._waiting:
            self._leave(at)
            return
        while self._finishing and self._finishing[0][0] <= self._step:
            self._complete(self._running.pop(heapq.heappop(self._finishing)[1]), at)
        self._begin_segment(at)

    def _begin_segment(self, at: float) -> None:
        decoding = len(self._running) - len(self._prefilling)
        prompt_tokens = self._schedule_prompts(self.model.max_batched_tokens - decoding)
        batch = decoding + len(self._finishing_prompt)
        step = self.model.step_seconds(batch) if batch else 0.0
        if self._prefilling or self._finishing_prompt:
            prefill = prompt_tokens * self.model.prefill_seconds_per_token
            if not batch:
                prefill = max(prefill, self.model.t0_seconds)  # the weights are read even for a few tokens
            self._segment = Segment(Doing.PREFILLING, at, at + prefill + step, batch, step, prefill, int(batch > 0))
        elif batch:
            steps = self._finishing[0][0] - self._step
            self._segment = Segment(Doing.DECODING, at, at + steps * step, batch, step, 0.0, steps)
        elif self._leave_after is not None:
            self._segment = Segment(Doing.IDLE, at, max(at, self._leave_after))
        else:
            self._segment = Segment(Doing.IDLE, at, math.inf)

    def _schedule_prompts(self, budget: int) -> int:
        """Give prompts their chunks of the next iteration, admitting requests while tokens last; returns the tokens.

        Prompts under way come first. At least one token goes to a prompt, lest a full batch starves it.
        """
        left = budget = max(1, budget)
        for running in self._prefilling:
            left -= self._take_chunk(running, left)
        while left > 0 and self._waiting and self._fits(self._waiting[0][1]):
            ticket, request, arrived = self._waiting.popleft()
            running = Running(ticket, request, arrived, request.input_tokens)
            self._running[ticket] = running
            self._kv_reserved += self._kv_need(request)
            self._prefilling.append(running)
            left -= self._take_chunk(running, left)
        self._finishing_prompt = [running for running in self._prefilling if running.finish_step is not None]
        self._prefilling = [running for running in self._prefilling if running.finish_step is None]
        return budget - left

    def _take_chunk(self, running: Running, budget: int) -> int:
        """Prefill up to `budget` tokens of a prompt; one that ends gets its first token with this iteration."""
        chunk = min(budget, running.prompt_left)
        running.prompt_left -= chunk
        if running.prompt_left == 0:
            running.first_step = self._step
            running.finish_step = self._step + running.request.output_tokens
            heapq.heappush(self._finishing, (running.finish_step, running.ticket))
        return chunk

    def _cut_segment(self, at: float) -> None:
        """Let the decode segment end with the step in progress."""
        segment = self._segment
        steps = self._steps_done(at)
        if segment.start + steps * segment.step_seconds < at:
            steps += 1
        if steps < segment.steps:
            segment.steps = steps
            segment.end = segment.start + steps * segment.step_seconds
        if steps == 0:
            self._end_segment(at)

    def _steps_done(self, at: float) -> int:
        """Return whole decode steps of the running segment that are over at this time."""
        segment = self._segment
        if segment.doing is not Doing.DECODING:
            return 0
        steps = max(0, min(segment.steps, int((at - segment.start) / segment.step_seconds)))
        while steps < segment.steps and segment.start + (steps + 1) * segment.step_seconds <= at:
            steps += 1
        while steps > 0 and segment.start + steps * segment.step_seconds > at:
            steps -= 1
        return steps

    def _fits(self, request: PlantRequest) -> bool:
        return (
            len(self._running) < self.model.max_sequences
            and self._kv_reserved + self._kv_need(request) <= self.model.kv_tokens
        )

    @staticmethod
    def _kv_need(request: PlantRequest) -> int:
        return request.input_tokens + request.output_tokens

    def _book_prefill(self, at: float, segment: Segment) -> None:
        metrics = self._metrics
        metrics.generation_tokens += segment.batch
        decoded = segment.batch - len(self._finishing_prompt)
        metrics.inter_token.add(segment.prefill_seconds + segment.step_seconds, decoded)
        for running in self._finishing_prompt:
            running.first_token = at
            metrics.prompt_tokens += running.request.input_tokens
            metrics.ttft.add(at - running.arrived)
            if not running.cut:
                self._events.append(self._event(EventKind.FIRST_TOKEN, running, at))
        self._finishing_prompt = []
        for running in [running for running in self._prefilling if running.cut]:
            self._prefilling.remove(running)
            self._complete(self._running.pop(running.ticket), at)

    def _complete(self, running: Running, at: float) -> None:
        self._kv_reserved -= self._kv_need(running.request)
        if running.cut:
            self._metrics.requests_cut += 1
            return
        event = self._event(EventKind.COMPLETED, running, at)
        self._metrics.requests_completed += 1
        self._metrics.e2e.add(at - running.arrived)
        if event.tpot_seconds is not None:
            self._metrics.tpot.add(event.tpot_seconds)
        self._events.append(event)

    @staticmethod
    def _event(kind: EventKind, running: Running, at: float) -> PlantEvent:
        return PlantEvent(kind, running.ticket, running.request, at, running.arrived, running.first_token)

    def _leave(self, at: float) -> None:
        self._segment = Segment(Doing.GONE, at, math.inf)
        self.gone_seconds = at

    def _book_energy(self, metrics: ReplicaMetrics, at: float) -> None:
        """Add the energy of the running segment up to this time."""
        segment, model = self._segment, self.model
        seconds = at - segment.start
        if segment.doing is Doing.STARTING:
            metrics.start_joules += model.start_watts * seconds
        elif segment.doing is Doing.IDLE:
            metrics.idle_joules += model.idle_watts * seconds
        elif segment.doing is not Doing.GONE:
            prefill = min(seconds, segment.prefill_seconds)
            decode_joules = model.decode_watts(segment.batch) * (seconds - prefill)
            metrics.active_joules += model.max_watts * prefill + decode_joules
            metrics.busy_seconds += seconds
