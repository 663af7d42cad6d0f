"""How emulated nodes and pods live: our own kwok stages, and the nodes themselves.

A pod that asks for GPUs is Running at once but Ready only when the model-server emulator says its model is loaded, and
goes away only when the emulator says it has drained (or its grace period is over). Every other pod is Ready at once
and goes away at once. The emulator speaks through annotations, so every pod update is also visible to tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from e2e.cluster.init import HOST_IP

LOADED_ANNOTATION = "emulator.wattzoo.dev/loaded"
DRAINED_ANNOTATION = "emulator.wattzoo.dev/drained"
GPU_RESOURCE = "nvidia.com/gpu"
GPUS_PER_NODE = 8
# Any resource of the vendor counts, MIG slices too.
GPU_QUERY = '.spec.containers[].resources.requests // {} | keys[] | select(startswith("nvidia.com/"))'
READY_QUERY = '.status.conditions.[] | select( .type == "Ready" ) | .status'


@dataclass(frozen=True)
class Gpu:
    """A GPU product as GPU feature discovery labels it; memory in MiB."""

    product: str
    memory_mib: int


GPUS: Mapping[str, Gpu] = {
    "l4": Gpu("NVIDIA-L4", 23034),
    "a100": Gpu("NVIDIA-A100-SXM4-80GB", 81920),
    "h100": Gpu("NVIDIA-H100-80GB-HBM3", 81559),
    "h200": Gpu("NVIDIA-H200", 143771),
    "b200": Gpu("NVIDIA-B200", 183359),
}
DEFAULT_NODES: Mapping[str, int] = {"l4": 2, "a100": 2, "h100": 2, "h200": 1, "b200": 1, "cpu": 1}

ADDRESSES_TEMPLATE = """\
{{ $hostIPs := NodeIPsWith .spec.nodeName }}
{{ with $hostIPs }}
hostIP: {{ index . 0 | Quote }}
hostIPs:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}
{{ $hostNetwork := or .spec.hostNetwork false }}
{{ $podIPs := PodIPsWith .spec.nodeName $hostNetwork .metadata.uid .metadata.name .metadata.namespace }}
{{ with $podIPs }}
podIP: {{ index . 0 | Quote }}
podIPs:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}
phase: Running
startTime: {{ $now | Quote }}
"""

INIT_CONTAINERS_TEMPLATE = """\
initContainerStatuses:
{{ range .spec.initContainers }}
- image: {{ .image | Quote }}
  name: {{ .name | Quote }}
  ready: true
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      finishedAt: {{ $now | Quote }}
      reason: Completed
      startedAt: {{ $now | Quote }}
{{ end }}
"""

NODE_TEMPLATE = """\
{{ $now := Now }}
{{ $since := or .metadata.creationTimestamp $now }}
conditions:
{{ range NodeConditions }}
- lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $since | Quote }}
  message: {{ .message | Quote }}
  reason: {{ .reason | Quote }}
  status: {{ .status | Quote }}
  type: {{ .type | Quote }}
{{ end }}
phase: Running
"""


def render_pod_status(ready: bool) -> str:
    """The conditions and container statuses of a running pod, as a template of kwok."""
    status = "True" if ready else "False"
    return f"""\
{{{{ $now := Now }}}}
conditions:
- {{lastTransitionTime: {{{{ $now | Quote }}}}, status: "True", type: Initialized}}
- {{lastTransitionTime: {{{{ $now | Quote }}}}, status: "{status}", type: Ready}}
- {{lastTransitionTime: {{{{ $now | Quote }}}}, status: "{status}", type: ContainersReady}}
{{{{ range .spec.readinessGates }}}}
- {{lastTransitionTime: {{{{ $now | Quote }}}}, status: "True", type: {{{{ .conditionType | Quote }}}}}}
{{{{ end }}}}
containerStatuses:
{{{{ $started := or .status.startTime $now }}}}
{{{{ range .spec.containers }}}}
- image: {{{{ .image | Quote }}}}
  name: {{{{ .name | Quote }}}}
  ready: {status.lower()}
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{{{ $started | Quote }}}}
{{{{ end }}}}
"""


def match(key: str, operator: str, *values: str) -> dict[str, Any]:
    """One expression of a stage's selector."""
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


def annotation(name: str) -> str:
    """The query of one annotation's value."""
    return f'.metadata.annotations["{name}"]'


