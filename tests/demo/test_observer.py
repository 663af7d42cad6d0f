from __future__ import annotations

import re
from typing import Any

import requests

from e2e.demo.observer import Prometheus, RunObserver, bucket_patterns
from e2e.demo.recording import Replicas

POOL = {
    "metadata": {"name": "llama"},
    "spec": {"members": [{"name": "small", "variants": [{"name": "l4", "server": {}}]}]},
}
SERVICE = {
    "metadata": {"name": "chat"},
    "status": {
        "energy": {"joulesPerRequest": "12.5"},
        "decision": {"reason": "HoldingTarget", "message": "why"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
ROUTE = {
    "metadata": {"name": "chat"},
    "spec": {"rules": [{"backendRefs": [{"name": "llama-small-l4", "weight": 1_000_000}]}]},
}
LABELS = {"app": "x"}
DEPLOYMENT = {"metadata": {"name": "llama-small-l4"}, "spec": {"replicas": 2, "selector": {"matchLabels": LABELS}}}
POD = {"metadata": {"uid": "u", "name": "p", "labels": LABELS}, "spec": {"nodeName": "n"}, "status": {}}


class FakeApi:
    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "modelpools/llama": POOL,
            "llmservices": {"items": [SERVICE]},
            "httproutes": {"items": [ROUTE, {"metadata": {"name": "foreign"}, "spec": {"rules": [{}]}}]},
            "deployments": {"items": [DEPLOYMENT]},
            "pods": {"items": [POD]},
        }

    def get(self, path: str) -> Any | None:
        return next(answer for end, answer in self.answers.items() if path.endswith(end))


class FakePrometheus(Prometheus):
    def __init__(self, *, reachable: bool = True) -> None:
        super().__init__("http://nowhere")
        self.reachable = reachable

    def query(self, expression: str, at_unix_seconds: float | None = None) -> list[dict[str, Any]]:
        if not self.reachable:
            raise requests.ConnectionError("refused")
        value = "500" if "POWER" in expression else "4"
        return [{"metric": {"service": "chat", "outcome": "satisfied"}, "value": [0, value]}]


def test_a_look_joins_what_both_sources_say() -> None:
    observer = RunObserver(FakeApi(), FakePrometheus(), "demo", "llama", origin=100.0)
    moment = observer.look(103.0, figures=True)
    assert moment is not None
    assert moment.at_seconds == 3.0
    assert moment.weights == {"chat": {"small-l4": 1.0}}
    assert moment.replicas == {"small-l4": Replicas(desired=2, ready=0, starting=1)}
    assert (moment.power_watts, moment.request_rps, moment.achieved) == (500.0, 4.0, {"chat": 1.0})
    assert (moment.joules_per_request, moment.decisions) == ({"chat": 12.5}, {"chat": "HoldingTarget: why"})
    assert moment.ready == {"chat": True}
    assert observer.lives["u"].started_at_seconds == 3.0


def test_without_the_api_server_there_is_no_moment() -> None:
    api = FakeApi()
    api.answers["pods"] = None
    assert RunObserver(api, FakePrometheus(), "demo", "llama", 0.0).look(1.0, figures=False) is None


def test_without_prometheus_figures_are_unknown_not_zero() -> None:
    moment = RunObserver(FakeApi(), FakePrometheus(reachable=False), "demo", "llama", 0.0).look(1.0, figures=True)
    assert moment is not None
    assert (moment.power_watts, moment.request_rps, moment.achieved) == (None, None, {"chat": None})


def test_bucket_bounds_are_matched_however_they_are_written() -> None:
    pattern = "|".join(bucket_patterns(2.0, 0.06)).replace("\\\\", "\\")
    assert all(re.fullmatch(pattern, bound) for bound in ("2", "2.0", "0.06", "+Inf"))
    assert not any(re.fullmatch(pattern, bound) for bound in ("20", "0.6", "12.0", "Inf"))
