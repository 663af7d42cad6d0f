"""The shared samples against the models; the end-to-end tests run the same ones against the API server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.cases import BadCase, bad_cases, good_samples
from wattzoo.api.base import ApiModel
from wattzoo.api.crd import KINDS
from wattzoo.api.parse import parse
from wattzoo.api.structural import RULES_KEY, structural_schema
from wattzoo.errors import InvalidSpec

GOOD = good_samples()
BAD = bad_cases()


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD.keys())
def test_good_sample_is_accepted(manifest: dict[str, Any]) -> None:
    assert parse(manifest).metadata.name == manifest["metadata"]["name"]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_sample_is_refused_naming_field_and_rule(case: BadCase) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse(case.manifest)
    named = [(problem.field, problem.rule) for problem in refusal.value.problems]
    assert any(case.field in field and case.rule in rule for field, rule in named), named


def test_there_are_enough_samples_with_names_of_their_own() -> None:
    assert len(GOOD) >= 10
    assert len(BAD) >= 40
    assert len({case.name for case in BAD}) == len(BAD)


def messages(schema: dict[str, Any]) -> set[str]:
    """Every rule's message in a schema."""
    found = {rule["message"] for rule in schema.get(RULES_KEY, ()) if "oldSelf" not in rule["rule"]}
    for part in schema.get("properties", {}).values():
        found |= messages(part.get("items", part))
    return found


def test_every_rule_has_a_sample_that_breaks_it() -> None:
    rules = set().union(*(messages(structural_schema(info.spec)) for info in KINDS))
    broken = {message for message in rules for case in BAD if case.rule in message}
    assert rules - broken == set()


def test_the_schema_carries_every_rule_of_every_model() -> None:
    in_models = {
        rule.message
        for model in all_models(ApiModel)
        for rule in model.RULES
        if rule.holds is not None and model.__module__.startswith("wattzoo.")
    }
    in_schema = set().union(*(messages(structural_schema(info.spec)) for info in KINDS))
    assert in_models == in_schema


def all_models(root: type[ApiModel]) -> set[type[ApiModel]]:
    """A model class and everything derived from it."""
    return {root}.union(*(all_models(child) for child in root.__subclasses__()))
