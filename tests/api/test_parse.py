"""From plain data to frozen models, and every way in which that can fail."""

from __future__ import annotations

import copy
import logging
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.api.cases import good_samples
from tests.api.mutations import at, paths
from wattzoo import errors
from wattzoo.api.accelerators import AcceleratorFigures
from wattzoo.api.conditions import MEANINGS, Condition, ConditionType, Reason, allows
from wattzoo.api.v1alpha1 import (
    MAX_REPLICAS,
    AcceleratorPool,
    Controller,
    ControllerState,
    Decision,
    EnergyStatus,
    LLMService,
    LLMServiceSpec,
    LLMServiceStatus,
    ModelPool,
    bounded_items,
    parse,
    parse_accelerator_pool,
    parse_llm_service,
    parse_model_pool,
    timestamp,
)
from wattzoo.errors import InvalidSpec, Problem, WattZooError
from wattzoo_policies.registry import make_policy

GOOD = good_samples()


def service(**spec: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(GOOD["llm-service-minimal"])
    manifest["spec"] |= spec
    return manifest


def test_a_parsed_service_has_snake_case_attributes_and_defaults() -> None:
    parsed = parse_llm_service(service())
    assert parsed.spec.safest_member == "large"
    assert parsed.spec.controller.interval_seconds == 15
    assert parsed.spec.controller.policy == "MESSPlusAnytime"
    assert parsed.spec.controller.policy_parameters()["delta"] == 0.05
    assert parsed.spec.members is None, "unset is not empty: all members of the pool"


def test_every_policy_of_the_api_is_made_with_the_parameters_of_its_block() -> None:
    members = [{"name": "large", "accuracyPriorPerMille": 700, "priorSamples": 10}]
    for policy in get_args(Controller.model_fields["policy"].annotation):
        controller = parse_llm_service(service(controller={"policy": policy}, members=members)).spec.controller
        assert make_policy(policy, controller.policy_parameters()).name == policy
    published = parse_llm_service(service(controller={"policy": "MESSPlus"})).spec.controller.policy_parameters()
    assert (published["v_per_joule"], published["exploration"]) == (1e-4, 0.1), "V per joule and c as published"
    written = {"policy": "PrimalDual", "primalDual": {"stepPerMille": 500, "explorationPerMille": 0}}
    assert parse_llm_service(service(controller=written)).spec.controller.policy_parameters() == {
        "step": 0.5,
        "exploration": 0.0,
    }


def test_the_error_names_object_field_value_and_rule() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_llm_service(service(safestMember="Large!") | {"metadata": {"name": "chat", "namespace": "team"}})
    error = refusal.value
    assert error.obj == "LLMService/team/chat"
    assert (error.field, error.value) == ("spec.safestMember", '"Large!"')
    assert error.rule.startswith("should match '^[a-z0-9]")
    assert str(error).startswith("LLMService/team/chat: spec.safestMember: should match")


def test_a_rule_shows_the_value_of_its_own_field() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_llm_service(service(members=[{"name": "small"}]))
    assert refusal.value.problems == (Problem("spec.safestMember", '"large"', "safestMember must be one of members"),)


def test_only_the_first_few_of_many_errors_are_listed_and_the_rest_counted() -> None:
    with pytest.raises(InvalidSpec, match=r"; and 2 more$") as refusal:
        parse_llm_service(service(**{f"x{index}": index for index in range(7)}))
    assert len(refusal.value.problems) == errors.MAX_PROBLEMS == 5


def test_an_invalid_item_does_not_also_make_its_list_too_short() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_llm_service(service(traffic={"parentRefs": [{"name": "UPPER"}]}))
    assert [problem.field for problem in refusal.value.problems] == ["spec.traffic.parentRefs[0].name"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "Zebra"}, "kind"),
        ({"apiVersion": "wattzoo.dev/v9"}, "apiVersion"),
        ({"metadata": {}}, "metadata.name"),
    ],
)
def test_what_is_none_of_ours_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse(service() | change)
    assert refusal.value.field == field


def test_a_null_is_an_absent_field_as_it_is_for_the_api_server() -> None:
    feedback = {"prometheus": {"outcomeLabel": None, "matchLabels": {"service": None, "app": "x"}}}
    parsed = parse_llm_service(service(members=None, controller=None, feedback=feedback)).spec
    assert parsed.members is None
    assert parsed.controller.interval_seconds == 15
    assert (parsed.feedback.prometheus.outcome_label, parsed.feedback.prometheus.match_labels) == (
        "outcome",
        {"app": "x"},
    )
    with pytest.raises(InvalidSpec, match=r"spec\.safestMember: Required value"):
        parse_llm_service(service(safestMember=None))


def test_the_parser_of_one_kind_refuses_another() -> None:
    with pytest.raises(InvalidSpec, match="kind: must be ModelPool"):
        parse_model_pool(service())


def test_an_unreadable_status_is_dropped_and_logged_not_fatal(caplog: pytest.LogCaptureFixture) -> None:
    manifest = service() | {"status": {"sla": {"feedbackCount": -1}}}
    with caplog.at_level(logging.WARNING):
        assert parse_llm_service(manifest).status == LLMServiceStatus()
    assert "status.sla.feedbackCount" in caplog.text


def test_a_status_of_a_newer_version_keeps_what_is_known() -> None:
    manifest = service() | {"status": {"observedGeneration": 3, "invented": {"later": 1}}}
    assert parse_llm_service(manifest).status.observed_generation == 3


