"""The CustomResourceDefinitions, generated from the models: `python -m wattzoo.api.crd --write DIR | --check DIR`.

The files are committed so that a reader, Helm and GitOps see them; `--check` keeps them equal to the models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from wattzoo.api.accelerator_pool import AcceleratorPool, AcceleratorPoolSpec, AcceleratorPoolStatus
from wattzoo.api.base import DNS_LABEL_PATTERN, GROUP, VERSION
from wattzoo.api.llm_service import LLMService, LLMServiceSpec
from wattzoo.api.llm_service_status import LLMServiceStatus
from wattzoo.api.model_pool import ModelPool, ModelPoolSpec, ModelPoolStatus
from wattzoo.api.model_profile import ModelProfile, ModelProfileSpec, ModelProfileStatus
from wattzoo.api.structural import structural_schema

HEADER = "# Generated from the models of wattzoo.api by `make generate`; do not edit.\n"
CATEGORY = "wattzoo"
READY = '.status.conditions[?(@.type=="Ready")].status'


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; a wide one is shown with `-o wide`."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def as_printer_column(self) -> dict[str, Any]:
        """The entry of `additionalPrinterColumns`."""
        entry = {"name": self.name, "type": self.type, "description": self.description, "jsonPath": self.path}
        return entry | ({"priority": 1} if self.wide else {})


AGE = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", "date")


@dataclass(frozen=True, slots=True)
class KindInfo:
    """What a CRD says beside the schema."""

    model: type[BaseModel]
    spec: type[BaseModel]
    status: type[BaseModel]
    plural: str
    short_name: str
    scope: str
    columns: tuple[Column, ...]

    @property
    def kind(self) -> str:
        """The kind's name, which is the model's."""
        return self.model.__name__

    @property
    def file_name(self) -> str:
        """Name of the generated file."""
        return f"{self.plural}.{GROUP}.yaml"


KINDS = (
    KindInfo(
        AcceleratorPool,
        AcceleratorPoolSpec,
        AcceleratorPoolStatus,
        plural="acceleratorpools",
        short_name="accpool",
        scope="Cluster",
        columns=(
            Column("Nodes", ".status.nodes", "Nodes that match the selector.", "integer"),
            Column("Accelerators", ".status.accelerators", "Accelerators that those nodes have.", "integer"),
            Column("Used", ".status.allocatedByWattZoo", "Accelerators held by WattZoo's pods.", "integer"),
            Column("Max", ".spec.maxAccelerators", "Most accelerators that WattZoo may hold.", "integer"),
            Column("Power", ".status.powerWatts", "Measured watts of those in use.", "integer"),
            Column("Ready", READY, "Whether the pool can be used."),
            AGE,
            Column("Short", ".status.shortSince", "Since when accelerators are missing.", "date", wide=True),
            Column("Budget", ".spec.powerBudgetWatts", "Most modelled watts.", "integer", wide=True),
        ),
    ),
    KindInfo(
        ModelPool,
        ModelPoolSpec,
        ModelPoolStatus,
        plural="modelpools",
        short_name="mpool",
        scope="Namespaced",
        columns=(
            Column("Serves", ".spec.servedModelName", "The model name that clients ask for."),
            Column("Replicas", ".status.readyReplicas", "Replicas ready.", "integer"),
            Column("Desired", ".status.desiredReplicas", "Replicas wanted.", "integer"),
            Column("Accelerators", ".status.accelerators", "Accelerators held.", "integer"),
            Column("Power", ".status.powerWatts", "Measured watts.", "integer"),
            Column("Mode", ".spec.mode", "Act or Observe."),
            Column("Ready", READY, "Whether at least one member can answer."),
            AGE,
            Column("Modelled", ".status.plan.watts", "Watts that the plan expects.", "integer", wide=True),
            Column("Reason", ".status.plan.reason", "Why the plan is what it is.", wide=True),
        ),
    ),
    KindInfo(
        ModelProfile,
        ModelProfileSpec,
        ModelProfileStatus,
        plural="modelprofiles",
        short_name="mprof",
        scope="Namespaced",
        columns=(
            Column("Provenance", ".spec.provenance.kind", "Measured, Published or Derived."),
            Column("KVTokens", ".spec.kvCacheTokens", "Tokens that the key-value cache holds.", "integer"),
            Column("Startup", ".spec.startup.seconds", "Seconds that a start takes.", "integer"),
            Column("Resident", ".spec.residentWatts", "Watts with nothing running.", "integer"),
            Column("Ready", READY, "Whether its figures can be those of one replica."),
            AGE,
            Column("Source", ".spec.provenance.source", "Where the figures come from.", wide=True),
        ),
    ),
    KindInfo(
        LLMService,
        LLMServiceSpec,
        LLMServiceStatus,
        plural="llmservices",
        short_name="llmsvc",
        scope="Namespaced",
        columns=(
            Column("SLA", ".status.sla.target", "Promised share of satisfied requests."),
            Column("Achieved", ".status.sla.achieved", "Share delivered so far."),
            Column("J/Req", ".status.energy.joulesPerRequest", "Joules per request."),
            Column("Power", ".status.energy.powerWatts", "Watts.", "integer"),
            Column("Policy", ".spec.controller.policy", "Controller policy."),
            Column("Ready", READY, "Whether requests can be answered."),
            AGE,
            Column(
                "Debt", ".status.sla.debtRequests", "Satisfied requests owed; negative: ahead.", "integer", wide=True
            ),
            Column("Latency", ".status.sla.latency", "p95 to the first token / per output token.", wide=True),
            Column("Reason", ".status.decision.reason", "Why the weights are what they are.", wide=True),
        ),
    ),
)


def render_schema(info: KindInfo) -> dict[str, Any]:
    """The `openAPIV3Schema` of a kind; names are DNS labels, since they become label values and Service names."""
    return {
        "description": info.model.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {
                "description": f"Version of this representation: {GROUP}/{VERSION}.",
                "type": "string",
            },
            "kind": {"description": f"Kind of the object: {info.kind}.", "type": "string"},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 63, "pattern": DNS_LABEL_PATTERN}},
            },
            "spec": structural_schema(info.spec),
            "status": structural_schema(info.status),
        },
    }


def render_crd(info: KindInfo) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "wattzoo"}},
        "spec": {
            "group": GROUP,
            "scope": info.scope,
            "names": {
                "kind": info.kind,
                "listKind": f"{info.kind}List",
                "plural": info.plural,
                "singular": info.kind.lower(),
                "shortNames": [info.short_name],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": render_schema(info)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.as_printer_column() for column in info.columns],
                }
            ],
        },
    }


def render_crds() -> dict[str, str]:
    """File name -> text of every generated CRD."""
    return {
        info.file_name: HEADER + yaml.safe_dump(render_crd(info), sort_keys=False, width=110, allow_unicode=True)
        for info in KINDS
    }


def differing_files(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Names of the files that are missing, differ, or are YAML in the directory without being ours."""
    present = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.yaml")}
    return sorted(name for name in present.keys() | files.keys() if present.get(name) != files.get(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the CRDs; 1 when a check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m wattzoo.api.crd", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="DIR", help="write the CRDs into this folder")
    action.add_argument("--check", type=Path, metavar="DIR", help="fail when a file there differs from the models")
    arguments = parser.parse_args(argv)
    files = render_crds()
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (arguments.write / name).write_text(text, encoding="utf-8")
        return 0
    differing = differing_files(arguments.check, files)
    if differing:
        sys.stderr.write(f"differs from the models, run `make generate`: {', '.join(differing)}\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
