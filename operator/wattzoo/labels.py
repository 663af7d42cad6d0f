"""Names, labels and owner references of everything the operator renders: one place, so that selectors cannot drift."""

from __future__ import annotations

import hashlib

from wattzoo.model import (
    FIELD_MANAGER,
    LABEL_ACCELERATOR_POOL,
    LABEL_LLM_SERVICE,
    LABEL_MANAGED_BY,
    LABEL_MEMBER,
    LABEL_MODEL_POOL,
    LABEL_SERVING,
    LABEL_VARIANT,
    Manifest,
    VariantKey,
)

MAX_NAME_LENGTH = 63
HASH_LENGTH = 8


def bound_name(name: str) -> str:
    """A name of at most 63 characters: the end of a longer one is replaced by a hash of the whole."""
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:HASH_LENGTH]
    return f"{name[: MAX_NAME_LENGTH - HASH_LENGTH - 1].rstrip('-.')}-{digest}"


def variant_name(pool: str, key: VariantKey) -> str:
    """Name of a variant's Deployment, Service and PodDisruptionBudget."""
    return bound_name(f"{pool}-{key.member}-{key.variant}")


def selector_labels(pool: str, key: VariantKey) -> dict[str, str]:
    """What identifies a variant's pods; immutable in a Deployment, so it must never grow."""
    return {LABEL_MODEL_POOL: bound_name(pool), LABEL_MEMBER: key.member, LABEL_VARIANT: key.variant}


def variant_labels(pool: str, key: VariantKey) -> dict[str, str]:
    """Labels of every object of a variant."""
    return {LABEL_MANAGED_BY: FIELD_MANAGER, **selector_labels(pool, key)}


def pod_labels(pool: str, key: VariantKey, accelerator_pool: str | None) -> dict[str, str]:
    """Labels of a server's pods: new ones serve without us, since the template says so and no selector names it."""
    placed = {} if accelerator_pool is None else {LABEL_ACCELERATOR_POOL: bound_name(accelerator_pool)}
    return {**variant_labels(pool, key), **placed, LABEL_SERVING: "true"}


def route_labels(service: str, pool: str) -> dict[str, str]:
    """Labels of an LLMService's route."""
    return {
        LABEL_MANAGED_BY: FIELD_MANAGER,
        LABEL_MODEL_POOL: bound_name(pool),
        LABEL_LLM_SERVICE: bound_name(service),
    }


def owner_reference(owner: Manifest) -> dict[str, object]:
    """The controlling owner, which garbage collection follows; it never blocks the owner's own deletion."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
