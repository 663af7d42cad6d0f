"""The ledger of a running operator: it counts what the application counted, whatever happens to either of them.

The application is a set of pods with counters; `World` is an operator without its I/O. After everything that may
happen, the status must say exactly what the pods have counted since the operator first looked.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from tests.builders import NAMESPACE, make_gateway_counter, make_llm_service, make_member, make_model_pool, make_variant
from tests.controller.world import CHAT, POOL, World
from wattzoo.api.llm_service import PrometheusFeedback
from wattzoo.decide.traffic import estimate_outcomes, find_resets
from wattzoo.model import Kind, Manifest, Sample, Series, Signal, TelemetrySnapshot

SERVICE = Kind.LLM_SERVICE
SCRAPE_SECONDS = 5.0
WINDOW_SECONDS = 45.0


@dataclass
class Application:
    """Pods that count feedback, scraped every 5 s; `truth` is what they have counted in all."""

    metric: str = "wattzoo_feedback_total"
    counts: dict[tuple[str, str, bool], float] = field(default_factory=lambda: defaultdict(float))
    samples: dict[tuple[str, str, bool], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    truth: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})

    def judge(self, member: str, good: int, bad: int, pod: str = "app-0") -> None:
        """One pod judges answers of one member."""
        for satisfied, number in ((True, good), (False, bad)):
            self.counts[(pod, member, satisfied)] += number
            self.truth[satisfied] += number

    def restart(self, pod: str = "app-0") -> None:
        """The pod's counters begin again; its series stay the same."""
        for key in self.counts:
            if key[0] == pod:
                self.counts[key] = 0.0

    def end(self, pod: str) -> None:
        """The pod is gone for good."""
        for key in [key for key in self.counts if key[0] == pod]:
            del self.counts[key]

    def scrape(self, at_seconds: float) -> None:
        """Prometheus reads every counter."""
        for key, value in self.counts.items():
            self.samples[key].append(Sample(value, at_seconds))

    def series(self, at_seconds: float, window_seconds: float = WINDOW_SECONDS, **more: str) -> list[Series]:
        """What a range query over the window answers."""
        found = []
        for (pod, member, satisfied), samples in self.samples.items():
            kept = tuple(s for s in samples if at_seconds - window_seconds < s.at_seconds <= at_seconds)
            outcome = "satisfied" if satisfied else "unsatisfied"
            labels = {"__name__": self.metric, "namespace": NAMESPACE, "service": "chat", "instance": pod, **more}
            if kept:
                found.append(Series(Signal.FEEDBACK, {**labels, "member": member, "outcome": outcome}, kept))
        return found


@dataclass
class Ledgers:
    """A world whose feedback comes from an application instead of its own table."""

    world: World = field(default_factory=World)
    application: Application = field(default_factory=Application)
    requests: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    async def begin(self) -> None:
        """From nothing to both members ready, with nothing judged yet."""
        await self.world.tick()
        for _ in range(3):
            await self.step()

    async def step(self, window_seconds: float = WINDOW_SECONDS, feedback: list[Series] | None = None) -> None:
        """Three scrapes, then a pass."""
        self.world.cluster.run_pods(self.world.now - 600.0)
        self.world.cluster.accept_routes()
        for _ in range(3):
            self.scrape()
        await self.look(window_seconds, feedback)

    def scrape(self) -> None:
        """Five seconds and a scrape."""
        self.world.now += SCRAPE_SECONDS
        self.application.scrape(self.world.now)

    async def look(self, window_seconds: float = WINDOW_SECONDS, feedback: list[Series] | None = None) -> None:
        """A pass over what Prometheus has now."""
        now = self.world.now
        telemetry = self.world.traffic(4.0, 0.0)
        series = self.application.series(now, window_seconds) if feedback is None else feedback
        groups = {**telemetry.groups, "feedback": series}
        if self.requests:
            groups["gateway"] = [
                Series(Signal.GATEWAY_REQUESTS, one.labels, (Sample(0.0, now - 20.0), Sample(count, now)))
                for index, count in self.requests.items()
                for one in [make_gateway_counter("chat", index, now, 1.0)]
            ]
        await self.world.tick(TelemetrySnapshot(now, groups, {}), seconds=0.0)

    @property
    def status(self) -> Manifest:
        """The service's status."""
        found: Manifest = self.world.cluster.get(SERVICE, "chat")["status"]
        return found

    def counted(self) -> tuple[int, int]:
        """Judged and satisfied requests as the newest state has them; the status itself is written once a minute."""
        memory = next(iter(self.world.reconciler._services.values()))
        rows = memory.state.ledger.outcomes  # type: ignore[union-attr]
        return round(rows.total), round(rows.satisfied)

    def expected(self) -> tuple[int, int]:
        """The same as the application has counted it."""
        good, bad = self.application.truth[True], self.application.truth[False]
        return round(good + bad), round(good)


