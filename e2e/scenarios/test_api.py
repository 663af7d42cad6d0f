"""The API on the real API server: what the CRDs accept, refuse, default, document and show."""

from __future__ import annotations

import copy
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from e2e.cluster import Cluster
from tests.api.cases import SAMPLES, BadCase, bad_cases, good_samples
from tests.api.mutations import mutated_samples
from wattzoo.api.base import GROUP, VERSION
from wattzoo.api.crd import KINDS
from wattzoo.api.llm_service_status import MAX_STATE_LENGTH
from wattzoo.api.parse import parse
from wattzoo.api.v1alpha1 import (
    AcceleratorPoolStatus,
    Condition,
    ConditionType,
    ControllerState,
    Decision,
    EnergyStatus,
    LedgerStatus,
    LLMServiceStatus,
    MemberStatus,
    ModelPoolStatus,
    ModelProfileStatus,
    Plan,
    Reason,
    ScalingState,
    VariantStatus,
    timestamp,
)
from wattzoo.errors import InvalidSpec

pytestmark = pytest.mark.usefixtures("server")

CRDS = Path(__file__).parents[2] / "crds"
INFO = {info.kind: info for info in KINDS}
GOOD = good_samples()
NAMES = [f"{info.plural}.{GROUP}" for info in KINDS]
Manifest = dict[str, Any]


class Server:
    """The API server, called directly: a kubectl call costs a second of processor time, a request some milliseconds."""

    def __init__(self, kubeconfig: Path) -> None:
        self.client = config.new_client_from_config(str(kubeconfig))
        self.objects = client.CustomObjectsApi(self.client)

    def create(self, manifest: Manifest, namespace: str = "default") -> Manifest:
        """A dry run of a strict creation: the object as it would be stored; raises ApiException when refused.

        Under a name of its own, since other tests may have made cluster-scoped objects of the samples' names.
        """
        info = INFO[manifest["kind"]]
        body = manifest | {"metadata": {"name": f"{manifest['metadata']['name']}-{uuid.uuid4().hex[:8]}"}}
        place = {"group": GROUP, "version": VERSION, "plural": info.plural, "body": body}
        how = {"dry_run": "All", "field_validation": "Strict"}
        if info.scope == "Cluster":
            return dict(self.objects.create_cluster_custom_object(**place, **how))
        return dict(self.objects.create_namespaced_custom_object(**place, **how, namespace=namespace))

    def get(self, path: str) -> Manifest:
        """The JSON at a path."""
        return dict(self.client.call_api(path, "GET", response_types_map={200: "object"}, _return_http_data_only=True))

    def schemas(self) -> Manifest:
        """The served OpenAPI's schemas; none while the API server has not published the group yet, some time after
        the CRDs are established."""
        try:
            return dict(self.get(f"/openapi/v3/apis/{GROUP}/{VERSION}")["components"]["schemas"])
        except client.exceptions.NotFoundException:
            return {}


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in NAMES))
    server = Server(cluster.kubeconfig)
    kinds = {f"dev.wattzoo.{VERSION}.{kind}" for kind in INFO}
    cluster.wait_until(lambda: kinds <= server.schemas().keys(), 30.0, "the kinds in the served OpenAPI")
    yield server
    server.client.rest_client.pool_manager.clear()


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[str]:
    """One namespace for all tests here, each with objects of its own."""
    name = f"api-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name)


def test_the_crds_are_structural(server: Server) -> None:
    for name in NAMES:
        status = server.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")["status"]
        conditions = {condition["type"]: condition for condition in status["conditions"]}
        assert conditions["Established"]["status"] == "True"
        assert conditions["NamesAccepted"]["status"] == "True"
        assert "NonStructuralSchema" not in conditions, conditions["NonStructuralSchema"]["message"]


