"""The controller of an LLMService: which law chooses the weights, how often, and one typed block of parameters per law.

A law without parameters has no block; a block may only be written for its own law. Parameters are integers with their
unit in the name; `policy_parameters` turns them into the law's own units.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from wattzoo.api.base import ApiModel, Integer, PerMille, Rule

POLICY_BLOCKS = (
    ("MESSPlusAnytime", "mess_plus_anytime"),
    ("MESSPlus", "mess_plus"),
    ("PrimalDual", "primal_dual"),
)
"""Each policy that has parameters, with the one block that belongs to it."""

FIXED_MIXTURE = "FixedMixture"


def _belongs_to_policy(policy: str, block: str) -> Rule:
    """The rule that a parameter block may only be written for its own policy."""
    wire_name = to_camel(block)
    return Rule(
        cel=f"self.policy == '{policy}' || !has(self.{wire_name})",
        message=f"{wire_name} has no effect with another policy than {policy}: remove it",
        holds=lambda self: self.policy == policy or getattr(self, block) is None,
        field=f".{wire_name}",
    )


class MESSPlusAnytimeParameters(ApiModel):
    """Parameters of MESSPlusAnytime: signed credit, steered to a buffer that keeps the promise from some request on."""

    violation_per_mille: Annotated[
        Integer,
        Field(
            ge=1,
            le=499,
            description="Promised probability, in thousandths, that the running share ever falls below the target "
            "after the request that SLAFeasible names. Smaller holds more credit and costs more energy.",
        ),
    ] = 50
    drift_buffer_requests: Annotated[
        Integer,
        Field(
            ge=0,
            le=100_000,
            description="Least credit to hold, in satisfied requests, for traffic that is known to become harder at "
            "times; 0 trusts the bound.",
        ),
    ] = 0
    least_horizon_requests: Annotated[
        Integer,
        Field(
            ge=0,
            le=100_000,
            description="Least number of requests over which missing credit is earned. Where an interval has few "
            "requests, more keeps the weights steadier and holds more credit.",
        ),
    ] = 0
    feedback_delay_seconds: Annotated[
        Integer,
        Field(
            ge=0,
            le=3600,
            description="Seconds after which a request without feedback is taken never to get any. Longer than an "
            "answer plus its judgement take.",
        ),
    ] = 60

    def policy_parameters(self) -> dict[str, float | int]:
        """The law's parameters in its own units: shares and seconds."""
        return {
            "delta": self.violation_per_mille / 1e3,
            "drift_buffer_requests": float(self.drift_buffer_requests),
            "least_horizon_requests": float(self.least_horizon_requests),
            "feedback_delay_seconds": float(self.feedback_delay_seconds),
        }


class MESSPlusParameters(ApiModel):
    """Parameters of MESSPlus: minimise V * energy + queue * (target - expected satisfaction)."""

    v_per_megajoule: Annotated[
        Integer,
        Field(
            ge=1,
            le=1_000_000_000,
            description="V, the weight of energy against debt, per megajoule; the published 1e-4 per joule is 100. "
            "Larger saves energy and tolerates more debt.",
        ),
    ] = 100
    exploration_per_mille: Annotated[
        PerMille,
        Field(
            description="c in thousandths: the t-th request is explored with probability min(1, c / t^(1/4)). "
            "The published .1 is 100; 0 never explores."
        ),
    ] = 100
    horizon_requests: Annotated[
        Integer,
        Field(
            ge=1,
            le=100_000,
            description="Requests over which debt is repaid, if an interval has fewer. 1 is the published rule; more, "
            "400 for instance, keeps the shares steady and is not published.",
        ),
    ] = 1

    def policy_parameters(self) -> dict[str, float | int]:
        """The law's parameters in its own units: V per joule, shares."""
        return {
            "v_per_joule": self.v_per_megajoule / 1e6,
            "exploration": self.exploration_per_mille / 1e3,
            "horizon_requests": self.horizon_requests,
        }


class PrimalDualParameters(ApiModel):
    """Parameters of PrimalDual: a price of satisfaction that rises with debt and falls with surplus."""

    step_per_mille: Annotated[
        Integer,
        Field(
            ge=1,
            le=1_000_000,
            description="Price moved per request owed, in thousandths of the difference between the dearest and the "
            "cheapest member's joules, divided by the square root of the requests so far.",
        ),
    ] = 1000
    exploration_per_mille: Annotated[
        PerMille,
        Field(description="Share of the traffic spread evenly, in thousandths, divided by requests^(1/4); 0: none."),
    ] = 100

    def policy_parameters(self) -> dict[str, float | int]:
        """The law's parameters in its own units."""
        return {"step": self.step_per_mille / 1e3, "exploration": self.exploration_per_mille / 1e3}


class Controller(ApiModel):
    """The policy that chooses the weights."""

    policy: Annotated[
        Literal["MESSPlusAnytime", "MESSPlus", "PrimalDual", "FixedMixture", "AlwaysLargest"],
        Field(
            description="MESSPlusAnytime: keeps the target from a stated request on, with a stated probability, near "
            "the least energy. MESSPlus: the published rule. To compare with, without a bound: PrimalDual, a price "
            "that follows debt; FixedMixture, the cheapest mixture for the declared accuracies, never adapted; "
            "AlwaysLargest, all traffic to safestMember.",
        ),
    ] = "MESSPlusAnytime"
    interval_seconds: Annotated[
        Integer, Field(ge=5, le=300, description="Seconds from one choice of weights to the next.")
    ] = 15
    mess_plus_anytime: Annotated[
        MESSPlusAnytimeParameters | None,
        Field(description="Parameters of the policy MESSPlusAnytime; unset: the defaults."),
    ] = None
    mess_plus: Annotated[
        MESSPlusParameters | None, Field(description="Parameters of the policy MESSPlus; unset: the published ones.")
    ] = None
    primal_dual: Annotated[
        PrimalDualParameters | None, Field(description="Parameters of the policy PrimalDual; unset: the defaults.")
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = tuple(_belongs_to_policy(policy, block) for policy, block in POLICY_BLOCKS)

    def policy_parameters(self) -> dict[str, float | int]:
        """Parameters of the chosen policy in its own units: its block as written, or that block's defaults."""
        defaults: dict[str, MESSPlusAnytimeParameters | MESSPlusParameters | PrimalDualParameters] = {
            "MESSPlusAnytime": self.mess_plus_anytime or MESSPlusAnytimeParameters(),
            "MESSPlus": self.mess_plus or MESSPlusParameters(),
            "PrimalDual": self.primal_dual or PrimalDualParameters(),
        }
        block = defaults.get(self.policy)
        return {} if block is None else block.policy_parameters()
