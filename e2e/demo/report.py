"""The closing report as one dictionary: every figure beside the ones without which it would mislead.

Energy never stands without the attainment and the satisfaction of the same run; what is emulated and what was squeezed
is part of the report, and a run that cannot be trusted says so instead of being quietly good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from e2e.demo.measures import (
    GRACE_FEEDBACKS,
    Slo,
    attainment,
    count_writes,
    deviation_percent,
    engine_attainment,
    feedbacks,
    measure_energy,
    measure_promise,
    quantile,
)
from e2e.demo.recording import Recording, Reply

LAG_BOUND_MS = 250.0
ATTAINMENT_GOAL = 0.99
REPLAY_GOAL_PERCENT = 10.0


@dataclass(frozen=True, slots=True)
class PlantRun:
    """What the plant says of one way to serve the same requests.

    satisfied: share by service; setting: the swept parameter that was chosen, in words; reached_goal: whether any
        setting reached the attainment goal (else this is the best of them, and its energy is not comparable).
    """

    energy_joules: float
    slo: Slo
    satisfied: Mapping[str, float | None]
    setting: str
    reached_goal: bool
    starts: int | None = None
    tried: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LawRun:
    """One law simulated on the same requests with WattZoo's replica rule, over some seeds of the routing.

    energy_joules, satisfied: means; worst_deficit: the largest after N0 of any seed and service; violated_share: share
    of seeds and services with one. ratio_to_fixed_mix: energy over that of the hindsight mixture with an HPA.
    """

    policy: str
    parameters: Mapping[str, Any]
    seeds: int
    energy_joules: float
    ratio_to_fixed_mix: float
    satisfied: float
    worst_deficit: float | None
    violated_share: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same requests in the plant: WattZoo's own recorded decisions again, and the two ways it is set beside.

    laws: what other laws would have made of them.
    """

    replayed: PlantRun
    hpa_largest: PlantRun
    fixed_mix_hpa: PlantRun
    laws: tuple[LawRun, ...] = ()


def make_report(recording: Recording, comparison: Comparison | None) -> dict[str, Any]:
    """Return the report of a run; without a comparison its fields are null and the report says that it has none."""
    replies = recording.replies
    end_seconds = load_end_seconds(recording)
    measured = measure_energy(recording.energy, 0.0, end_seconds)
    slo = engine_attainment(recording.latency, 0.0, end_seconds)
    body = {
        "valid": True,
        "problems": [],
        "warnings": [],
        **recording.facts,
        "load_seconds": recording.load_seconds,
        "load_end_seconds": end_seconds,
        "services": [_service(recording, name, target) for name, target in recording.facts["targets"].items()],
        "requests": _requests(recording),
        "energy_joules": {
            "measured": measured,
            "replayed": comparison.replayed.energy_joules if comparison else None,
            "hpa_largest": comparison.hpa_largest.energy_joules if comparison else None,
            "fixed_mix_hpa": comparison.fixed_mix_hpa.energy_joules if comparison else None,
        },
        "joules_per_request": None if measured is None or not replies else measured / len(replies),
        "slo": _slo(recording, slo),
        "plant": _plant(comparison, measured),
        "emulator_lag_p99_ms": recording.emulator_lag_p99_ms,
        **_writes(recording),
    }
    body["problems"] = find_problems(body)
    body["warnings"] = find_warnings(body)
    body["valid"] = not body["problems"]
    return body


def load_end_seconds(recording: Recording) -> float:
    """Return when the last answer was complete, at least the length of the load."""
    return max([recording.load_seconds, *(reply.done_at_seconds for reply in recording.replies)])


def _service(recording: Recording, name: str, target: float) -> dict[str, Any]:
    mine = [reply for reply in recording.replies if reply.service == name]
    stated = recording.facts.get("promised_from", {}).get(name)
    n0 = max(GRACE_FEEDBACKS, stated or 0)
    promise = measure_promise(feedbacks(recording.replies, name), target, n0)
    return {
        "name": name,
        "target": target,
        "achieved": promise.achieved,
        "feedback_count": promise.feedback_count,
        "debt_requests": promise.debt_requests,
        "worst_deficit": promise.worst_deficit,
        "violated_after_n0": promise.violated_after_n0,
        "n0": n0,
        "n0_stated": stated,
        "requests": len(mine),
        "answered_by": dict(sorted(Counter(reply.member or "nobody" for reply in mine).items())),
    }


def _requests(recording: Recording) -> dict[str, Any]:
    failed = [reply for reply in recording.replies if reply.failed]
    return {
        "sent": len(recording.replies),
        "failed": len(failed),
        "failed_by_status": dict(Counter(str(reply.status) for reply in failed)),
        "mean_rps": len(recording.replies) / recording.load_seconds,
    }


