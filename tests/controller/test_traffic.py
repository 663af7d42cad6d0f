"""Who was sent what, and who was satisfied: gateway counters by index, feedback counters by label."""

from __future__ import annotations

from tests.builders import NAMESPACE, START_SECONDS, make_feedback, make_gateway_counter, make_silence, make_telemetry
from wattzoo.api.conditions import ConditionType, Reason
from wattzoo.api.llm_service import ParentRef, PrometheusFeedback
from wattzoo.decide.traffic import estimate_outcomes, estimate_service_load
from wattzoo.decisions import ServiceLoad
from wattzoo.model import Manifest, Ref, VariantKey
from wattzoo.status.traffic import find_disagreement, judge_traffic

CHAT = Ref(NAMESPACE, "chat")
SMALL, LARGE = VariantKey("small", "l4"), VariantKey("large", "h100")
AT = START_SECONDS + 100.0
FEEDBACK = PrometheusFeedback(match_labels={"service": "chat"})


def test_rates_follow_the_index_of_the_backend() -> None:
    counters = [make_gateway_counter("chat", 0, AT, 1.0), make_gateway_counter("chat", 1, AT, 3.0)]
    counters.append(make_gateway_counter("other", 0, AT, 50.0))
    load = estimate_service_load(make_telemetry(AT, {"gateway": counters}), CHAT, (SMALL, LARGE), None, 120.0)
    assert load.by_variant_rps == {SMALL: 1.0, LARGE: 3.0}
    assert load.total_rps == 4.0
    assert load.counted == {SMALL: 45.0, LARGE: 135.0}


def test_several_gateways_are_added() -> None:
    counters = [make_gateway_counter("chat", 0, AT, 1.0), make_gateway_counter("chat", 0, AT, 2.0)]
    load = estimate_service_load(make_telemetry(AT, {"gateway": counters}), CHAT, (SMALL,), None, 120.0)
    assert load.total_rps == 3.0


def test_a_change_of_order_is_a_reset() -> None:
    telemetry = make_telemetry(AT, {"gateway": [make_gateway_counter("chat", 0, AT, 1.0)]})
    assert estimate_service_load(telemetry, CHAT, (LARGE,), AT - 3.0, 120.0).total_rps is None
    assert estimate_service_load(telemetry, CHAT, (LARGE,), AT - 20.0, 120.0).total_rps == 1.0


def test_no_counters_are_unknown_and_not_zero() -> None:
    assert estimate_service_load(make_telemetry(AT), CHAT, (SMALL,), None, 120.0).total_rps is None
    unread = estimate_service_load(make_silence(AT, "refused"), CHAT, (SMALL,), None, 120.0)
    assert (unread.total_rps, unread.problem) == (None, "refused")


def test_feedback_counts_only_the_objects_namespace_and_labels() -> None:
    series = [*make_feedback("chat", "small", AT, 8.0, 2.0), *make_feedback("search", "small", AT, 99.0, 1.0)]
    foreign = [
        type(s)(s.name, {**s.labels, "namespace": "team-b"}, s.samples)
        for s in make_feedback("chat", "small", AT, 500.0, 500.0)
    ]
    telemetry = make_telemetry(AT, {"feedback": [*series, *foreign]})
    outcomes, problem = estimate_outcomes(telemetry, NAMESPACE, FEEDBACK, 120.0)
    assert problem is None
    assert outcomes is not None
    assert sorted((o.satisfied, o.count) for o in outcomes) == [(False, 2.0), (True, 8.0)]


def test_old_or_impossible_feedback_is_no_feedback() -> None:
    old = make_telemetry(AT + 500.0, {"feedback": make_feedback("chat", "small", AT, 8.0, 2.0)})
    outcomes, problem = estimate_outcomes(old, NAMESPACE, FEEDBACK, 120.0)
    assert outcomes is None
    assert problem is not None
    assert problem.reason is Reason.STALE_SAMPLES
    bad = make_telemetry(AT, {"feedback": make_feedback("chat", "small", AT, float("nan"), 2.0)})
    outcomes, problem = estimate_outcomes(bad, NAMESPACE, FEEDBACK, 120.0)
    assert outcomes is None
    assert problem is not None
    assert problem.reason is Reason.NON_FINITE_SAMPLE


def test_shares_agree_within_four_deviations() -> None:
    weights = {SMALL: 100_000, LARGE: 900_000}
    # of 1000 requests 100 are expected; a deviation is sqrt(1000 * .1 * .9) = 9.5, so 139 is allowed and 140 is not
    assert find_disagreement(weights, {SMALL: 138.0, LARGE: 862.0}) is None
    assert find_disagreement(weights, {SMALL: 141.0, LARGE: 859.0}) is not None
    assert find_disagreement({SMALL: 0, LARGE: 1_000_000}, {SMALL: 5.0, LARGE: 995.0}) is not None


def make_route(accepted: str = "True", resolved: str = "True", generation: int = 2) -> Manifest:
    rows = [
        {"type": "Accepted", "status": accepted, "reason": "Why", "message": "words", "observedGeneration": generation},
        {"type": "ResolvedRefs", "status": resolved, "reason": "Why", "message": "w", "observedGeneration": generation},
    ]
    parents = [
        {"parentRef": {"name": "foreign"}, "conditions": []},
        {"parentRef": {"name": "gw", "namespace": "gateways", "sectionName": "http"}, "conditions": rows},
    ]
    return {"metadata": {"name": "chat", "namespace": NAMESPACE, "generation": 2}, "status": {"parents": parents}}


def judge(route: Manifest | None, load: ServiceLoad) -> tuple[str, str]:
    parents = [ParentRef(name="gw", namespace="gateways", section_name="http")]
    judged = judge_traffic(route, parents, {SMALL: 500_000, LARGE: 500_000}, load)
    assert judged.type is ConditionType.TRAFFIC_PROGRAMMED
    return judged.status, judged.reason


def test_programmed_needs_our_parent_the_present_generation_and_agreeing_shares() -> None:
    even = ServiceLoad(total_rps=4.0, counted={SMALL: 100.0, LARGE: 100.0})
    assert judge(make_route(), even) == ("True", "SharesAgree")
    assert judge(make_route(generation=1), even) == ("Unknown", "RoutePending")
    assert judge(make_route(accepted="False"), even) == ("False", "RouteNotAccepted")
    assert judge(make_route(resolved="False"), even) == ("False", "RefsNotResolved")
    assert judge(None, even) == ("Unknown", "RoutePending")
    skewed = ServiceLoad(total_rps=4.0, counted={SMALL: 180.0, LARGE: 20.0})
    assert judge(make_route(), skewed) == ("False", "SharesDisagree")
    assert judge(make_route(), ServiceLoad(problem="none")) == ("Unknown", "NoGatewayCounters")
