"""Policies by name, with their parameters checked: the one place that the operator and the simulator look them up.

The threshold router looks into each request; a gateway that splits by weights shows none, so there it is a mixture that
is fixed once, and an LLMService does not offer it. Studies replay it with its groups (`sim.laws.ThresholdLaw`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from wattzoo_policies.accuracy.always import AlwaysLargest, AlwaysLargestParameters
from wattzoo_policies.accuracy.anytime import MESSPlusAnytime
from wattzoo_policies.accuracy.anytime_estimates import AnytimeParameters
from wattzoo_policies.accuracy.blind import FixedMixture, FixedMixtureParameters
from wattzoo_policies.accuracy.dual import DualParameters, PrimalDual
from wattzoo_policies.accuracy.mess_plus import MESSPlus, MESSPlusParameters
from wattzoo_policies.accuracy.threshold import Threshold, ThresholdParameters
from wattzoo_policies.limits.weights import with_capacity_cap
from wattzoo_policies.protocols import ControllerPolicy

Parameter = float | int | bool | str


class UnknownPolicyError(ValueError):
    """No policy of that name."""


class PolicyParameterError(ValueError):
    """A parameter that the policy does not have, or a value that it refuses."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    make: Callable[[Any], ControllerPolicy[Any]]
    parameters: type[Any]


_POLICIES: Mapping[str, _Entry] = {
    "MESSPlusAnytime": _Entry(MESSPlusAnytime, AnytimeParameters),
    "MESSPlus": _Entry(MESSPlus, MESSPlusParameters),
    "PrimalDual": _Entry(PrimalDual, DualParameters),
    "FixedMixture": _Entry(FixedMixture, FixedMixtureParameters),
    "Threshold": _Entry(Threshold, ThresholdParameters),
    "AlwaysLargest": _Entry(AlwaysLargest, AlwaysLargestParameters),
}


def policy_names() -> tuple[str, ...]:
    """Return the names of all policies, in order of registration."""
    return tuple(_POLICIES)


def make_policy(name: str, params: Mapping[str, Parameter] | None = None) -> ControllerPolicy[Any]:
    """Return the policy of that name.

    `params` are the fields of its parameter class; missing ones keep their defaults. Weights are cut to the ready
    capacity that the request states (`limits.weights`). Raises `UnknownPolicyError` and
    `PolicyParameterError` (both `ValueError`), whose text names the policy, the parameter and the rule.
    """
    entry = _POLICIES.get(name)
    if entry is None:
        raise UnknownPolicyError(f"unknown policy {name!r}; known are {', '.join(_POLICIES)}")
    params = params or {}
    fields = [field.name for field in dataclasses.fields(entry.parameters)]
    if unknown := sorted(set(params) - set(fields)):
        raise PolicyParameterError(f"policy {name} has no parameter {', '.join(unknown)}; it has {', '.join(fields)}")
    for field in dataclasses.fields(entry.parameters):
        if field.name in params:
            _check_type(name, field, params[field.name])
    try:
        return with_capacity_cap(entry.make(entry.parameters(**params)))
    except (TypeError, ValueError) as error:
        raise PolicyParameterError(f"policy {name}: {error}") from error


def _check_type(policy: str, field: dataclasses.Field[Any], value: Parameter) -> None:
    """Refuse a value of another kind than the parameter's default; an int is a float too, a bool is neither."""
    expected = type(field.default)
    fits = type(value) is expected or (expected is float and type(value) is int)
    if not fits:
        raise PolicyParameterError(f"policy {policy}: {field.name} must be of type {expected.__name__}, not {value!r}")