def _slo(recording: Recording, engines: Slo) -> dict[str, Any]:
    """Engines' histograms count every request by the plant's clock; clients see streamed ones by their own."""
    ttft_bound = recording.facts["latency_bounds_seconds"]["ttft"]
    tpot_bound = recording.facts["latency_bounds_seconds"]["tpot"]

    def ttft(reply: Reply) -> float | None:
        return float("inf") if reply.failed else reply.ttft_seconds

    def tpot(reply: Reply) -> float | None:
        return float("inf") if reply.failed else reply.tpot_seconds

    return {
        "ttft_bound_seconds": ttft_bound,
        "tpot_bound_seconds": tpot_bound,
        "ttft_attainment": engines.ttft_attainment,
        "tpot_attainment": engines.tpot_attainment,
        "requests": engines.requests,
        "source": "engine histograms (every request, plant clock)",
        "client_ttft_attainment": attainment(map(ttft, recording.replies), ttft_bound),
        "client_tpot_attainment": attainment(map(tpot, recording.replies), tpot_bound),
        "client_ttft_p95_seconds": quantile(map(ttft, recording.replies), 0.95),
        "client_tpot_p95_seconds": quantile(map(tpot, recording.replies), 0.95),
    }


def _plant(comparison: Comparison | None, measured: float | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    runs = {
        name: {**asdict(run), "measured_against_it_percent": deviation_percent(measured, run.energy_joules)}
        for name, run in (
            ("replayed", comparison.replayed),
            ("hpa_largest", comparison.hpa_largest),
            ("fixed_mix_hpa", comparison.fixed_mix_hpa),
        )
    }
    return {
        "replay_deviation_percent": deviation_percent(comparison.replayed.energy_joules, measured),
        **runs,
        "laws": [asdict(law) for law in comparison.laws],
    }


def _writes(recording: Recording) -> dict[str, Any]:
    steady = count_writes(recording.writes, recording.steady_window)
    loaded = count_writes(recording.writes, (0.0, load_end_seconds(recording)))
    names = {(write.resource, write.name) for write in recording.writes if write.subresource == "status"}
    return {
        "writes_when_steady": steady.changes,
        "steady": {
            "definition": "no load and nothing applied, from 45 s after Ready (scale-down window and drain) on; the "
            "operator's accepted writes in the API server's audit log, the Lease and status apart",
            **asdict(steady),
            "status_checkpoints_allowed": len(names) * (1 + int(steady.seconds // 60)),
        },
        "writes_under_load": asdict(loaded),
    }


def find_problems(body: Mapping[str, Any]) -> list[str]:
    """Return why a report must not be believed; empty when it may."""
    problems = []
    if not body["requests"]["sent"]:
        problems.append("no request was sent")
    if body["requests"]["failed"]:
        problems.append(f"{body['requests']['failed']} requests failed: {body['requests']['failed_by_status']}")
    lag = body["emulator_lag_p99_ms"]
    if lag is None:
        problems.append("the emulator's lag is unknown")
    elif lag > LAG_BOUND_MS:
        problems.append(
            f"the emulator lagged: p99 {lag:.0f} ms, above {LAG_BOUND_MS:.0f} ms, so latencies are not the plant's"
        )
    if body["energy_joules"]["measured"] is None:
        problems.append("Prometheus has no energy of our GPUs")
    return problems


def find_warnings(body: Mapping[str, Any]) -> list[str]:
    """Return what a reader should know although the report is valid: bars that this run did not keep."""
    warnings = [
        f"service {row['name']}: {_percent(row['achieved'])} satisfied, target {_percent(row['target'])}"
        for row in body["services"]
        if row["achieved"] is None or row["achieved"] < row["target"]
    ]
    for what in ("ttft", "tpot"):
        share = body["slo"][f"{what}_attainment"]
        if share is None or share < ATTAINMENT_GOAL:
            warnings.append(f"{what.upper()} attainment {_percent(share)}, goal {_percent(ATTAINMENT_GOAL)}")
    if body["plant"] is None:
        warnings.append("no comparison was computed")
        return warnings
    deviation = body["plant"]["replay_deviation_percent"]
    if deviation is None or abs(deviation) > REPLAY_GOAL_PERCENT:
        warnings.append(f"replay deviates from the measured energy by {deviation} %, goal {REPLAY_GOAL_PERCENT:.0f} %")
    for name in ("hpa_largest", "fixed_mix_hpa"):
        run = body["plant"][name]
        if not run["reached_goal"]:
            warnings.append(f"{name}: no setting reached {_percent(ATTAINMENT_GOAL)} attainment, the best is shown")
        if (run["measured_against_it_percent"] or 0.0) > 0:
            warnings.append(f"WattZoo used more energy than {name}: {run['measured_against_it_percent']:+.1f} %")
    return warnings


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"
