"""Whether an apply would change anything: what must not be written again, and what must."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo.apply.diff import first_difference, parse_quantity

CONTAINER = {
    "name": "server",
    "image": "vllm:1",
    "args": ["--a", "--b"],
    "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"nvidia.com/gpu": "1"}},
    "ports": [{"name": "http", "containerPort": 8000}],
}
BODY: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a", "namespace": "n", "labels": {"x": "1"}, "ownerReferences": [{"uid": "u", "name": "p"}]},
    "spec": {
        "replicas": 2,
        "template": {"spec": {"containers": [CONTAINER], "tolerations": [{"key": "gpu", "operator": "Exists"}]}},
    },
}
FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:x": {}}, "f:ownerReferences": {'k:{"uid":"u"}': {}}},
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"server"}': {
                        ".": {},
                        "f:image": {},
                        "f:ports": {'k:{"containerPort":8000,"protocol":"TCP"}': {"f:name": {}}},
                    }
                },
                "f:tolerations": {},
            }
        },
    },
}


def live_of(body: dict[str, Any]) -> dict[str, Any]:
    """The body as a server would hold it: with defaults, other people's fields and its record of what we own."""
    live = copy.deepcopy(body)
    live["metadata"] |= {
        "uid": "d",
        "resourceVersion": "7",
        "managedFields": [{"manager": "wattzoo", "operation": "Apply", "fieldsV1": FIELDS}],
    }
    live["metadata"]["labels"]["theirs"] = "yes"
    live["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    live["spec"]["revisionHistoryLimit"] = 10
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["ports"][0]["protocol"] = "TCP"
    container["resources"]["requests"]["memory"] = "65536Mi"
    live["spec"]["template"]["spec"]["containers"].append({"name": "injected", "image": "sidecar"})
    live["status"] = {"readyReplicas": 1}
    return live


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    body = copy.deepcopy(BODY)
    target: Any = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return body


def test_defaults_quantities_and_the_fields_of_others_are_no_difference() -> None:
    assert first_difference(BODY, live_of(BODY)) is None


POD: list[str | int] = ["spec", "template", "spec"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (changed(["spec", "replicas"], 3), "spec.replicas"),
        (changed(["spec", "replicas"], None), "spec.replicas"),
        (changed(["metadata", "labels"], {"x": "2"}), "metadata.labels.x"),
        (changed(["metadata", "labels"], {}), "metadata.labels.x"),
        (changed([*POD, "containers", 0, "image"], "vllm:2"), "spec.template.spec.containers[server].image"),
        (changed([*POD, "containers", 0, "args"], ["--a"]), "spec.template.spec.containers[server].args"),
        (changed([*POD, "containers", 0, "ports"], []), "spec.template.spec.containers"),
        (changed([*POD, "tolerations"], []), "spec.template.spec.tolerations"),
        (
            changed([*POD, "containers", 0, "resources", "requests"], {"cpu": "9"}),
            "spec.template.spec.containers[server].resources.requests.cpu",
        ),
    ],
)
def test_each_change_of_what_we_own_is_found(body: dict[str, Any], path: str) -> None:
    found = first_difference(body, live_of(BODY))
    assert found is not None
    assert found.startswith(path)


def test_only_what_we_recorded_as_ours_counts_as_removed() -> None:
    live = live_of(BODY)
    live["metadata"]["managedFields"][0]["manager"] = "kubectl"
    assert first_difference(changed(["metadata", "labels"], {}), live) is None


BACKENDS: list[dict[str, Any]] = [
    {"group": "", "kind": "Service", "name": "a", "port": 8000, "weight": 1, "filters": [{"type": "X"}]}
]


def route(backends: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metadata": {"name": "r"}, "spec": {"rules": [{"backendRefs": backends}]}}


def test_atomic_lists_tolerate_the_servers_defaults_and_nothing_else() -> None:
    bare = [{"name": "a", "port": 8000, "filters": [{"type": "X"}]}]
    live = route(BACKENDS)
    live["spec"]["rules"][0]["matches"] = [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert first_difference(route(bare), live) is None
    without_filter = [{"name": "a", "port": 8000}]
    assert first_difference(route(without_filter), live) == "spec.rules[0].backendRefs[0].filters"
    heavier = [{**BACKENDS[0], "weight": 2}]
    assert first_difference(route(heavier), live) == "spec.rules[0].backendRefs[0].weight"
    assert first_difference(route(BACKENDS * 2), live) == "spec.rules[0].backendRefs"


def test_a_status_is_ours_alone_but_new_times_are_no_reason_to_write() -> None:
    live = {
        "status": {"time": "2026-01-01T00:00:00Z", "sla": {"achieved": 0.8}, "members": [{"name": "a", "joules": 3}]}
    }
    later = {"status": {**live["status"], "time": "2026-01-01T00:01:00.5Z"}}
    assert first_difference(later, live, "status") is None
    unknown = {"status": {**later["status"], "members": [{"name": "a", "joules": None}]}}
    assert first_difference(unknown, live, "status") == "status.members[0].joules"
    without_sla = {"status": {"time": "2026-01-01T00:00:00Z", "members": live["status"]["members"]}}
    assert first_difference(without_sla, live, "status") == "status.sla.achieved"
    assert first_difference({"status": {"time": None}}, {}, "status") is None
    assert first_difference({"status": {"time": "2026-01-01T00:00:00Z"}}, {}, "status") == "status.time"


def test_a_scale_compares_nothing_but_the_spec() -> None:
    live = {"metadata": {"name": "d", "labels": {}}, "spec": {"replicas": 2, "template": {}}}
    assert first_difference({"spec": {"replicas": 2}}, live, "scale") is None
    assert first_difference({"spec": {"replicas": 3}}, live, "scale") == "spec.replicas"


@pytest.mark.parametrize(
    ("left", "right"), [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1k"), (2, "2")]
)
def test_equal_quantities(left: object, right: object) -> None:
    assert parse_quantity(left) == parse_quantity(right)


def test_what_is_no_quantity() -> None:
    assert [parse_quantity(text) for text in ("", "x", "1Zi", "1..2", None)] == [None] * 5


values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(min_size=1, max_size=3), values, max_size=4))
def test_an_object_never_differs_from_itself(spec: dict[str, Any]) -> None:
    body = {"metadata": {"name": "x"}, "spec": spec}
    assert first_difference(body, copy.deepcopy(body)) is None
    assert first_difference({"status": spec}, {"status": copy.deepcopy(spec)}, "status") is None


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(), min_size=1, max_size=4), st.data())
def test_any_changed_value_is_found(spec: dict[str, int], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(spec)))
    body = {"spec": {**spec, key: spec[key] + 1}}
    assert first_difference(body, {"spec": spec}) == f"spec.{key}".lstrip(".")
