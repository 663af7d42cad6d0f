"""Which model a pod plays: read from the labels that the operator renders, or from an annotation on anyone's pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

POOL_LABEL = "wattzoo.dev/model-pool"
MEMBER_LABEL = "wattzoo.dev/member"
VARIANT_LABEL = "wattzoo.dev/variant"
PROFILE_KEY = "emulator.wattzoo.dev/profile"
MEMBER_KEY = "emulator.wattzoo.dev/member"
GPU_RESOURCE = "nvidia.com/gpu"

KubeObject = Mapping[str, Any]
Named = Mapping[tuple[str, str], KubeObject]


@dataclass(frozen=True, slots=True)
class Role:
    """What a pod plays. `variant` names it in statistics; `served_model` None answers to every model name."""

    profile: str
    member: str
    variant: str
    served_model: str | None


def gpu_count(pod: KubeObject) -> int:
    """Return the GPUs that the pod's containers request together."""
    total = 0
    for container in pod["spec"].get("containers", ()):
        resources = container.get("resources", {})
        wish = resources.get("requests", {}).get(GPU_RESOURCE) or resources.get("limits", {}).get(GPU_RESOURCE) or 0
        total += int(wish)
    return total


def resolve_role(pod: KubeObject, pools: Named) -> Role | None:
    """Return the role of a pod, None while its ModelPool is not known or does not name the variant."""
    metadata = pod["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    namespace = metadata["namespace"]
    explicit = annotations.get(PROFILE_KEY) or labels.get(PROFILE_KEY)
    if explicit:
        return _role_of_profile(explicit, namespace, annotations.get(MEMBER_KEY) or labels.get(MEMBER_KEY), pools)
    pool = pools.get((namespace, labels.get(POOL_LABEL, "")))
    wanted = (labels.get(MEMBER_LABEL), labels.get(VARIANT_LABEL))
    for member, variant in _variants(pool):
        if (member["name"], variant["name"]) == wanted and "profile" in variant:
            return _role(pool, member, variant)
    return None


def _role_of_profile(profile: str, namespace: str, member_name: str | None, pools: Named) -> Role:
    """Return the role of a pod that names its profile: the variant that adopts it, or a role of its own."""
    for (pool_namespace, _), pool in sorted(pools.items()):
        if pool_namespace != namespace:
            continue
        for member, variant in _variants(pool):
            if variant.get("profile") == profile and member_name in {None, member["name"]}:
                return _role(pool, member, variant)
    return Role(profile, member_name or profile, profile, served_model=None)


def _variants(pool: KubeObject | None) -> Iterable[tuple[KubeObject, KubeObject]]:
    for member in (pool or {}).get("spec", {}).get("members", ()):
        for variant in member.get("variants", ()):
            yield member, variant


def _role(pool: KubeObject | None, member: KubeObject, variant: KubeObject) -> Role:
    metadata, spec = (pool or {})["metadata"], (pool or {})["spec"]
    name = f"{metadata['name']}-{member['name']}-{variant['name']}"
    return Role(variant["profile"], member["name"], name, spec.get("servedModelName"))
