"""Watches a run from outside as a user could: the API server and Prometheus, nothing of the operator's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import requests

from e2e.demo.recording import EnergySample, LatencyCount, Moment, PodLife
from e2e.demo.views import (
    VariantView,
    achieved_shares,
    condition,
    count_replicas,
    decision_line,
    energy_samples,
    follow_pods,
    latency_counts,
    list_variants,
    pod_variants,
    route_weights,
    scalar,
)

TIMEOUT_SECONDS = 10.0


class Getter(Protocol):
    """Reads one path of the API server; None when it is not there or the server does not answer."""

    def get(self, path: str) -> Any | None: ...


class Prometheus:
    """Instant queries, with a raw range where the query ends in one."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") + "/api/v1/query"
        self.session = requests.Session()

    def query(self, expression: str, at_unix_seconds: float | None = None) -> list[dict[str, Any]]:
        """Return the series of the answer; raises when Prometheus refuses or cannot be reached."""
        form = {"query": expression} | ({} if at_unix_seconds is None else {"time": f"{at_unix_seconds:.3f}"})
        response = self.session.post(self.url, data=form, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        result: list[dict[str, Any]] = response.json()["data"]["result"]
        return result


class RunObserver:
    """Looks again and again; `origin` is the Unix time of the recording's second 0."""

    def __init__(self, api: Getter, prometheus: Prometheus, namespace: str, pool: str, origin: float) -> None:
        self.api = api
        self.prometheus = prometheus
        self.namespace = namespace
        self.pool = pool
        self.origin = origin
        self.lives: dict[str, PodLife] = {}
        self.figures: dict[str, Any] = {"power": None, "rps": None, "achieved": {}}

    def look(self, at_unix_seconds: float, *, figures: bool) -> Moment | None:
        """Return what is true now, None when the API server did not answer; `figures`: ask Prometheus too."""
        root = f"/namespaces/{self.namespace}"
        ours = f"/apis/wattzoo.dev/v1alpha1{root}"
        pool = self.api.get(f"{ours}/modelpools/{self.pool}")
        services = self.api.get(f"{ours}/llmservices")
        routes = self.api.get(f"/apis/gateway.networking.k8s.io/v1{root}/httproutes")
        deployments = self.api.get(f"/apis/apps/v1{root}/deployments")
        pods = self.api.get(f"/api/v1{root}/pods")
        if not (pool and services and routes and deployments and pods):
            return None
        variants = list_variants(pool)
        by_variant = pod_variants(pods["items"], deployments["items"], variants)
        at_seconds = at_unix_seconds - self.origin
        self.lives = follow_pods(self.lives, by_variant, at_seconds)
        if figures:
            self._ask_figures()
        return self._moment(at_seconds, variants, services["items"], routes["items"], deployments["items"], by_variant)

    def _moment(
        self,
        at_seconds: float,
        variants: tuple[VariantView, ...],
        services: list[dict[str, Any]],
        routes: list[dict[str, Any]],
        deployments: list[dict[str, Any]],
        pods: Mapping[str, list[Any]],
    ) -> Moment:
        desired = {item["metadata"]["name"]: item["spec"].get("replicas", 1) for item in deployments}
        by_name = {item["metadata"]["name"]: item for item in services}
        joules = {
            name: item.get("status", {}).get("energy", {}).get("joulesPerRequest") for name, item in by_name.items()
        }
        return Moment(
            at_seconds=at_seconds,
            weights={
                route["metadata"]["name"]: route_weights(route, variants)
                for route in routes
                if route["metadata"]["name"] in by_name
            },
            replicas={
                variant.name: count_replicas(desired.get(variant.deployment, 0), pods.get(variant.name, []))
                for variant in variants
            },
            power_watts=self.figures["power"],
            achieved={name: self.figures["achieved"].get(name) for name in by_name},
            joules_per_request={name: None if value is None else float(value) for name, value in joules.items()},
            request_rps=self.figures["rps"],
            decisions={name: decision_line(item) for name, item in by_name.items()},
            ready={name: condition(item, "Ready").get("status") == "True" for name, item in by_name.items()},
        )

    def _ask_figures(self) -> None:
        """Refresh what Prometheus knows; unreachable means unknown, and the run goes on."""
        ours = f'namespace="{self.namespace}"'
        try:
            power = scalar(self.prometheus.query(f'sum(DCGM_FI_DEV_POWER_USAGE{{{ours},pod!=""}})'))
            rps = scalar(self.prometheus.query(f"sum(rate(load_requests_total{{{ours}}}[10s]))"))
            achieved = achieved_shares(self.prometheus.query(f"wattzoo_feedback_total{{{ours}}}"))
        except (requests.RequestException, KeyError, ValueError):
            self.figures = {"power": None, "rps": None, "achieved": {}}
        else:
            self.figures = {"power": power, "rps": rps, "achieved": achieved}

    def energy(self, from_unix_seconds: float, to_unix_seconds: float) -> tuple[EnergySample, ...]:
        """Return every scrape of the GPUs' energy counters in a window."""
        window = f"[{int(to_unix_seconds - from_unix_seconds) + 1}s]"
        owned = f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{namespace="{self.namespace}",pod!=""}}'
        gpus = sorted({row["metric"]["UUID"] for row in self.prometheus.query(owned + window, to_unix_seconds)})
        if not gpus:
            return ()
        selector = f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{UUID=~"{"|".join(gpus)}"}}{window}'
        return tuple(energy_samples(self.prometheus.query(selector, to_unix_seconds), self.namespace, self.origin))

    def latency(
        self, from_unix_seconds: float, to_unix_seconds: float, ttft_bound: float, tpot_bound: float
    ) -> tuple[LatencyCount, ...]:
        """Return every scrape of the engines' latency histograms in a window."""
        window = f"[{int(to_unix_seconds - from_unix_seconds) + 1}s]"
        names = "vllm:(time_to_first_token|request_time_per_output_token)_seconds_bucket"
        bounds = "|".join(bucket_patterns(ttft_bound, tpot_bound))
        selector = f'{{__name__=~"{names}",namespace="{self.namespace}",le=~"{bounds}"}}{window}'
        return tuple(
            latency_counts(self.prometheus.query(selector, to_unix_seconds), ttft_bound, tpot_bound, self.origin)
        )


def bucket_patterns(*bounds: float) -> list[str]:
    r"""Return how Prometheus may write these bounds in the label `le`: 2 is `2` or `2.0`."""
    return [f"{bound:g}(\\\\.0)?" for bound in bounds] + ["\\\\+Inf"]