async def test_several_pods_restarts_and_gaps_lose_nothing() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    app = ledgers.application
    app.judge("large", 8, 2)
    app.judge("small", 3, 3, pod="app-1")
    await ledgers.step()
    app.judge("large", 5, 1)
    await ledgers.step(feedback=[])  # Prometheus answers nothing for once
    app.judge("large", 1, 1)
    await ledgers.step()
    assert ledgers.counted() == ledgers.expected() == (24, 17)
    app.restart()
    app.judge("large", 4, 0)
    await ledgers.step()
    assert ledgers.counted() == ledgers.expected() == (28, 21)


async def test_a_restart_between_two_looks_that_counts_past_its_old_value_is_seen() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 2, 0)
    await ledgers.step()
    ledgers.application.judge("large", 3, 0)  # 5
    ledgers.scrape()
    ledgers.application.restart()
    ledgers.application.judge("large", 1, 0)  # 1
    ledgers.scrape()
    ledgers.application.judge("large", 9, 0)  # 10, above the 2 that the last look saw
    ledgers.scrape()
    await ledgers.look()
    assert ledgers.counted() == ledgers.expected() == (15, 15)


async def test_what_a_pod_counted_that_ended_while_no_operator_ran_comes_back() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 2, 1, pod="leaving")
    await ledgers.step()
    for _ in range(4):  # a minute, so that the next pass writes a checkpoint
        await ledgers.step()
    checkpoint = ledgers.status["sla"]["feedbackCount"]
    assert checkpoint == 3
    ledgers.application.judge("large", 5, 1, pod="leaving")
    ledgers.scrape()
    ledgers.application.end("leaving")
    ledgers.application.judge("large", 2, 2, pod="new")
    for _ in range(60):  # five minutes without an operator
        ledgers.scrape()
    ledgers.world.restart()
    await ledgers.look(window_seconds=400.0)  # what the observer asks for after a restart
    assert ledgers.counted() == ledgers.expected() == (13, 9)


@pytest.mark.parametrize("policy", ["MESSPlusAnytime", "MESSPlus", "PrimalDual", "AlwaysLargest"])
async def test_a_killed_operator_counts_as_one_that_never_stopped(policy: str) -> None:
    ledgers = Ledgers()
    ledgers.world.cluster.add(SERVICE, make_llm_service(controller={"policy": policy}))
    await ledgers.begin()
    for number in range(12):
        if number == 6:
            ledgers.application.restart()
        ledgers.application.judge("large", 6, number % 4, pod=f"app-{number % 3}")
        ledgers.application.judge("small", 3, 2)
        await ledgers.step()
        if number in {3, 4, 7, 10}:
            ledgers.world.restart()  # whatever the last status write has is all that is left
    await ledgers.step()
    assert ledgers.counted() == ledgers.expected()


async def test_two_scrapers_of_one_pod_count_once() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 7, 3)
    for _ in range(2):
        for _ in range(3):
            ledgers.scrape()
        now = ledgers.world.now
        one = ledgers.application.series(now, job="app", prometheus_replica="a")
        other = ledgers.application.series(now, job="pods", prometheus_replica="b")
        late = [Series(s.name, s.labels, s.samples[:-1]) for s in other]  # it scrapes a little later
        await ledgers.look(feedback=[*one, *late])
    assert ledgers.counted() == (10, 7)


async def test_members_that_nobody_knows_are_counted_and_shown() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 60, 20)
    ledgers.application.judge("gone", 30, 10)
    for _ in range(6):
        await ledgers.step()
    assert ledgers.counted() == (120, 90)
    assert ledgers.status["sla"]["unknownMemberFeedbackCount"] == 40


async def test_other_series_in_the_spec_are_a_new_base() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 7, 3)
    await ledgers.step()
    other = Application(metric="answers_total")
    other.judge("large", 500, 500)  # its past is not ours
    ledgers.application = other
    raw = make_llm_service(feedback={"prometheus": {"metric": "answers_total", "matchLabels": {"service": "chat"}}})
    raw["metadata"]["generation"] = 2
    raw["status"] = ledgers.status
    ledgers.world.cluster.add(SERVICE, raw)
    ledgers.world.restart()  # even a restart in between changes nothing of it
    await ledgers.step()
    assert ledgers.counted() == (10, 7)
    other.judge("large", 4, 1)
    await ledgers.step()
    assert ledgers.counted() == (15, 11)


async def test_the_ledger_goes_with_the_service_through_a_change_of_policy_target_and_pool() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 7, 3)
    ledgers.application.judge("small", 1, 9)
    await ledgers.step()  # 20 at .8: 16 promised, 8 satisfied
    raw = make_llm_service(target_per_mille=500, controller={"policy": "MESSPlus"})
    raw["metadata"]["generation"] = 2
    raw["status"] = ledgers.status
    ledgers.world.cluster.add(SERVICE, raw)
    ledgers.world.restart()
    members = [make_member("large", [make_variant(minReplicas=1)]), make_member("third", [make_variant()])]
    ledgers.world.cluster.add(Kind.MODEL_POOL, make_model_pool(members=members))
    ledgers.application.judge("large", 6, 4)
    ledgers.application.judge("small", 1, 1)  # late feedback of a member that left
    await ledgers.step()
    memory = next(iter(ledgers.world.reconciler._services.values()))
    assert memory.policy == "MESSPlus"
    assert ledgers.counted() == (32, 15)
    assert memory.state.ledger.required == pytest.approx(20 * 0.8 + 12 * 0.5)  # type: ignore[union-attr]
    assert memory.state.ledger.members[""].total == 12  # type: ignore[union-attr]


