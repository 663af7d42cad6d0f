"""The /metrics page of one emulated server, in Prometheus' text format and under vLLM's names.

Written by hand: a page is built from the plant's own counters at each scrape, several a second, and needs no registry.
"""

from __future__ import annotations

from wattzoo_policies.sim.metrics import Histogram, ReplicaMetrics


def render_vllm_metrics(model_name: str, metrics: ReplicaMetrics, running: int, waiting: int, kv_usage: float) -> str:
    """Return the page; `kv_usage` is the share of the KV cache in use (0..1)."""
    label = f'model_name="{model_name}"'
    lines: list[str] = []
    for name, gauge in (("num_requests_running", running), ("num_requests_waiting", waiting)):
        lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{label}}} {gauge}"]
    lines += ["# TYPE vllm:kv_cache_usage_perc gauge", f"vllm:kv_cache_usage_perc{{{label}}} {kv_usage:.6f}"]
    for name, count in (
        ("prompt_tokens", metrics.prompt_tokens),
        ("generation_tokens", metrics.generation_tokens),
    ):
        lines += [f"# TYPE vllm:{name}_total counter", f"vllm:{name}_total{{{label}}} {count}"]
    lines.append("# TYPE vllm:request_success_total counter")
    for reason, count in (("stop", metrics.requests_completed), ("abort", metrics.requests_cut)):
        lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}')
    for name, histogram in (
        ("time_to_first_token_seconds", metrics.ttft),
        ("inter_token_latency_seconds", metrics.inter_token),
        ("request_time_per_output_token_seconds", metrics.tpot),
        ("e2e_request_latency_seconds", metrics.e2e),
    ):
        lines += render_histogram(f"vllm:{name}", label, histogram)
    lines.append("")
    return "\n".join(lines)


def render_histogram(name: str, label: str, histogram: Histogram) -> list[str]:
    """Return a histogram's lines."""
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{{label},le="{bound}"}} {total}' for bound, total in histogram.cumulative()]
    count = histogram.count
    return [
        *lines,
        f'{name}_bucket{{{label},le="+Inf"}} {count}',
        f"{name}_sum{{{label}}} {histogram.sum:.6f}",
        f"{name}_count{{{label}}} {count}",
    ]
