"""Reads the YAML that kubectl takes into the snapshot that the operator decides about, and checks what refers to what.

Everything goes through the operator's own parsers and its own view of a cluster, so that what runs here is what would
run there. A reference that leads nowhere is a condition in a cluster, where the missing object may still come; here
nothing will come, so it is an error that names object, field and rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wattzoo.api.accelerator_pool import AcceleratorPool
from wattzoo.api.base import GROUP
from wattzoo.api.llm_service import LLMService
from wattzoo.api.model_pool import ModelPool
from wattzoo.api.model_profile import ModelProfile
from wattzoo.api.parse import PARSERS, parse
from wattzoo.decide.caps import node_accelerators
from wattzoo.errors import InvalidSpec, Problem
from wattzoo.model import ClusterSnapshot, Manifest, Ref

DEFAULT_NAMESPACE = "default"
_SUFFIXES = (".yaml", ".yml", ".json")
_CLUSTER_SCOPED = ("AcceleratorPool", "Node", "Namespace", "GatewayClass")

YamlLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestError(ValueError):
    """A file cannot be used; the text names it, the document and the rule."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """The parsed objects of all files, and the same as the snapshot of a cluster in which nothing runs yet.

    others: kinds that were read and play no part, with their number.
    """

    accelerator_pools: Mapping[str, AcceleratorPool]
    model_pools: Mapping[Ref, ModelPool]
    profiles: Mapping[Ref, ModelProfile]
    services: Mapping[Ref, LLMService]
    snapshot: ClusterSnapshot
    others: Mapping[str, int]


def read_manifests(paths: Sequence[Path], namespace: str | None = None) -> Manifests:
    """Return the objects of these files and folders (not their subfolders; several documents in a file).

    As when they are applied in turn, an object of a later path replaces the same one of an earlier path. namespace: of
    objects that name none; without it the one namespace that the others name, else `default`.
    Raises `ManifestError` for what is no manifest and `InvalidSpec` for an object that breaks a rule.
    """
    documents = [(path, *document) for path in paths for document in _documents(path)]
    used = namespace or _only_namespace([document for _, _, document in documents])
    parsed: dict[tuple[str, Ref], Any] = {}
    raw: dict[tuple[str, Ref], Manifest] = {}
    others: dict[str, int] = {}
    given: set[tuple[Path, str, Ref]] = set()
    for path, where, document in documents:
        kind, obj = str(document["kind"]), _with_identity(document, used, where)
        ref = Ref(obj["metadata"].get("namespace", ""), str(obj["metadata"]["name"]))
        if (path, kind, ref) in given:
            raise ManifestError(f"{where}: {kind} {ref} is there twice in {path}")
        given.add((path, kind, ref))
        raw[kind, ref] = obj
        if str(document["apiVersion"]).startswith(f"{GROUP}/") or kind in PARSERS:
            parsed[kind, ref] = parse(obj)
        elif kind not in {"Deployment", "Node"}:
            others[kind] = others.get(kind, 0) + 1
    found = _sorted_out(parsed, raw, others)
    _check_presence(found, paths)
    for ref, pool in found.model_pools.items():
        _check_model_pool(ref, pool, found)
    for ref, service in found.services.items():
        _check_service(ref, service, found)
    return found


def _documents(path: Path) -> Iterator[tuple[str, Manifest]]:
    """Yield each object with where it stands; lists are unfolded as kubectl does."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
        if not files:
            raise ManifestError(f"{path}: the folder holds no {', '.join(_SUFFIXES)} file")
    elif path.is_file():
        files = [path]
    else:
        raise ManifestError(f"{path}: there is no such file or folder")
    for file in files:
        for number, document in enumerate(_load(file), start=1):
            if document is None:
                continue
            where = f"{file}, document {number}"
            items = document.get("items") if isinstance(document, dict) and document.get("kind") == "List" else None
            for item in items if isinstance(items, list) else [document]:
                yield where, _checked(item, where)


def _load(file: Path) -> list[Any]:
    try:
        return list(yaml.load_all(file.read_text(encoding="utf-8"), Loader=YamlLoader))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ManifestError(f"{file}{line}: not readable YAML ({error.problem or 'syntax error'})") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{file}: not readable YAML ({str(error).splitlines()[0]})") from error


def _checked(document: Any, where: str) -> Manifest:
    if not isinstance(document, dict):
        raise ManifestError(f"{where}: must be a Kubernetes object, not {type(document).__name__}")
    for name in ("apiVersion", "kind"):
        if not isinstance(document.get(name), str):
            raise ManifestError(f"{where}: {name}: Required value (got {document.get(name)!r})")
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ManifestError(f"{where}: {document['kind']}: metadata.name: Required value")
    return document


def _only_namespace(documents: Sequence[Manifest]) -> str:
    named = {
        document["metadata"].get("namespace")
        for document in documents
        if str(document["apiVersion"]).startswith(f"{GROUP}/")
    } - {None, ""}
    return str(next(iter(named))) if len(named) == 1 else DEFAULT_NAMESPACE


def _with_identity(document: Manifest, namespace: str, where: str) -> Manifest:
    """Return the object as an API server would hold it: in a namespace, with a uid and a generation."""
    kind, metadata = document["kind"], dict(document["metadata"])
    if kind in _CLUSTER_SCOPED:
        metadata.pop("namespace", None)
    else:
        metadata["namespace"] = metadata.get("namespace") or namespace
    metadata |= {"uid": f"{kind}/{metadata.get('namespace', '')}/{metadata['name']} ({where})", "generation": 1}
    return {**document, "metadata": metadata}


