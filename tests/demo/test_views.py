from __future__ import annotations

import math
from typing import Any

import pytest

from e2e.demo.recording import Replicas
from e2e.demo.views import (
    VariantView,
    achieved_shares,
    count_replicas,
    decision_line,
    energy_samples,
    follow_pods,
    latency_counts,
    list_variants,
    pod_variants,
    route_weights,
)

POOL: dict[str, Any] = {
    "metadata": {"name": "llama"},
    "spec": {
        "members": [
            {"name": "small", "variants": [{"name": "l4", "server": {}}]},
            {
                "name": "medium",
                "variants": [{"name": "a100", "workloadRef": {"kind": "Deployment", "name": "vllm-8b"}}],
            },
        ]
    },
}
VARIANTS = list_variants(POOL)


def pod(
    uid: str, labels: dict[str, str], *, ready: bool = False, leaving: bool = False, node: str | None = "n"
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": uid, "name": uid, "labels": labels}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}


def test_an_adopted_variant_keeps_its_own_deployment_and_gets_our_backend() -> None:
    assert (
        VariantView("small-l4", "small", "llama-small-l4", "llama-small-l4"),
        VariantView("medium-a100", "medium", "llama-medium-a100", "vllm-8b"),
    ) == VARIANTS


def test_weights_are_shares_by_variant() -> None:
    backends = [{"name": "llama-small-l4", "weight": 750_000}, {"name": "llama-medium-a100", "weight": 250_000}]
    route = {"spec": {"rules": [{"backendRefs": backends}]}}
    assert route_weights(route, VARIANTS) == {"small-l4": 0.75, "medium-a100": 0.25}
    assert route_weights({"spec": {"rules": [{"backendRefs": [{"name": "x", "weight": 0}]}]}}, VARIANTS) == {}


def test_pods_are_found_by_their_deployments_selector() -> None:
    deployments = [
        {"metadata": {"name": "vllm-8b"}, "spec": {"selector": {"matchLabels": {"app": "vllm-8b"}}}},
        {"metadata": {"name": "other"}, "spec": {"selector": {"matchLabels": {"app": "other"}}}},
    ]
    pods = [pod("a", {"app": "vllm-8b", "more": "x"}), pod("b", {"app": "other"}), pod("c", {})]
    found = pod_variants(pods, deployments, VARIANTS)
    assert {name: [item["metadata"]["uid"] for item in items] for name, items in found.items()} == {
        "medium-a100": ["a"]
    }


def test_replicas_are_counted_by_what_they_do() -> None:
    pods = [pod("a", {}, ready=True), pod("b", {}), pod("c", {}, ready=True, leaving=True)]
    assert count_replicas(2, pods) == Replicas(desired=2, ready=1, starting=1, terminating=1)


def test_a_pods_life_is_followed_from_its_node_to_its_end() -> None:
    lives = follow_pods({}, {"small-l4": [pod("a", {}, node=None)]}, 1.0)
    assert lives == {}  # not scheduled: it holds no GPU yet
    for at_seconds, view in (
        (2.0, [pod("a", {})]),
        (3.0, [pod("a", {}, ready=True)]),
        (4.0, [pod("a", {}, ready=True)]),
        (5.0, [pod("a", {}, ready=True, leaving=True)]),
        (6.0, []),
        (7.0, []),
    ):
        lives = follow_pods(lives, {"small-l4": view}, at_seconds)
    life = lives["a"]
    assert (life.started_at_seconds, life.ready_at_seconds) == (2.0, 3.0)
    assert (life.terminating_at_seconds, life.gone_at_seconds) == (5.0, 6.0)


def test_a_pods_silence_is_followed_whether_it_is_ready_or_not() -> None:
    silent, serving = {"wattzoo.dev/serving": "false"}, {"wattzoo.dev/serving": "true"}
    lives = follow_pods({}, {"small-l4": [pod("a", serving), pod("b", {})]}, 1.0)
    lives = follow_pods(lives, {"small-l4": [pod("a", silent), pod("b", {}, ready=True)]}, 2.0)
    lives = follow_pods(lives, {"small-l4": [pod("a", silent, ready=True), pod("b", {}, ready=True)]}, 3.0)
    lives = follow_pods(lives, {"small-l4": [pod("a", serving, ready=True)]}, 4.0)
    assert lives["a"].serving_steps == ((1.0, True), (2.0, False), (4.0, True))
    assert lives["b"].serving_steps == ((1.0, True),)  # an adopted pod has no such label and takes its traffic


def test_satisfied_shares_add_members_and_unknown_stays_unknown() -> None:
    def row(member: str, outcome: str, count: str) -> dict[str, Any]:
        return {"metric": {"service": "chat", "member": member, "outcome": outcome}, "value": [0, count]}

    rows = [row("small", "satisfied", "1"), row("large", "satisfied", "2"), row("small", "unsatisfied", "1")]
    assert achieved_shares(rows) == {"chat": 0.75}
    assert achieved_shares([row("small", "satisfied", "0")]) == {"chat": None}


def test_energy_is_in_joules_and_a_foreign_pod_owns_nothing_of_ours() -> None:
    def series(**labels: str) -> dict[str, Any]:
        return {"metric": {"UUID": "g", **labels}, "values": [[100.0, "5000"]]}

    rows = energy_samples(
        [series(namespace="demo", pod="p"), series(namespace="else", pod="q"), series()], "demo", origin=90.0
    )
    assert [(row.pod, row.at_seconds, row.joules) for row in rows] == [
        ("p", 10.0, 5.0),
        (None, 10.0, 5.0),
        (None, 10.0, 5.0),
    ]


class TestLatencyCounts:
    @staticmethod
    def series(name: str, le: str, *values: tuple[float, str]) -> dict[str, Any]:
        return {
            "metric": {"__name__": f"vllm:{name}_bucket", "pod": "p", "le": le},
            "values": [list(v) for v in values],
        }

    def test_the_bounds_own_buckets_are_read_however_they_are_written(self) -> None:
        rows = latency_counts(
            [
                self.series("time_to_first_token_seconds", "2.0", (10.0, "9")),
                self.series("time_to_first_token_seconds", "+Inf", (10.0, "10")),
                self.series("request_time_per_output_token_seconds", "0.06", (10.0, "7"), (12.0, "8")),
                self.series("request_time_per_output_token_seconds", "+Inf", (10.0, "8")),
            ],
            2.0,
            0.06,
            origin=0.0,
        )
        (row,) = rows  # the second scrape is incomplete and left out
        assert (row.ttft_within, row.ttft_total, row.tpot_within, row.tpot_total) == (9.0, 10.0, 7.0, 8.0)

    def test_a_bound_without_a_bucket_is_refused(self) -> None:
        with pytest.raises(ValueError, match="buckets at 3"):
            latency_counts([self.series("time_to_first_token_seconds", "2.0", (10.0, "9"))], 3.0, math.pi, origin=0.0)


def test_a_decision_is_its_reason_and_message() -> None:
    service = {"status": {"decision": {"reason": "RepayingDebt", "message": "12 satisfied requests are owed"}}}
    assert decision_line(service) == "RepayingDebt: 12 satisfied requests are owed"
    assert decision_line({}) == ""
