"""What a process goes on from when it sees an object for the first time: the checkpoint in its status.

Counters are cumulative, so a checkpoint of any age loses nothing that Prometheus still shows: the first answer after
the restart brings everything since.
"""

from __future__ import annotations

from collections.abc import Collection

from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.decide.counting import restore_counting
from wattzoo.decide.forecast_text import restore_forecasts
from wattzoo.decide.memory import STEP_SECONDS, PoolMemory, ServiceMemory
from wattzoo.decide.pipeline import EARLY_SECONDS, declared_members, make_service_policy
from wattzoo.manifests import parse_time
from wattzoo.model import Manifest, Ref
from wattzoo_policies.protocols import PolicyState, StateError
from wattzoo_policies.registry import UnknownPolicyError, make_policy
from wattzoo_policies.signals import ReplicaHistory


def restore_pool(
    raw: Manifest, at_seconds: float, services: Collection[Ref] = (), step_seconds: float = STEP_SECONDS
) -> PoolMemory:
    """The memory of a pool seen for the first time: recent wishes from its status, else none (then nothing shrinks).

    And what was learned of the load, where that was of the services that use the pool now, in the same steps.
    """
    scaling = ((raw.get("status") or {}).get("scaling")) or {}
    text, history = scaling.get("state"), ReplicaHistory()
    if isinstance(text, str) and text:
        try:
            history = ReplicaHistory.from_json(text)
        except ValueError:
            history = ReplicaHistory()
    forecasts = restore_forecasts(scaling.get("forecast"), services, at_seconds, step_seconds)
    return PoolMemory(first_at_seconds=at_seconds, history=history, forecasts=forecasts)


def restore_service(
    raw: Manifest, spec: LLMServiceSpec, names: tuple[str, ...], at_seconds: float, *, has_route: bool
) -> ServiceMemory:
    """The memory of a service seen for the first time by this process, from its status where it can be read.

    Without a state to go on from, a route that is there already keeps its weights until something is known.
    """
    controller = (raw.get("status") or {}).get("controller") or {}
    previous, lost = _read_state(controller.get("policy"), controller.get("state"))
    policy = make_service_policy(spec)
    return ServiceMemory(
        policy=policy.name,
        state=policy.initial_state(declared_members(spec, names), previous),
        hold=has_route and previous is None,
        hold_until_seconds=at_seconds + spec.controller.interval_seconds - EARLY_SECONDS if has_route else None,
        observed_at_seconds=parse_time(controller.get("observedAt")),
        counting=restore_counting(controller.get("counters"), names),
        lost=lost,
    )


def _read_state(policy: object, text: object) -> tuple[PolicyState | None, str]:
    """The stored state, read by the policy that wrote it whatever the spec names now; or None and why."""
    if not (isinstance(policy, str) and isinstance(text, str) and text):
        return None, ""
    try:
        state: PolicyState = make_policy(policy).state_from_json(text)
    except (StateError, UnknownPolicyError) as error:
        return None, f"the stored state cannot be used, counting begins anew: {error}"
    return state, ""
