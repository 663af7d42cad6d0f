"""Envoy Gateway with Kubernetes as its source of configuration and this host as the place where Envoy runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.certificates import ENVOY_GATEWAY
from e2e.cluster.components import Component, Layout
from e2e.cluster.programs import ENVOY_VERSION
from e2e.cluster.prometheus import ENVOY_ADMIN_PORT

NAMESPACE = "envoy-gateway-system"
GATEWAY_CLASS = "wattzoo"
GATEWAY_NAME = "inference-gateway"
LISTENER_PORT = 10080
KEEPER_NAME = "keeper"
KEEPER_PORT = 10079
API_VERSION = "gateway.networking.k8s.io/v1"
# With Kubernetes as its source, Envoy Gateway reads its certificates from /certs whatever it is told. No one but root
# may make that folder, so it gets a root of its own: every top-level folder bound into an empty file system.
PRIVATE_ROOT_SCRIPT = """\
set -eu
root=$1 certificates=$2; shift 2
mount -t tmpfs tmpfs "$root"
for entry in /* ; do
  if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
  elif [ -d "$entry" ] && [ "$entry" != /certs ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"; fi
done
mkdir "$root/certs"; mount --bind "$certificates" "$root/certs"
exec chroot "$root" "$@"
"""


def render_envoy_gateway_config(layout: Layout) -> str:
    """Leader election is off: losing it in an API outage leaves stale routes and a process that ignores SIGTERM."""
    home = layout.gateway_dir
    host = {
        "configHome": str(home),
        "dataHome": str(home / "data"),
        "stateHome": str(home / "state"),
        "runtimeDir": str(home / "run"),
    }
    kubernetes = {"type": "Kubernetes", "kubernetes": {"leaderElection": {"disable": True}}}
    custom = {"resource": kubernetes, "infrastructure": {"type": "Host", "host": host}}
    document = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
        "provider": {"type": "Custom", "custom": custom},
        "logging": {"level": {"default": "info"}},
        "extensionApis": {"enableEnvoyPatchPolicy": True},
    }
    return yaml.safe_dump(document, sort_keys=False)


def render_class() -> list[dict[str, Any]]:
    """The namespace's EnvoyProxy and our GatewayClass.

    All Gateways share one Envoy (each would else want the same admin port). Hot restart is off because its shared
    memory collides with an earlier Envoy's. The admin port is fixed, since Envoy's own metrics listener is off here.
    """
    address = "/admin/address/socket_address"
    patches = [
        {"op": "replace", "path": f"{address}/port_value", "value": ENVOY_ADMIN_PORT},
        {"op": "replace", "path": f"{address}/address", "value": "0.0.0.0"},  # noqa: S104 (inside the namespace)
    ]
    proxy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyProxy",
        "metadata": {"name": GATEWAY_CLASS, "namespace": NAMESPACE},
        "spec": {
            "mergeGateways": True,
            "provider": {"type": "Host", "host": {"envoyVersion": ENVOY_VERSION}},
            "extraArgs": ["--disable-hot-restart"],
            "telemetry": {"accessLog": {"disable": True}},
            "bootstrap": {"type": "JSONPatch", "jsonPatches": patches},
        },
    }
    reference = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": GATEWAY_CLASS, "namespace": NAMESPACE}
    gateway_class = {
        "apiVersion": API_VERSION,
        "kind": "GatewayClass",
        "metadata": {"name": GATEWAY_CLASS},
        "spec": {
            "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
            "parametersRef": reference,
        },
    }
    return [proxy, gateway_class]


def render_gateway(namespace: str, name: str = GATEWAY_NAME, port: int = LISTENER_PORT) -> dict[str, Any]:
    """A Gateway of our class with one HTTP listener that takes routes of every namespace."""
    routes = {"namespaces": {"from": "All"}}
    listener = {"name": "http", "protocol": "HTTP", "port": port, "allowedRoutes": routes}
    return {
        "apiVersion": API_VERSION,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": GATEWAY_CLASS, "listeners": [listener]},
    }


def render_keeper() -> dict[str, Any]:
    """A Gateway without routes: without any Gateway, Envoy would end and start anew between two tests."""
    return render_gateway(NAMESPACE, KEEPER_NAME, KEEPER_PORT)


def listener_name(namespace: str, name: str) -> str:
    """How Envoy names the listener of a Gateway of ours."""
    return f"{namespace}/{name}/http"


def prepare(layout: Layout, envoy: Path) -> None:
    """Write the configuration and lay Envoy where Envoy Gateway would otherwise download it to."""
    home = layout.gateway_dir
    place = home / "data" / "envoy-versions" / ENVOY_VERSION / "bin"
    for folder in (place, home / "state", home / "run", home / "root"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        (place / "envoy").hardlink_to(envoy)
    except OSError:  # another file system
        shutil.copy2(envoy, place / "envoy")
    (home / "envoy-gateway.yaml").write_text(render_envoy_gateway_config(layout))


def environment(layout: Layout) -> dict[str, str]:
    """What every Envoy Gateway call needs in its environment."""
    return {
        "KUBECONFIG": layout.certificate(f"{ENVOY_GATEWAY.file}.kubeconfig"),
        "ENVOY_GATEWAY_NAMESPACE": NAMESPACE,
        "HOME": str(layout.gateway_dir),
    }


def make_certgen(layout: Layout, in_cluster: bool) -> list[str]:
    """The command that makes Envoy Gateway's certificates, as files or as secrets in the cluster."""
    program = [str(layout.bin_dir / "envoy-gateway"), "certgen"]
    if in_cluster:
        return [*program, "--disable-topology-injector"]
    return [*program, "--local", "--config-home", str(layout.gateway_dir)]


def make_envoy_gateway(layout: Layout) -> Component:
    """Envoy Gateway in a mount namespace of its own, with /certs."""
    home = layout.gateway_dir
    argv = ["unshare", "--mount", "/bin/sh", "-c", PRIVATE_ROOT_SCRIPT, "envoy-gateway", str(home / "root")]
    argv += [str(home / "certs" / "envoy-gateway"), str(layout.bin_dir / "envoy-gateway"), "server"]
    argv += ["--config-path", str(home / "envoy-gateway.yaml")]
    return Component("envoy-gateway", argv, environment(layout))