ALIVE = match(".metadata.deletionTimestamp", "DoesNotExist")
LEAVING = match(".metadata.deletionTimestamp", "Exists")
FREE = match(".metadata.finalizers", "DoesNotExist")
PENDING = match(".status.phase", "In", "Pending")
HAS_GPU = match(GPU_QUERY, "Exists")
HAS_NO_GPU = match(GPU_QUERY, "DoesNotExist")
LOADED = match(annotation(LOADED_ANNOTATION), "In", "true")
DRAINED = match(annotation(DRAINED_ANNOTATION), "In", "true")
NOT_DRAINED = match(annotation(DRAINED_ANNOTATION), "NotIn", "true")
NOT_READY = match(READY_QUERY, "NotIn", "True")


def render_stage(
    name: str,
    kind: str,
    expressions: list[dict[str, Any]],
    next_: dict[str, Any],
    delay: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One Stage object."""
    spec: dict[str, Any] = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": expressions},
        "next": next_,
    }
    if delay is not None:
        spec["delay"] = delay
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def render_stages() -> list[dict[str, Any]]:
    """Every stage; their selectors exclude each other, because kwok picks by chance among those that match."""
    running = {"statusTemplate": render_pod_status(ready=False) + INIT_CONTAINERS_TEMPLATE + ADDRESSES_TEMPLATE}
    ready_at_once = {"statusTemplate": render_pod_status(ready=True) + INIT_CONTAINERS_TEMPLATE + ADDRESSES_TEMPLATE}
    loaded = {"statusTemplate": render_pod_status(ready=True)}
    gone = {"delete": True}
    # deletionTimestamp is the end of the grace period, and kwok subtracts the present from a time.
    after_grace = {"durationMilliseconds": 0, "durationFrom": {"expressionFrom": ".metadata.deletionTimestamp"}}
    heartbeat = {"durationMilliseconds": 600_000, "jitterDurationMilliseconds": 610_000}
    is_running = match(".status.phase", "In", "Running")
    node = {"statusTemplate": NODE_TEMPLATE}
    return [
        render_stage("node-initialize", "Node", [NOT_READY], node),
        render_stage("node-heartbeat", "Node", [match(READY_QUERY, "In", "True")], node, heartbeat),
        render_stage("pod-running", "Pod", [ALIVE, PENDING, HAS_GPU], running),
        render_stage("pod-running-without-gpu", "Pod", [ALIVE, PENDING, HAS_NO_GPU], ready_at_once),
        render_stage("pod-ready", "Pod", [ALIVE, is_running, NOT_READY, HAS_GPU, LOADED], loaded),
        render_stage("pod-delete", "Pod", [LEAVING, FREE, HAS_NO_GPU], gone),
        render_stage("pod-delete-drained", "Pod", [LEAVING, FREE, HAS_GPU, DRAINED], gone),
        render_stage("pod-delete-after-grace", "Pod", [LEAVING, FREE, HAS_GPU, NOT_DRAINED], gone, after_grace),
    ]


def render_stages_file() -> str:
    """Kwok's `--config`."""
    return yaml.safe_dump_all(render_stages(), sort_keys=False)


def render_node(name: str, index: int, gpu: Gpu | None, kubelet_version: str) -> dict[str, Any]:
    """A node: `index` numbers its pod network 10.244.<index>.0/24; GPU nodes are labelled and tainted."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
    capacity = {"cpu": "128", "memory": "1Ti", "ephemeral-storage": "4Ti", "pods": "250"}
    spec: dict[str, Any] = {"providerID": f"kwok://{name}", "podCIDR": f"10.244.{index}.0/24"}
    spec["podCIDRs"] = [spec["podCIDR"]]
    if gpu is not None:
        labels |= {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": gpu.product,
            "nvidia.com/gpu.count": str(GPUS_PER_NODE),
            "nvidia.com/gpu.memory": str(gpu.memory_mib),
        }
        capacity[GPU_RESOURCE] = str(GPUS_PER_NODE)
        spec["taints"] = [{"key": GPU_RESOURCE, "value": "present", "effect": "NoSchedule"}]
    status = {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [{"type": "InternalIP", "address": HOST_IP}, {"type": "Hostname", "address": name}],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "",
            "containerRuntimeVersion": "kwok",
            "kernelVersion": "kwok",
            "kubeProxyVersion": "",
            "kubeletVersion": kubelet_version,
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "emulated",
            "systemUUID": "",
        },
    }
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}


def render_nodes(counts: Mapping[str, int], kubelet_version: str) -> list[dict[str, Any]]:
    """`{"l4": 2, "cpu": 1}` -> nodes l4-0, l4-1, cpu-0."""
    names = [(f"{kind}-{number}", GPUS.get(kind)) for kind, count in counts.items() for number in range(count)]
    return [render_node(name, index, gpu, kubelet_version) for index, (name, gpu) in enumerate(names, start=1)]
