"""What is rendered for every kind, byte for byte. `WATTZOO_UPDATE_GOLDEN=1 pytest tests/golden` writes the files anew.

Golden files freeze mistakes, so beside them stand the invariants that each object must keep.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import FakeCluster
from wattzoo.api.parse import parse_accelerator_pool, parse_llm_service, parse_model_pool
from wattzoo.model import TOTAL_WEIGHT, Desired, Kind, Manifest, VariantKey
from wattzoo.plan.http_route import Backend
from wattzoo.plan.planner import plan_pool, plan_service

FOLDER = Path(__file__).parent
KINDS = {
    "deployment": Kind.DEPLOYMENT,
    "service": Kind.SERVICE,
    "pdb": Kind.POD_DISRUPTION_BUDGET,
    "http_route": Kind.HTTP_ROUTE,
}
PORTS = {"outside": ("vllm-ext", 8080)}


def read_input() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.safe_load((FOLDER / "pool.in.yaml").read_text(encoding="utf-8"))
    return loaded


def make_cluster(given: Mapping[str, Any]) -> FakeCluster:
    cluster = FakeCluster()
    cluster.add(Kind.DEPLOYMENT, given["adopted"])
    cluster.add(Kind.MODEL_POOL, given["modelPool"])
    cluster.add(Kind.LLM_SERVICE, given["llmService"])
    return cluster


def plan(given: Mapping[str, Any], cluster: FakeCluster) -> list[Desired]:
    snapshot = cluster.snapshot()
    owner, service = given["modelPool"], given["llmService"]
    replicas = {VariantKey(*name.split("/")): number for name, number in given["replicas"].items()}
    hardware = {raw["metadata"]["name"]: parse_accelerator_pool(raw).spec for raw in given["acceleratorPools"]}
    backends = []
    for name, weight in given["weights"].items():
        key = VariantKey(*name.split("/"))
        target, port = PORTS.get(key.variant, (f"llama-{key.member}-{key.variant}", 8000))
        backends.append(Backend(key, target, port, weight))
    servers = plan_pool(owner, parse_model_pool(owner).spec, replicas, hardware, snapshot)
    return [*servers, *plan_service(service, parse_llm_service(service).spec, backends, snapshot)]


@pytest.mark.parametrize("name", KINDS)
def test_rendered_as_written_down(name: str) -> None:
    given = read_input()
    rendered = [item.body for item in plan(given, make_cluster(given)) if item.kind is KINDS[name]]
    text = yaml.safe_dump_all(rendered, sort_keys=True, width=120)
    path = FOLDER / f"{name}.out.yaml"
    if os.environ.get("WATTZOO_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def by_kind(kind: Kind) -> list[Manifest]:
    given = read_input()
    return [item.body for item in plan(given, make_cluster(given)) if item.kind is kind and not item.subresource]


async def test_planning_against_its_own_output_writes_nothing() -> None:
    given = read_input()
    cluster = make_cluster(given)
    await cluster.apply(plan(given, cluster))
    assert cluster.server_writes()
    await cluster.apply(plan(given, cluster))
    assert cluster.server_writes() == []


def test_selectors_lie_within_template_labels_and_never_name_serving() -> None:
    for deployment in by_kind(Kind.DEPLOYMENT):
        selector = deployment["spec"]["selector"]["matchLabels"]
        template = deployment["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= template.items()
        assert "wattzoo.dev/serving" not in selector
        assert template["wattzoo.dev/serving"] == "true"
        assert "annotations" not in deployment["spec"]["template"]["metadata"]


def test_services_and_budgets_select_serving_pods_of_their_own_deployment() -> None:
    templates = {d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"] for d in by_kind(Kind.DEPLOYMENT)}
    for service in by_kind(Kind.SERVICE):
        name = service["metadata"]["name"]
        if name in templates:
            assert service["spec"]["selector"].items() <= templates[name].items()
    for budget in by_kind(Kind.POD_DISRUPTION_BUDGET):
        assert budget["spec"]["selector"]["matchLabels"].items() <= templates[budget["metadata"]["name"]].items()
        assert isinstance(budget["spec"]["minAvailable"], int)


def test_everything_has_one_controlling_owner_that_does_not_block() -> None:
    owners = {Kind.HTTP_ROUTE: "uid-chat"}
    for kind in KINDS.values():
        for body in by_kind(kind):
            assert "annotations" not in body["metadata"]
            assert "finalizers" not in body["metadata"]
            (owner,) = body["metadata"]["ownerReferences"]
            assert owner["uid"] == owners.get(kind, "uid-llama")
            assert owner["controller"] is True
            assert owner["blockOwnerDeletion"] is False


def test_of_an_adopted_deployment_only_the_scale_is_written() -> None:
    given = read_input()
    scales = [item for item in plan(given, make_cluster(given)) if item.ref.name == "vllm-1b"]
    assert [(item.subresource, item.body["spec"]) for item in scales] == [("scale", {"replicas": 3})]


def test_weights_sum_to_a_million_in_the_order_of_the_spec() -> None:
    (route,) = by_kind(Kind.HTTP_ROUTE)
    (rule,) = route["spec"]["rules"]
    names = [ref["name"] for ref in rule["backendRefs"]]
    assert names == ["llama-large-h100", "llama-small-plain", "llama-small-existing", "vllm-ext"]
    assert sum(ref["weight"] for ref in rule["backendRefs"]) == TOTAL_WEIGHT
    headers = [ref["filters"][0]["responseHeaderModifier"]["set"][0] for ref in rule["backendRefs"]]
    assert headers[0] == {"name": "x-wattzoo-member", "value": "large"}
