from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from e2e.emulator.answers import (
    BadRequestError,
    Reply,
    parse_question,
    render_answer,
    render_chunk,
    render_usage,
)
from e2e.emulator.faults import FaultError, Faults
from e2e.emulator.lag import LagHistogram
from e2e.emulator.stats import Attainment, LatencyBounds
from e2e.emulator.vllm_metrics import render_vllm_metrics
from e2e.load.client import RequestRecord
from e2e.load.recorder import Recorder
from wattzoo_policies.sim.metrics import ReplicaMetrics
from wattzoo_policies.sim.request import EventKind, PlantEvent, PlantRequest

REPLY = Reply("chatcmpl-1", 1, "chat", 12, 5, "stop")


def test_a_metrics_page_parses_and_has_the_bounds_that_promises_are_counted_at() -> None:
    metrics = ReplicaMetrics(prompt_tokens=300, generation_tokens=40, requests_completed=2, requests_cut=1)
    for ttft in (0.5, 1.5):
        metrics.ttft.add(ttft)
    metrics.tpot.add(0.055)
    page = render_vllm_metrics("chat", metrics, running=3, waiting=1, kv_usage=0.25)
    samples = {
        (sample.name, sample.labels.get("le") or sample.labels.get("finished_reason")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels["model_name"] == "chat"
    }
    assert samples["vllm:num_requests_running", None] == 3
    assert samples["vllm:num_requests_waiting", None] == 1
    assert samples["vllm:kv_cache_usage_perc", None] == 0.25
    assert samples["vllm:prompt_tokens_total", None] == 300
    assert samples["vllm:generation_tokens_total", None] == 40
    assert samples["vllm:request_success_total", "stop"] == 2
    assert samples["vllm:time_to_first_token_seconds_bucket", "1.0"] == 1
    assert samples["vllm:time_to_first_token_seconds_bucket", "2.0"] == 2
    assert samples["vllm:time_to_first_token_seconds_bucket", "+Inf"] == 2
    assert samples["vllm:time_to_first_token_seconds_sum", None] == 2.0
    assert samples["vllm:request_time_per_output_token_seconds_bucket", "0.06"] == 1
    assert samples["vllm:inter_token_latency_seconds_count", None] == 0
    assert samples["vllm:e2e_request_latency_seconds_count", None] == 0


def test_questions_are_read_as_a_real_server_reads_them() -> None:
    chat = parse_question(
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,'
        b'"stream_options":{"include_usage":true},"max_tokens":7,"request_id":"q1"}',
        chat=True,
    )
    assert (chat.model, chat.stream, chat.include_usage, chat.max_tokens, chat.request_id) == ("m", True, True, 7, "q1")
    plain = parse_question(b'{"model":"m","prompt":"once upon"}', chat=False)
    assert (plain.stream, plain.include_usage, plain.max_tokens, plain.request_id) == (False, False, None, None)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"messages":[1]}', b'{"model":"m"}', b'{"model":"m","prompt":"x"}'],
)
def test_bodies_that_a_real_server_refuses(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_question(body, chat=True)


@pytest.mark.parametrize("field", ['"max_tokens":0', '"max_tokens":"3"', '"request_id":5'])
def test_fields_that_a_real_server_refuses(field: str) -> None:
    with pytest.raises(BadRequestError):
        parse_question(f'{{"model":"m","prompt":"x",{field}}}'.encode(), chat=False)


def words(choice: dict[str, Any], chat: bool) -> str:
    return str((choice.get("delta") or choice["message"])["content"] if chat else choice["text"])


@pytest.mark.parametrize("chat", [True, False])
def test_a_stream_carries_the_same_words_as_the_whole_answer(chat: bool) -> None:
    whole = json.loads(render_answer(REPLY, chat=chat))
    chunks = [render_chunk(REPLY, 2, chat=chat, last=False), render_chunk(REPLY, 3, chat=chat, last=True)]
    events = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    text = "".join(words(event["choices"][0], chat) for event in events)
    assert text == words(whole["choices"][0], chat) == " emulated" * 5
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, "stop"]
    usage = json.loads(render_usage(REPLY, chat=chat).removeprefix(b"data: "))
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}