def fields(schema: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from fields(part.get("items", part), f"{path}.{name}")


@pytest.mark.parametrize("kind", INFO)
def test_the_served_openapi_describes_every_field_path(server: Server, kind: str) -> None:
    served = dict(fields(server.schemas()[f"dev.wattzoo.{VERSION}.{kind}"], ""))
    assert {".apiVersion", ".kind", ".metadata", ".spec", ".status", ".status.conditions.reason"} <= served.keys()
    assert [path for path, schema in served.items() if not schema.get("description")] == []


def test_every_good_sample_is_accepted_by_kubectl(cluster: Cluster) -> None:
    files = str(SAMPLES / "good")
    applied = cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", files)
    assert applied.count("serverside-applied") == len(GOOD)


def leaves(value: Any) -> Any:
    """Plain data without empty containers, leaves as text: a quantity may be written as a number."""
    if isinstance(value, dict):
        return {key: leaves(part) for key, part in value.items() if part not in ({}, [])}
    if isinstance(value, list):
        return [leaves(part) for part in value]
    return str(value)


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD.keys())
def test_the_server_fills_in_the_defaults_of_the_models(server: Server, manifest: Manifest) -> None:
    stored = server.create(manifest)
    assert parse(stored).spec == parse(manifest).spec
    assert leaves(stored["spec"]) == leaves(parse(manifest).spec.to_manifest())


@pytest.mark.parametrize("case", bad_cases(), ids=lambda case: case.name)
def test_a_bad_sample_is_refused_naming_field_and_rule(server: Server, case: BadCase) -> None:
    with pytest.raises(client.ApiException) as refusal:
        server.create(case.manifest)
    message = json.loads(refusal.value.body)["message"]
    assert refusal.value.status in {400, 422}
    assert case.field in message
    assert case.rule in message


def refusal_by_models(manifest: Manifest) -> str:
    try:
        parse(manifest)
    except InvalidSpec as invalid:
        return str(invalid)
    return ""


def refusal_by_server(server: Server, manifest: Manifest) -> str:
    try:
        server.create(manifest)
    except client.ApiException as invalid:
        return str(json.loads(invalid.body)["message"])
    return ""


def test_models_and_server_agree_on_randomly_damaged_samples(server: Server) -> None:
    verdicts = {True: 0, False: 0}
    for manifest in mutated_samples(seed=3, count=400):
        models, stored = refusal_by_models(manifest), refusal_by_server(server, manifest)
        assert bool(models) == bool(stored), (manifest, models, stored)
        verdicts[bool(models)] += 1
    assert min(verdicts.values()) >= 40, "both answers must occur"


def apply(cluster: Cluster, manifest: Manifest, *flags: str) -> Manifest:
    """Server-side apply as the operator would; the object as it is stored."""
    arguments = ("apply", "--server-side", "--field-manager=wattzoo-test", "-o", "json", *flags, "-f", "-")
    return dict(json.loads(cluster.kubectl(*arguments, input=json.dumps(manifest))))


