from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wattzoo.api.llm_service import LLMService
from wattzoo.api.model_pool import ModelPool
from wattzoo.api.parse import parse

FOLDER = Path(__file__).parents[2] / "examples" / "demo"
OBJECTS: list[dict[str, Any]] = [
    document for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text("utf-8"))
]
OURS = [document for document in OBJECTS if document["apiVersion"].startswith("wattzoo.dev/")]


def pool() -> ModelPool:
    (found,) = [parsed for parsed in map(parse, OURS) if isinstance(parsed, ModelPool)]
    return found


@pytest.mark.parametrize("document", OURS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}")
def test_every_object_of_ours_is_valid(document: dict[str, Any]) -> None:
    assert parse(document).metadata.name == document["metadata"]["name"]


def test_every_reference_is_to_something_applied() -> None:
    names = {(document["kind"], document["metadata"]["name"]) for document in OBJECTS}
    for service in map(parse, OURS):
        if isinstance(service, LLMService):
            assert ("ModelPool", service.spec.model_pool_ref.name) in names
            assert service.spec.safest_member in {member.name for member in pool().spec.members}
            assert all(("Gateway", parent.name) in names for parent in service.spec.traffic.parent_refs)
    for variant in (variant for member in pool().spec.members for variant in member.variants):
        assert ("AcceleratorPool", variant.accelerator_pool) in names
        assert variant.workload_ref is None or ("Deployment", variant.workload_ref.name) in names


def test_the_zoo_has_three_sizes_on_three_kinds_of_gpu_and_one_is_adopted() -> None:
    variants = {member.name: member.variants[0] for member in pool().spec.members}
    assert {name: variant.accelerator_pool for name, variant in variants.items()} == {
        "small": "l4",
        "medium": "a100",
        "large": "h100",
    }
    assert [name for name, variant in variants.items() if variant.workload_ref is not None] == ["medium"]


def test_both_services_share_the_pool_and_promise_the_same() -> None:
    services = [parsed for parsed in map(parse, OURS) if isinstance(parsed, LLMService)]
    assert [service.metadata.name for service in services] == ["chat", "search"]
    assert {service.spec.model_pool_ref.name for service in services} == {pool().metadata.name}
    assert {service.spec.sla.accuracy.target_per_mille for service in services} == {519}