def test_a_run_is_invalid_when_more_than_one_in_a_hundred_events_came_late() -> None:
    lag = LagHistogram()
    verdicts = [lag.valid]
    for seconds, times in ((0.002, 985), (0.4, 15), (0.002, 1000)):
        for _ in range(times):
            lag.add(seconds)
        verdicts.append(lag.valid)
    assert verdicts == [True, True, False, True]  # none, none late, 15 of 1,000 late, 15 of 2,000 late


@given(st.lists(st.floats(0.0, 8.0), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_lag_quantile_lies_in_the_bucket_of_the_exact_one(lags: list[float], q: float) -> None:
    histogram = LagHistogram()
    for lag in lags:
        histogram.add(lag)
    exact = sorted(lags)[max(0, -int(-q * len(lags) // 1) - 1)]
    estimate = histogram.quantile_seconds(q)
    assert estimate is not None
    assert estimate <= max(lags)
    bounds = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0, 2.0, 5.0)
    low = max((bound for bound in bounds if bound < exact), default=0.0)
    high = min((bound for bound in bounds[1:] if bound >= exact), default=8.0)  # a lag of 0 is in the first bucket
    assert low <= estimate <= high
    text = "\n".join([*histogram.render("lag_seconds"), ""])
    (family,) = text_string_to_metric_families(text)
    assert {sample.value for sample in family.samples if sample.name == "lag_seconds_count"} == {len(lags)}


def test_attainment_counts_each_bound_for_itself() -> None:
    rows = Attainment()
    request = PlantRequest("q", 100, 11)
    for first, end in ((1.0, 1.5), (3.0, 3.5), (1.0, 2.0)):  # .05, .05 and .1 s a token
        event = PlantEvent(EventKind.COMPLETED, 1, request, end, 0.0, first)
        rows.add(event, LatencyBounds(2.0, 0.06), satisfied=True)
    single = PlantEvent(EventKind.COMPLETED, 1, PlantRequest("q", 100, 1), 1.0, 0.0, 1.0)
    rows.add(single, LatencyBounds(2.0, 0.06), satisfied=False)
    assert (rows.requests, rows.ttft_kept, rows.tpot_kept, rows.satisfied) == (4, 3, 3, 3)


def test_faults_are_set_by_name_and_refused_otherwise() -> None:
    faults = Faults()
    assert faults.apply({"freeze_loading": ["a", "b"], "hide_power": True})["freeze_loading"] == ["a", "b"]
    assert faults.apply({"freeze_loading": None})["hide_power"] is True
    for wish in ({"frieze_loading": "a"}, {"hide_power": "yes"}, {"freeze_loading": 3}, {"apply": True}):
        with pytest.raises(FaultError):
            faults.apply(wish)


def make_record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "index": 0,
        "t_scheduled": 1.0,
        "t_sent": 1.002,
        "namespace": "demo",
        "service": "chat",
        "request_id": "q",
        "streaming": False,
        "member": "small",
        "code": "200",
        "satisfied": True,
        "feedback": True,
        "latency_seconds": 2.0,
        "first_token_seconds": None,
        "output_tokens": 5,
    }
    return RequestRecord(**(values | changes))


def feedback(recorder: Recorder, outcome: str) -> float | None:
    labels = {"namespace": "demo", "service": "chat", "member": "small", "outcome": outcome}
    return recorder.registry.get_sample_value("wattzoo_feedback_total", labels)


def test_the_recorder_reports_feedback_only_where_it_was_given() -> None:
    lines = io.StringIO()
    recorder = Recorder(lines)
    recorder.add(make_record())
    recorder.add(make_record(satisfied=False))
    recorder.add(make_record(feedback=False))
    recorder.add(make_record(code="503", satisfied=None, error="no healthy upstream"))
    recorder.hide_feedback = True
    recorder.add(make_record())
    assert (feedback(recorder, "satisfied"), feedback(recorder, "unsatisfied")) == (1, 1)
    summary = recorder.summary()
    assert (summary["sent"], summary["failed"]) == (5, 1)
    assert summary["satisfied"] == {"demo/chat": {"yes": 3, "no": 1}}
    assert summary["late_p99_ms"] == pytest.approx(2.0)
    codes = {"namespace": "demo", "service": "chat", "code": "503"}
    assert recorder.registry.get_sample_value("load_requests_total", codes) == 1
    assert [json.loads(line)["code"] for line in lines.getvalue().splitlines()].count("503") == 1