def refused(cluster: Cluster, manifest: Manifest, *flags: str) -> str:
    """What kubectl says about an object that must not pass."""
    command = [str(cluster.bin_dir / "kubectl"), "apply", "--server-side", *flags, "-f", "-"]
    done = cluster.exec(command, input=json.dumps(manifest), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0, done.stdout
    return str(done.stderr)


def named(sample: str, name: str, space: str) -> Manifest:
    """A good sample under a name and in a namespace of the test's own."""
    manifest = copy.deepcopy(GOOD[sample])
    scope = INFO[manifest["kind"]].scope
    manifest["metadata"] = {"name": f"{space}-{name}"} if scope == "Cluster" else {"name": name, "namespace": space}
    return manifest


def test_kubectl_reports_an_unknown_field(cluster: Cluster, space: str) -> None:
    manifest = named("llm-service-chat", "unknown", space)
    manifest["spec"]["traffic"]["gateway"] = "x"
    assert "spec.traffic.gateway" in refused(cluster, manifest)


def test_a_second_apply_changes_nothing_and_the_served_name_is_immutable(cluster: Cluster, space: str) -> None:
    manifest = named("model-pool-routed", "immutable", space)
    first = apply(cluster, manifest)["metadata"]
    again = apply(cluster, manifest)["metadata"]
    assert (again["resourceVersion"], again["generation"]) == (first["resourceVersion"], 1)
    manifest["spec"]["servedModelName"] = "other"
    assert "servedModelName is immutable" in refused(cluster, manifest, "--field-manager=wattzoo-test")
    manifest["spec"]["servedModelName"] = "chat"
    manifest["spec"]["scaling"] = {"reservePercent": 50}
    assert apply(cluster, manifest)["metadata"]["generation"] == 2


CONDITIONS = tuple(
    Condition(
        type=condition,
        status="True",
        observed_generation=1,
        last_transition_time=timestamp(1.8e9),
        reason=reason,
        message="as it should be",
    )
    for condition, reason in ((ConditionType.READY, Reason.AVAILABLE), (ConditionType.PAUSED, Reason.ACTIVE))
)
STATUSES = {
    "accelerator-pool-minimal": AcceleratorPoolStatus(
        nodes=2, accelerators=16, allocatable=16, allocated_by_watt_zoo=3, power_watts=90, conditions=CONDITIONS
    ),
    "model-pool-routed": ModelPoolStatus(
        observed_generation=1,
        desired_replicas=3,
        ready_replicas=2,
        plan=Plan(id="a1", time=timestamp(1.8e9), watts=1200, reason="ScalingUp", message="one more"),
        variants=(VariantStatus(member="cheap", name="ext", desired=3, ready=2, utilisation_per_mille=640),),
        scaling=ScalingState(state="{}", observed_at=timestamp(1.8e9)),
        conditions=CONDITIONS,
    ),
    "model-profile-derived": ModelProfileStatus(observed_generation=1, conditions=CONDITIONS),
    "llm-service-chat": LLMServiceStatus(
        observed_generation=1,
        sla=LedgerStatus(
            target="80.0%",
            achieved="81.2%",
            feedback_count=1000,
            satisfied_count=812,
            debt_requests=-12,
            since=timestamp(1.8e9),
            latency="640ms/41ms",
        ),
        energy=EnergyStatus(joules_per_request="412.5", power_watts=5230, provenance="Proportional"),
        members=(MemberStatus(name="small", weight=600_000), MemberStatus(name="large", weight=400_000)),
        decision=Decision(time=timestamp(1.8e9), reason="OnTarget", message="x" * 5000),
        controller=ControllerState(policy="MESSPlus", state="q" * MAX_STATE_LENGTH, observed_at=timestamp(1.8e9)),
        conditions=CONDITIONS,
    ),
}


@pytest.mark.parametrize("sample", STATUSES)
def test_a_full_status_is_stored_shown_and_not_a_new_generation(cluster: Cluster, space: str, sample: str) -> None:
    manifest = named(sample, "status", space)
    apply(cluster, manifest)
    identity = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": manifest["metadata"]}
    body = identity | {"status": STATUSES[sample].to_manifest()}
    stored = apply(cluster, body, "--subresource=status")
    assert leaves(stored["status"]) == leaves(STATUSES[sample].to_manifest())
    assert parse(stored).status == STATUSES[sample]
    assert stored["metadata"]["generation"] == 1
    again = apply(cluster, body, "--subresource=status")
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
    if INFO[manifest["kind"]].scope == "Cluster":
        cluster.kubectl("delete", INFO[manifest["kind"]].plural, manifest["metadata"]["name"])


def test_kubectl_get_answers_the_first_question_and_wide_the_second(cluster: Cluster, space: str) -> None:
    manifest = named("llm-service-chat", "shown", space)
    apply(cluster, manifest)
    identity = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": manifest["metadata"]}
    status = STATUSES["llm-service-chat"].to_manifest()
    apply(cluster, identity | {"status": status}, "--subresource=status")
    head, row = cluster.kubectl("get", "llmsvc", "shown", "--namespace", space).splitlines()
    assert head.split() == ["NAME", "SLA", "ACHIEVED", "J/REQ", "POWER", "POLICY", "READY", "AGE"]
    assert row.split()[:-1] == ["shown", "80.0%", "81.2%", "412.5", "5230", "MESSPlus", "True"]
    head, row = cluster.kubectl("get", "llmsvc", "shown", "--namespace", space, "-o", "wide").splitlines()
    assert head.split()[8:] == ["DEBT", "LATENCY", "REASON"]
    assert row.split()[8:] == ["-12", "640ms/41ms", "OnTarget"]
    status["controller"]["state"] += "q"
    too_long = refused(cluster, identity | {"status": status}, "--subresource=status", "--field-manager=wattzoo-test")
    assert "status.controller.state" in too_long


def test_the_category_lists_all_kinds_and_explain_reads_like_a_manual(cluster: Cluster, space: str) -> None:
    for sample in ("model-pool-minimal", "model-profile-derived", "llm-service-minimal"):
        apply(cluster, named(sample, "listed", space))
    listed = cluster.kubectl("get", "wattzoo", "--namespace", space, "-o", "name").split()
    assert {f"{kind}.wattzoo.dev/listed" for kind in ("modelpool", "modelprofile", "llmservice")} <= set(listed)
    manual = cluster.kubectl("explain", "llmservice.spec.sla.accuracy")
    assert "must not fall below this" in " ".join(manual.split())
