"""Whether a server-side apply would change anything, judged without asking the server.

An identical apply leaves the object alone but is still a request, an audit entry and a chance to conflict; a steady
fleet must cause none. So what we own is compared with the live object: our fields must be there with our values, and
nothing we applied before may be missing from the body. What the server or others add does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from wattzoo.model import FIELD_MANAGER, Manifest

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
IDENTITY_FIELDS = frozenset({"apiVersion", "kind"})
IDENTITY_METADATA = frozenset({"name", "namespace", "uid", "resourceVersion", "managedFields"})
MERGE_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "volumeMounts": (("mountPath",),),
    "imagePullSecrets": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
}
"""Lists that the server merges by key, by field name; all others are atomic and compared item by item."""
KEY_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}
ATOMIC_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "group": ("", "gateway.networking.k8s.io"),
    "kind": ("Service", "Gateway"),
    "weight": (1,),
    "protocol": ("TCP",),
    "matches": ([{"path": {"type": "PathPrefix", "value": "/"}}],),
    "type": ("PathPrefix",),
    "operator": ("Equal",),
}
"""What the server fills into items of atomic lists. Other surplus fields of an item are ours from before."""
QUANTITY_PARENTS = frozenset({"limits", "requests"})
QUANTITY_FIELDS = frozenset({"sizeLimit"})
SUFFIXES: Mapping[str, Decimal] = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip


def first_difference(body: Manifest, live: Manifest, subresource: str = "") -> str | None:
    """Path of the first owned field that an apply of `body` would change, or None when it would change nothing.

    A status is ours alone and compared exactly, but for times: new times alone are no reason to write.
    """
    if subresource == "status":
        return _compare_exactly(body.get("status"), live.get("status"), "status")
    owned = owned_part(body)
    if subresource == "scale":
        return _compare_owned(owned.get("spec"), live.get("spec"), "spec")
    return _compare_owned(owned, live, "") or _first_removed(_applied_fields(live), owned, "")


def owned_part(body: Manifest) -> Manifest:
    """The body without what merely names the object, and without nulls."""
    part = {key: value for key, value in without_nulls(body).items() if key not in IDENTITY_FIELDS}
    metadata = {key: value for key, value in (part.pop("metadata", None) or {}).items() if key not in IDENTITY_METADATA}
    return part | ({"metadata": metadata} if metadata else {})


def without_nulls(value: Any) -> Any:
    """The same structure without fields that are null: in an apply body null means absent."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def parse_quantity(text: Any) -> Decimal | None:
    """A Kubernetes quantity as a number, or None when it is not one."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([mkMGTP]|[KMGTP]i)?", str(text))
    if match is None:
        return None
    try:
        return Decimal(match[1]) * SUFFIXES[match[2] or ""]
    except InvalidOperation:
        return None


def _compare_owned(ours: Any, live: Any, path: str) -> str | None:
    """Subset comparison; surplus fields of `live` are somebody else's."""
    if isinstance(ours, Mapping):
        if not isinstance(live, Mapping):
            return None if not ours and live is None else path
        for key, value in ours.items():
            found = _compare_field(key, value, live.get(key), f"{path}.{key}".lstrip("."))
            if found:
                return found
        return None
    return None if _same_scalar(ours, live, path) else path


def _compare_field(key: str, ours: Any, live: Any, path: str) -> str | None:
    if not isinstance(ours, Sequence) or isinstance(ours, str):
        return _compare_owned(ours, live, path)
    if not isinstance(live, Sequence) or isinstance(live, str):
        return None if not ours and live is None else path
    keys = _merge_keys(key, ours)
    if keys is None:
        return _compare_atomic(ours, live, path)
    for item in ours:
        other = _find_item(live, {name: item.get(name, KEY_DEFAULTS.get(name)) for name in keys})
        found = path if other is None else _compare_owned(item, other, f"{path}[{item.get(keys[0])}]")
        if found:
            return found
    return None