async def test_a_state_that_cannot_be_read_is_a_cold_start_with_the_reason_on_the_object() -> None:
    ledgers = Ledgers()
    await ledgers.begin()
    ledgers.application.judge("large", 70, 30)
    await ledgers.step()
    before = ledgers.world.weights()
    ledgers.status["controller"]["state"] = '{"version": 99}'
    ledgers.world.restart()
    await ledgers.step()
    degraded = ledgers.world.condition(SERVICE, CHAT, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "StateLost")
    assert ledgers.world.weights() == before
    assert ledgers.counted() == (0, 0)
    ledgers.application.judge("large", 90, 20)
    await ledgers.step()
    await ledgers.step()
    assert ledgers.counted() == (110, 90)
    assert ledgers.world.condition(SERVICE, CHAT, "Degraded")["reason"] != "StateLost"


async def test_requests_are_counted_from_raw_counters_and_survive_a_restart() -> None:
    ledgers = Ledgers()
    ledgers.requests.update({0: 0.0, 1: 0.0})
    await ledgers.begin()
    ledgers.application.judge("large", 10, 10)
    ledgers.requests.update({0: 40.0, 1: 60.0})
    for _ in range(5):
        await ledgers.step()
    assert ledgers.status["sla"]["requestCount"] == 100
    ledgers.world.restart()
    ledgers.requests.update({0: 5.0, 1: 70.0})  # the first backend's counter began again
    await ledgers.step()
    assert ledgers.status["sla"]["requestCount"] == 40 + 5 + 70
    assert ledgers.status["sla"]["feedbackSharePerMille"] < 400  # 20 of 115 were judged


async def test_another_order_of_backends_makes_other_counters() -> None:
    ledgers = Ledgers()
    ledgers.requests.update({0: 0.0, 1: 0.0})
    await ledgers.begin()
    ledgers.requests.update({0: 40.0, 1: 60.0})
    await ledgers.step()
    turned = [make_member(name, [make_variant(minReplicas=1)]) for name in ("large", "small")]
    pool = make_model_pool(members=turned)
    pool["metadata"]["generation"] = 2
    ledgers.world.cluster.add(Kind.MODEL_POOL, pool)
    for _ in range(3):
        await ledgers.step()
    ledgers.requests.update({0: 44.0, 1: 61.0})
    await ledgers.step()
    memory = next(iter(ledgers.world.reconciler._services.values()))
    assert memory.counting.by_member() == {"large": 60.0 + 4.0, "small": 40.0 + 1.0}


async def test_minutes_without_a_request_change_nothing_and_break_nothing() -> None:
    world = World()
    await world.start()
    await world.run(20)
    for _ in range(3):
        await world.run(1, rps=0.0)
    before, required = world.weights(), world.cluster.get(SERVICE, "chat")["status"]["sla"]
    await world.run(40, rps=0.0)  # ten minutes
    moved = sum(abs(a - b) for a, b in zip(before, world.weights(), strict=True)) / 1e6
    assert moved < 0.1
    after = world.cluster.get(SERVICE, "chat")["status"]["sla"]
    assert (after["feedbackCount"], after["debtRequests"]) == (required["feedbackCount"], required["debtRequests"])
    await world.run(20)
    small, large = world.judged[("chat", "small")], world.judged[("chat", "large")]
    assert (small[0] + large[0]) / (sum(small) + sum(large)) > 0.8


async def test_a_stored_state_stays_small() -> None:
    world = World()
    await world.start()
    await world.run(10)
    controller = world.cluster.get(SERVICE, "chat")["status"]["controller"]
    assert len(controller["state"]) < 2000
    assert len(controller["counters"]) < 1000
    assert json.loads(controller["state"])["policy"] == "MESSPlusAnytime"
    assert world.cluster.get(Kind.MODEL_POOL, POOL.name)


def test_resets_are_found_at_their_times_and_hold_what_all_series_had() -> None:
    app = Application()
    app.judge("large", 3, 0, pod="a")
    app.judge("large", 4, 0, pod="b")
    app.scrape(5.0)
    app.restart("a")
    app.judge("large", 1, 0, pod="b")
    app.scrape(10.0)
    groups = {"feedback": app.series(10.0)}
    feedback = PrometheusFeedback(match_labels={"service": "chat"})
    before, after = find_resets(TelemetrySnapshot(10.0, groups, {}), NAMESPACE, feedback)
    assert (before[0], after[0]) == (5.0, 10.0)
    assert sorted(counter.count for counter in before[1] if counter.satisfied) == [3.0, 4.0]
    assert sorted(counter.count for counter in after[1] if counter.satisfied) == [0.0, 5.0]
    latest, _ = estimate_outcomes(TelemetrySnapshot(10.0, groups, {}), NAMESPACE, feedback, 60.0)
    assert latest is not None
    assert sorted(counter.count for counter in latest if counter.satisfied) == [0.0, 5.0]