def _sorted_out(
    parsed: Mapping[tuple[str, Ref], Any], raw: Mapping[tuple[str, Ref], Manifest], others: Mapping[str, int]
) -> Manifests:
    def of(kind: str) -> dict[Ref, Manifest]:
        return {ref: obj for (of_kind, ref), obj in raw.items() if of_kind == kind}

    def typed(kind: str) -> dict[Ref, Any]:
        return {ref: obj for (of_kind, ref), obj in sorted(parsed.items()) if of_kind == kind}

    return Manifests(
        accelerator_pools={ref.name: pool for ref, pool in typed("AcceleratorPool").items()},
        model_pools=typed("ModelPool"),
        profiles=typed("ModelProfile"),
        services=typed("LLMService"),
        snapshot=ClusterSnapshot(
            accelerator_pools={ref.name: obj for ref, obj in of("AcceleratorPool").items()},
            model_pools=of("ModelPool"),
            profiles=of("ModelProfile"),
            llm_services=of("LLMService"),
            deployments=of("Deployment"),
            services={},
            disruption_budgets={},
            routes={},
            pods=(),
            nodes=tuple(of("Node").values()),
        ),
        others=others,
    )


def _check_presence(found: Manifests, paths: Sequence[Path]) -> None:
    for kind, objects in (
        ("AcceleratorPool", found.accelerator_pools),
        ("ModelPool", found.model_pools),
        ("ModelProfile", found.profiles),
        ("LLMService", found.services),
    ):
        if not objects:
            raise ManifestError(f"{', '.join(map(str, paths))}: no {kind} among the objects; at least one is needed")


def _check_model_pool(ref: Ref, pool: ModelPool, found: Manifests) -> None:
    for m, member in enumerate(pool.spec.members):
        for v, variant in enumerate(member.variants):
            path = f"spec.members[{m}].variants[{v}]"
            profile = Ref(ref.namespace, variant.profile)
            if profile not in found.profiles:
                rule = f"there is no ModelProfile {profile}; there are {_listed(found.profiles)}"
                raise _broken("ModelPool", ref, f"{path}.profile", variant.profile, rule)
            name = variant.accelerator_pool
            if name is None:
                continue
            hardware = found.accelerator_pools.get(name)
            if hardware is None:
                rule = f"there is no AcceleratorPool {name}; there are {_listed(found.accelerator_pools)}"
                raise _broken("ModelPool", ref, f"{path}.acceleratorPool", name, rule)
            if not hardware.spec.admits(ref.namespace):
                rule = f"the AcceleratorPool is not open to namespace {ref.namespace} (its spec.allowedNamespaces)"
                raise _broken("ModelPool", ref, f"{path}.acceleratorPool", name, rule)


def _check_service(ref: Ref, service: LLMService, found: Manifests) -> None:
    wanted = Ref(ref.namespace, service.spec.model_pool_ref.name)
    pool = found.model_pools.get(wanted)
    if pool is None:
        rule = f"there is no ModelPool {wanted}; there are {_listed(found.model_pools)}"
        raise _broken("LLMService", ref, "spec.modelPoolRef.name", wanted.name, rule)
    names = [member.name for member in pool.spec.members]
    asked = [(f"spec.members[{n}].name", member.name) for n, member in enumerate(service.spec.members or ())]
    for field, name in (*asked, ("spec.safestMember", service.spec.safest_member)):
        if name not in names:
            rule = f"ModelPool {wanted} has no such member; it has {', '.join(names)}"
            raise _broken("LLMService", ref, field, name, rule)


def count_nodes(name: str, found: Manifests, per_node: int) -> tuple[int, tuple[int, ...]]:
    """Return the accelerators that may be held of an AcceleratorPool and those of each of its nodes.

    Nodes come from Node objects where the files hold some that the pool selects; else the cap is taken to stand on
    nodes of `per_node` accelerators. Raises `InvalidSpec` for a pool whose size nothing says, or that is empty.
    """
    spec = found.accelerator_pools[name].spec
    selected = [node_accelerators([node], spec)[1:] for node in found.snapshot.nodes]
    sizes = tuple(allocatable for capacity, allocatable in selected if capacity and allocatable)
    cap = spec.max_accelerators
    if cap is None and not sizes:
        rule = "Required value without a cluster: how many accelerators the simulated pool has"
        raise InvalidSpec(f"AcceleratorPool/{name}", (Problem("spec.maxAccelerators", "nothing", rule),))
    if cap == 0:
        rule = "a pool without accelerators can hold no replica: at least 1"
        raise InvalidSpec(f"AcceleratorPool/{name}", (Problem("spec.maxAccelerators", "0", rule),))
    if not sizes:
        sizes = (per_node,) * -(-(cap or 0) // per_node)
    return min(sum(sizes), sum(sizes) if cap is None else cap), sizes


def _broken(kind: str, ref: Ref, field: str, value: object, rule: str) -> InvalidSpec:
    return InvalidSpec(f"{kind}/{ref}", (Problem(field, f'"{value}"', rule),))


def _listed(names: Mapping[Any, object]) -> str:
    return ", ".join(map(str, names)) or "none"
