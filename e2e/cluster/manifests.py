"""The custom resource definitions of Gateway API and Envoy Gateway, taken from the Go module cache at build time.

They are kept as JSON in the cache folder because parsing megabytes of YAML would cost seconds at each start.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.errors import BuildError
from e2e.cluster.paths import cache_dir
from e2e.cluster.programs import program_named
from e2e.cluster.toolchain import Go

SOURCES = (
    ("sigs.k8s.io/gateway-api", "config/crd/standard"),
    ("github.com/envoyproxy/gateway", "charts/gateway-crds-helm/templates/generated"),
)
FORMAT = "2"  # raise it when what this module writes changes


def gateway_program_hash() -> str:
    """The CRDs belong to the versions that Envoy Gateway's module pins."""
    return program_named("envoy-gateway").content_hash()


def manifests_file() -> Path:
    """The cached list of objects (whether or not it is there yet)."""
    return cache_dir() / "bin" / f"gateway-crds-{gateway_program_hash()}-{FORMAT}" / "objects.json"


def without_template_lines(text: str) -> str:
    """Helm's `{{- if }}` and `{{- end }}` lines around a whole CRD; nothing inside the file is templated."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("{{"))


def parse_objects(text: str) -> list[dict[str, Any]]:
    """All objects of a YAML file, template lines removed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(without_template_lines(text), Loader=loader) if document]


def without_prose(value: Any) -> Any:
    """The same schema without its descriptions: two thirds of the bytes, and seconds of the API server's start."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if not (key == "description" and isinstance(part, str))}
        return {key: without_prose(part) for key, part in kept.items()}
    return [without_prose(part) for part in value] if isinstance(value, list) else value


def slim(manifest: dict[str, Any]) -> dict[str, Any]:
    """A CRD without prose and without versions that are not served; other objects as they are."""
    if manifest["kind"] != "CustomResourceDefinition":
        return manifest
    slimmed: dict[str, Any] = without_prose(manifest)
    slimmed["spec"]["versions"] = [version for version in slimmed["spec"]["versions"] if version["served"]]
    return slimmed


def extract_manifests(go: Go) -> None:
    """Write the objects of both modules, read from the module cache, into one JSON file."""
    module_dir = program_named("envoy-gateway").module_dir
    objects: list[dict[str, Any]] = []
    for module, folder in SOURCES:
        command = [str(go.path), "mod", "download", "-json", module]
        done = subprocess.run(
            command, cwd=module_dir, env=go.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildError(f"{' '.join(command)}: {done.stderr.strip()}")
        paths = sorted((Path(json.loads(done.stdout)["Dir"]) / folder).glob("*.yaml"))
        if not paths:
            raise BuildError(f"module {module} has no manifests in {folder}")
        for path in paths:
            objects += map(slim, parse_objects(path.read_text()))
    target = manifests_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(objects))
    partial.rename(target)


def load_manifests() -> list[dict[str, Any]]:
    """The cached objects."""
    objects: list[dict[str, Any]] = json.loads(manifests_file().read_text())
    return objects
