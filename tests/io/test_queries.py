"""PromQL for the whole fleet, and what of an answer becomes a series."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo.model import Sample, Series, TelemetryNeeds
from wattzoo.observe.profile import GROUPS, load_profile
from wattzoo.observe.queries import (
    MAX_QUERIES,
    any_of,
    parse_feedback,
    parse_group,
    plan_queries,
    quote,
    valid_feedback,
)
from wattzoo.settings import SettingsError

NEEDS = TelemetryNeeds(frozenset({("feedback_total", "a"), ("other_total", "b")}), 45.0)


def test_one_query_per_group_whatever_the_fleets_size() -> None:
    many = TelemetryNeeds(frozenset((f"m{i}_total", f"ns{i}") for i in range(500)), 45.0)
    for needs in (NEEDS, many):
        queries = plan_queries(load_profile(None), needs)
        assert {query.group for query in queries} == GROUPS | {"feedback"}
        assert len(queries) + 1 <= MAX_QUERIES
        assert all(query.promql.endswith("}[45s]") for query in queries)


def test_the_text_of_the_queries() -> None:
    by_group = {q.group: q.promql for q in plan_queries(load_profile(None), NEEDS, ["a", "b.c"])}
    assert by_group["feedback"] == '{__name__=~"feedback_total|other_total",namespace=~"a|b"}[45s]'
    assert by_group["gpu_power"] == '{__name__=~"DCGM_FI_DEV_POWER_USAGE"}[45s]'
    engines = '{__name__=~"vllm:generation_tokens_total|vllm:prompt_tokens_total|vllm:request_success_total"'
    assert by_group["engine_counters"] == engines + ',pod=~".+",namespace=~"a|b\\\\.c"}[45s]'


def test_a_tenants_metric_name_is_in_the_grammar_or_not_asked_for() -> None:
    bad = ['x"} or up{a="', "a b", "", "1a", "a\nb", "x{}", "a-b", "a\n"]
    needs = TelemetryNeeds(frozenset((name, "ns") for name in [*bad, "ok:total"]))
    assert valid_feedback(needs) == {("ok:total", "ns")}
    assert "feedback" not in {
        q.group for q in plan_queries(load_profile(None), TelemetryNeeds(frozenset({("a b", "ns")})))
    }


@given(st.text(max_size=20))
def test_quoted_text_cannot_leave_its_string(text: str) -> None:
    quoted = quote(text)
    inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
    assert '"' not in inner
    assert "\n" not in quoted


def test_alternatives_match_themselves_only() -> None:
    assert any_of(["b", "a.c", "a.c"]) == "a\\.c|b"


def entry(name: str, values: list[Any], **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": name, **labels}, "values": values}


def test_series_come_under_canonical_names_in_our_units() -> None:
    group = load_profile(None)["gpu_energy"]
    raw = [entry("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", [[10, "2000"], [12.5, "5000"]], UUID="u")]
    assert parse_group(group, raw) == (Series("energy_joules", {"UUID": "u"}, (Sample(2.0, 10.0), Sample(5.0, 12.5))),)


def test_the_preferred_of_two_names_wins_and_unknown_names_do_not_enter() -> None:
    group = load_profile(None)["engine_gauges"]
    old, new = "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"
    for order in ((old, new), (new, old)):
        raw = [entry(name, [[1, "0.1" if name == old else "0.2"]], pod="p") for name in order]
        series = parse_group(group, [*raw, entry("up", [[1, "1"]])])
        assert series == (Series("kv_cache_usage", {"pod": "p"}, (Sample(0.2, 1.0),)),)


def test_the_exported_pod_is_the_one_that_owns_the_gpu() -> None:
    group = load_profile(None)["gpu_power"]
    labels = {"pod": "dcgm-exporter", "namespace": "gpu", "exported_pod": "vllm", "exported_namespace": "team"}
    (series,) = parse_group(group, [entry("DCGM_FI_DEV_POWER_USAGE", [[1, "300"]], hostname="h", **labels)])
    assert series.labels == {"pod": "vllm", "namespace": "team", "Hostname": "h"}
    (idle,) = parse_group(group, [entry("DCGM_FI_DEV_POWER_USAGE", [[1, "30"]], Hostname="h", exported_pod="")])
    assert "pod" not in idle.labels


def test_absurd_samples_are_kept_for_who_estimates() -> None:
    group = load_profile(None)["gpu_power"]
    raw = [entry("DCGM_FI_DEV_POWER_USAGE", [[1, "NaN"], [2, "+Inf"], [3, "-1"]], UUID="u")]
    values = [sample.value for sample in parse_group(group, raw)[0].samples]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -1.0]


def test_feedback_of_other_pairs_does_not_enter() -> None:
    raw = [entry("feedback_total", [[1, "3"]], namespace=n, member="m") for n in ("a", "b")]
    (series,) = parse_feedback(NEEDS.feedback_metrics, raw)
    assert (series.name, series.labels) == (
        "feedback_total",
        {"__name__": "feedback_total", "namespace": "a", "member": "m"},
    )


@pytest.mark.parametrize(
    "text",
    [
        "nonsense: {signals: {power_watts: {names: [x]}}}",
        "gpu_power: {signals: {power_watts: {names: ['x\"}']}}}",
        "gpu_power: {signals: {volts: {names: [x]}}}",
        "gpu_power: {signals: {power_watts: {names: [x], scale: 0}}}",
        "gpu_power: {signals: {power_watts: {names: [x]}}, matchers: {a: '('}}",
        "gpu_power: {signals: {power_watts: {names: [x]}}, labels: {'a-b': [c]}}",
        "[",
    ],
)
def test_a_profile_that_cannot_work_is_refused_with_the_options_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="--metrics-profile"):
        load_profile(path)


def test_a_profile_replaces_only_the_groups_it_names(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("gpu_power: {signals: {power_watts: {names: [watts], scale: 0.001}}}")
    own, shipped = load_profile(path), load_profile(None)
    assert own["gpu_power"].signals != shipped["gpu_power"].signals
    assert own["gateway"] == shipped["gateway"]
    with pytest.raises(SettingsError):
        load_profile(tmp_path / "missing.yaml")