def test_models_are_frozen() -> None:
    parsed = parse_llm_service(service())
    with pytest.raises(ValidationError, match="frozen"):
        parsed.spec.safest_member = "small"


def test_status_is_written_without_what_is_unknown_and_with_whole_seconds() -> None:
    status = LLMServiceStatus(
        observed_generation=2,
        energy=EnergyStatus(joules_per_request="412.5", observed_at=timestamp(1_800_000_000.9)),
        conditions=(
            Condition(
                type=ConditionType.READY,
                status="True",
                last_transition_time=timestamp(0.0),
                reason=Reason.AVAILABLE,
            ),
        ),
    )
    assert status.to_manifest() == {
        "observedGeneration": 2,
        "energy": {"joulesPerRequest": "412.5", "observedAt": "2027-01-15T08:00:00Z"},
        "members": [],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
                "reason": "Available",
                "message": "",
            }
        ],
    }
    assert LLMServiceStatus.model_validate(status.to_manifest()) == status


def test_texts_for_people_are_cut_but_state_is_not() -> None:
    assert len(Decision(message="x" * 5000).message or "") == 1024
    assert (Decision(message="x" * 5000).message or "").endswith("x…")
    with pytest.raises(ValidationError, match="8192"):
        ControllerState(policy="MESSPlus", state="x" * 16_385, observed_at=timestamp(0))
    assert bounded_items(range(20), 16) == tuple(range(16))


def test_a_float_is_no_count() -> None:
    with pytest.raises(ValidationError, match="integer"):
        EnergyStatus(power_watts=12.5)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="pattern"):
        EnergyStatus(joules_per_request="nan")


def accelerator_pool(**spec: Any) -> AcceleratorPool:
    manifest = copy.deepcopy(GOOD["accelerator-pool-minimal"])
    manifest["spec"] |= spec
    return parse_accelerator_pool(manifest)


def test_figures_come_from_the_spec_then_from_the_table_else_nowhere() -> None:
    known = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}
    assert accelerator_pool(**known).spec.figures() == AcceleratorFigures(70, 116, 700)
    own = accelerator_pool(**known, accelerator={"maxWatts": 500})
    assert own.spec.figures() == AcceleratorFigures(70, 116, 500), "a power-capped board"
    unknown = accelerator_pool(nodeSelector={"pool": "x"}, accelerator={"idleWatts": 1, "residentWatts": 2})
    assert unknown.spec.figures() is None, "max watts is unknown, not zero"


def test_a_pool_admits_the_namespaces_that_it_names_or_all() -> None:
    named = accelerator_pool(allowedNamespaces={"names": ["team-a"]}).spec
    assert named.admits("team-a")
    assert not named.admits("team-b")
    assert accelerator_pool(allowedNamespaces={"all": True}).spec.admits("team-b")


def test_unset_replica_bounds_are_none_at_all_and_the_hard_limit() -> None:
    parsed = parse(GOOD["model-pool-llama"])
    assert isinstance(parsed, ModelPool)
    bounds = {
        (m.name, v.name): (v.replica_bounds, v.accelerators, v.scalable)
        for m in parsed.spec.members
        for v in m.variants
    }
    assert bounds == {
        ("small", "l4"): ((0, 16), 1, True),
        ("medium", "a100"): ((0, 8), 1, True),
        ("medium", "existing"): ((0, MAX_REPLICAS), 1, True),
        ("medium", "outside"): ((0, MAX_REPLICAS), 1, False),
        ("large", "h100"): ((1, 8), 4, True),
    }


def test_every_condition_type_has_a_meaning_and_every_reason_a_place() -> None:
    assert set(MEANINGS) == set(ConditionType)
    assert set().union(*(reasons for _, reasons in MEANINGS.values())) == set(Reason)
    assert allows(ConditionType.PLACED, Reason.UNSCHEDULABLE)
    assert not allows(ConditionType.PAUSED, Reason.UNSCHEDULABLE)


def leaves(error: type[WattZooError]) -> list[type[WattZooError]]:
    children = error.__subclasses__()
    return [leaf for child in children for leaf in leaves(child)] if children else [error]


def test_every_leaf_of_the_error_tree_has_a_reason_that_a_condition_may_show() -> None:
    ours = [leaf for leaf in leaves(WattZooError) if leaf.__module__ == "wattzoo.errors"]
    assert {leaf.reason for leaf in ours} <= {reason.value for reason in Reason}
    assert len({leaf.reason for leaf in ours}) == len(ours) == 10


def test_invalid_spec_needs_a_problem() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        InvalidSpec("LLMService/a/b", ())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(name=st.sampled_from(sorted(GOOD)), value=json_values, data=st.data())
def test_any_value_anywhere_gives_a_model_or_a_refusal_with_a_path(name: str, value: Any, data: st.DataObject) -> None:
    manifest = copy.deepcopy(GOOD[name])
    *way, last = data.draw(st.sampled_from(paths(manifest)))
    at(manifest, tuple(way))[last] = value
    problems: tuple[Problem, ...] = ()
    try:
        parsed = parse(manifest)
    except InvalidSpec as refusal:
        problems = refusal.problems
    else:
        assert parse({**manifest, "spec": parsed.spec.to_manifest()}).spec == parsed.spec, "what is written reads back"
    assert all(problem.field and problem.rule for problem in problems)


def test_the_spec_is_what_the_builder_takes_too() -> None:
    parsed = parse_llm_service(service())
    assert isinstance(parsed, LLMService)
    assert LLMServiceSpec.model_validate(parsed.spec.to_manifest()) == parsed.spec
