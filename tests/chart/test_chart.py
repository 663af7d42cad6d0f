"""The chart as Helm renders it: goldens, invariants, and values that must be refused.

`WATTZOO_UPDATE_GOLDEN=1 pytest tests/chart` writes the goldens anew. Helm comes from the harness's cache of built
programs; without it the tests that render are skipped.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.build import binaries
from scripts.chart_reference import CHART, look_up, walk
from wattzoo import __version__
from wattzoo.__main__ import run

GOLDEN = Path(__file__).parent / "golden"
HELM = binaries()["helm"]
needs_helm = pytest.mark.skipif(not HELM.exists(), reason="helm is not built; `make cluster-build` builds it")

SHA = "sha256:" + "0" * 64
FULL: dict[str, Any] = {
    "image": {"repository": "wattzoo", "digest": SHA, "pullSecrets": [{"name": "pull"}]},
    "prometheus": {
        "url": "https://prometheus.monitoring.svc",
        "bearerToken": {"secretName": "prometheus-token"},
        "caCertificate": {"configMapName": "prometheus-ca"},
    },
    "metricsProfile": {"gpu_power": {"signals": {"power_watts": {"names": ["gpu_watts"]}}}},
    "watchNamespaces": ["team-a", "team-b"],
    "serviceMonitor": {"enabled": True},
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]},
    "placement": {"objective": "Carbon"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
}
NARROW: dict[str, Any] = {
    "replicas": 1,
    "serviceAccount": {"create": False, "name": "mine"},
    "rbac": {"create": False},
    "admissionPolicies": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "metricsService": {"enabled": False},
}
CASES = {"default": {}, "full": FULL}


def helm(values: Mapping[str, Any], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "values.json"
    path.write_text(json.dumps(values))
    command = [str(HELM), "template", "wattzoo", str(CHART), "--namespace", "wattzoo-system", "--values", str(path)]
    command += ["--kube-version", "1.36.4"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def render(values: Mapping[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    done = helm(values, tmp_path)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], *kinds: str) -> Iterator[dict[str, Any]]:
    return (document for document in documents if document["kind"] in kinds)


@needs_helm
@pytest.mark.parametrize("case", sorted(CASES))
def test_golden(case: str, tmp_path: Path) -> None:
    documents = render(CASES[case], tmp_path)
    text = yaml.safe_dump_all(documents, sort_keys=True, width=200)
    path = GOLDEN / f"{case}.yaml"
    if os.environ.get("WATTZOO_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@needs_helm
@pytest.mark.parametrize("values", [{}, FULL, NARROW])
def test_the_pods_fit_the_restricted_profile(values: dict[str, Any], tmp_path: Path) -> None:
    (deployment,) = of_kind(render(values, tmp_path), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert set(container["resources"]) == {"requests", "limits"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"} <= {"configMap", "secret"}
    selector, labels = (
        deployment["spec"]["selector"]["matchLabels"],
        deployment["spec"]["template"]["metadata"]["labels"],
    )
    assert selector.items() <= labels.items()
    assert not container["image"].endswith(":latest")


@needs_helm
@pytest.mark.parametrize("values", [{}, FULL])
def test_the_arguments_are_options_of_the_command(values: dict[str, Any], tmp_path: Path) -> None:
    (deployment,) = of_kind(render(values, tmp_path), "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    command, *arguments = container["args"]
    options = {"--" + name.replace("_", "-") for name in inspect.signature(run).parameters}
    given = {argument.partition("=")[0] for argument in arguments}
    assert command == "run"
    assert given <= options
    assert options - given <= {
        "--identity",  # the environment's POD_NAME
        *(
            []
            if values
            else ["--prometheus-token-file", "--prometheus-ca-file", "--metrics-profile", "--watch-namespaces"]
        ),
    }
    assert [variable["name"] for variable in container["env"]] == ["POD_NAME"]


def rules(documents: list[dict[str, Any]], *kinds: str) -> Iterator[dict[str, Any]]:
    for role in of_kind(documents, *kinds):
        if not any(label.startswith("rbac.authorization.k8s.io/") for label in role["metadata"].get("labels", {})):
            yield from role["rules"]


@needs_helm
@pytest.mark.parametrize("values", [{}, FULL])
def test_rights_are_narrow(values: dict[str, Any], tmp_path: Path) -> None:
    documents = render(values, tmp_path)
    for rule in rules(documents, "Role", "ClusterRole"):
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "*" not in words
        assert not {"secrets", "pods/exec", "roles", "rolebindings", "clusterroles", "serviceaccounts/token"} & words
        assert not {"impersonate", "escalate", "bind", "deletecollection"} & words
        if "nodes" in rule["resources"]:
            assert set(rule["verbs"]) <= {"list", "watch"}
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) <= {"list", "watch", "patch"}
        if "leases" in rule["resources"] and rule["verbs"] != ["create"]:
            assert rule["resourceNames"] == ["wattzoo"]


@needs_helm
def test_in_namespaced_mode_the_whole_cluster_is_only_read(tmp_path: Path) -> None:
    documents = render(FULL, tmp_path)
    verbs = {verb for rule in rules(documents, "ClusterRole") for verb in rule["verbs"]}
    assert verbs == {"list", "watch"}
    namespaces = {role["metadata"]["namespace"] for role in of_kind(documents, "Role")}
    assert namespaces == {"team-a", "team-b", "wattzoo-system"}


@needs_helm
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": -1}, "/replicas"),
        ({"replicas": "2"}, "/replicas"),
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"image": {"digest": "sha256:short"}}, "/image/digest"),
        ({"prometheus": {"url": "http://user:password@prometheus"}}, "/prometheus/url"),
        ({"prometheus": {"url": "file:///etc/passwd"}}, "/prometheus/url"),
        ({"prometheus": {"token": "x"}}, "token"),
        ({"watchNamespaces": ["UPPER"]}, "/watchNamespaces/0"),
        ({"placement": {"objective": "Speed"}}, "/placement/objective"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"lease": {"durationSeconds": 0}}, "/lease/durationSeconds"),
        ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is required"),
        ({"serviceMonitor": {"enabled": True}, "metricsService": {"enabled": False}}, "needs metricsService"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    done = helm(values, tmp_path)
    assert done.returncode != 0
    assert words in done.stderr.replace(".", "/") or words in done.stderr


def test_every_value_has_a_default_and_a_description() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    documented = dict(walk(schema, ""))
    assert all(field["description"] for field in documented.values())
    assert {path for path in documented if look_up(defaults, path) is None} == {"global"}
    assert set(leaves(defaults, "", documented)) == set(documented) - {"global"}


def leaves(value: Any, path: str, documented: Mapping[str, Any]) -> Iterator[str]:
    if path in documented or not isinstance(value, dict):
        yield path
        return
    for key, item in value.items():
        yield from leaves(item, f"{path}.{key}".lstrip("."), documented)


def test_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