def _compare_atomic(ours: Any, live: Any, path: str) -> str | None:
    """Comparison inside an atomic list: what is surplus there can only be ours, unless it is a server's default."""
    if isinstance(ours, Mapping) and isinstance(live, Mapping):
        for key in ours.keys() | live.keys():
            if key not in ours and live[key] in ATOMIC_DEFAULTS.get(key, ()):
                continue
            found = _compare_atomic(ours.get(key), live.get(key), f"{path}.{key}")
            if found:
                return found
        return None
    if isinstance(ours, list | tuple) and isinstance(live, list | tuple):
        if len(ours) != len(live):
            return path
        pairs = enumerate(zip(ours, live, strict=True))
        return next((found for i, (a, b) in pairs if (found := _compare_atomic(a, b, f"{path}[{i}]"))), None)
    return None if _same_scalar(ours, live, path) else path


def _compare_exactly(ours: Any, live: Any, path: str) -> str | None:
    """Full comparison of what is ours alone; null is absent, and a time that only moved is no difference."""
    if isinstance(ours, Mapping) or isinstance(live, Mapping):
        left, right = (without_nulls(side) if isinstance(side, Mapping) else {} for side in (ours, live))
        for key in sorted(left.keys() | right.keys()):
            found = _compare_exactly(left.get(key), right.get(key), f"{path}.{key}")
            if found:
                return found
        return None
    if isinstance(ours, list | tuple) or isinstance(live, list | tuple):
        left_items, right_items = list(ours or ()), list(live or ())
        if len(left_items) != len(right_items):
            return path
        pairs = enumerate(zip(left_items, right_items, strict=True))
        return next((found for i, (a, b) in pairs if (found := _compare_exactly(a, b, f"{path}[{i}]"))), None)
    if isinstance(ours, str) and isinstance(live, str) and TIMESTAMP.fullmatch(ours) and TIMESTAMP.fullmatch(live):
        return None
    return None if ours == live else path


def _same_scalar(ours: Any, live: Any, path: str) -> bool:
    if type(ours) is bool or type(live) is bool:
        return ours is live
    if ours == live:
        return True
    *parents, field = path.split(".")
    if field in QUANTITY_FIELDS or any(parent in QUANTITY_PARENTS for parent in parents):
        left, right = parse_quantity(ours), parse_quantity(live)
        return left is not None and left == right
    return False


def _applied_fields(live: Manifest) -> Mapping[str, Any]:
    """The field set that we applied last, as the server recorded it; empty when it recorded none."""
    for entry in (live.get("metadata") or {}).get("managedFields") or ():
        ours = entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        if ours and not entry.get("subresource"):
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return {}


def _first_removed(fields: Mapping[str, Any], ours: Any, path: str) -> str | None:
    """Path of the first field that we applied before and that `ours` has no more."""
    for key, below in fields.items():
        kind, _, name = key.partition(":")
        if kind == "f":
            here = f"{path}.{name}".lstrip(".")
            if not isinstance(ours, Mapping) or name not in ours:
                return here
            child: Any = ours[name]
        elif kind == "k":
            here, keys = f"{path}[{name}]", json.loads(name)
            child = _find_item(ours, keys) if isinstance(ours, list) else None
            if child is None:
                return here
        else:
            continue
        found = _first_removed(below, child, here) if below else None
        if found:
            return found
    return None


def _merge_keys(field: str, items: Sequence[Any]) -> tuple[str, ...] | None:
    candidates = MERGE_KEYS.get(field, ())
    return next((keys for keys in candidates if all(isinstance(i, Mapping) and keys[0] in i for i in items)), None)


def _find_item(items: Sequence[Any], keys: Mapping[str, Any]) -> Any:
    """The item with these key fields, the defaults of absent ones assumed."""
    for item in items:
        if isinstance(item, Mapping) and all(item.get(k, KEY_DEFAULTS.get(k)) == v for k, v in keys.items()):
            return item
    return None
