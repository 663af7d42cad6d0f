"""The command line of every component, as data made from the run folder alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.certificates import CONTROLLER_MANAGER, KWOK, SCHEDULER
from e2e.cluster.init import HOST_IP, POD_CIDR

SERVICE_CIDR = "10.96.0.0/16"
PROMETHEUS_PORT = 9090
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  verbs: [get, list, watch]
- level: RequestResponse  # what pods hold, from the answer that makes one to the answer that ends it
  verbs: [create, delete]
  resources: [{group: "", resources: [pods]}]
- level: Metadata
"""


@dataclass(frozen=True)
class Layout:
    """The places of one run folder."""

    run_dir: Path

    @property
    def bin_dir(self) -> Path:
        return self.run_dir / "bin"

    @property
    def logs_dir(self) -> Path:
        return self.run_dir / "logs"

    @property
    def certificates_dir(self) -> Path:
        return self.run_dir / "certificates"

    @property
    def data_dir(self) -> Path:
        """Memory inside the namespace, empty outside."""
        return self.run_dir / "data"

    @property
    def config_dir(self) -> Path:
        return self.run_dir / "config"

    @property
    def audit_log(self) -> Path:
        return self.logs_dir / "audit.log"

    @property
    def gateway_dir(self) -> Path:
        return self.run_dir / "envoy-gateway"

    @property
    def prometheus_dir(self) -> Path:
        return self.run_dir / "prometheus"

    def certificate(self, name: str) -> str:
        return str(self.certificates_dir / name)


@dataclass(frozen=True)
class Component:
    """What `Cluster.start` needs to know."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


def make_etcd(layout: Layout) -> Component:
    """One member on loopback. The data is in memory, so syncing it would only cost time."""
    argv = [str(layout.bin_dir / "etcd"), "--name=e2e", f"--data-dir={layout.data_dir / 'etcd'}", "--unsafe-no-fsync"]
    argv += ["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"]
    argv += ["--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380"]
    argv += ["--initial-cluster=e2e=http://127.0.0.1:2380", "--log-level=warn"]
    return Component("etcd", argv)


def make_api_server(layout: Layout, extra: tuple[str, ...] = ()) -> Component:
    """The API server, its audit log written before each answer so that tests may count writes at once."""
    argv = [str(layout.bin_dir / "control-plane"), "kube-apiserver"]
    argv += ["--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", f"--advertise-address={HOST_IP}"]
    argv += ["--secure-port=6443", f"--tls-cert-file={layout.certificate('server.crt')}"]
    argv += [f"--tls-private-key-file={layout.certificate('server.key')}"]
    argv += [f"--client-ca-file={layout.certificate('ca.crt')}"]
    argv += [f"--service-account-key-file={layout.certificate('service-account.pub')}"]
    argv += [f"--service-account-signing-key-file={layout.certificate('service-account.key')}"]
    argv += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-cluster-ip-range={SERVICE_CIDR}"]
    argv += ["--authorization-mode=Node,RBAC", "--enable-aggregator-routing=true", "--allow-privileged=true"]
    argv += [f"--audit-policy-file={layout.config_dir / 'audit-policy.yaml'}", "--audit-log-mode=blocking"]
    argv += [f"--audit-log-path={layout.audit_log}", "--audit-log-maxsize=1000", *extra]
    # Fewer garbage collections while it builds its schemas: a tenth of the start's processor time.
    return Component("kube-apiserver", argv, {"GOGC": "200"})


def make_controller_manager(layout: Layout) -> Component:
    """The controller manager with one credential per controller, as in real clusters."""
    argv = [str(layout.bin_dir / "control-plane"), "kube-controller-manager"]
    argv += [f"--kubeconfig={layout.certificate(CONTROLLER_MANAGER.file + '.kubeconfig')}"]
    argv += ["--use-service-account-credentials", f"--root-ca-file={layout.certificate('ca.crt')}"]
    argv += [f"--service-account-private-key-file={layout.certificate('service-account.key')}"]
    argv += ["--leader-elect=false", "--allocate-node-cidrs=false", "--bind-address=127.0.0.1"]
    return Component("kube-controller-manager", argv)


def make_scheduler(layout: Layout) -> Component:
    """The scheduler."""
    argv = [str(layout.bin_dir / "control-plane"), "kube-scheduler", "--leader-elect=false", "--bind-address=127.0.0.1"]
    return Component("kube-scheduler", [*argv, f"--kubeconfig={layout.certificate(SCHEDULER.file + '.kubeconfig')}"])


def make_kwok(layout: Layout) -> Component:
    """The kubelet of every node, driven by our own stages."""
    argv = [str(layout.bin_dir / "kwok"), "--manage-all-nodes", f"--cidr={POD_CIDR}", f"--node-ip={HOST_IP}"]
    argv += ["--node-lease-duration-seconds=40", "--enable-crds=", "--server-address=127.0.0.1:10247"]
    argv += [f"--kubeconfig={layout.certificate(KWOK.file + '.kubeconfig')}"]
    return Component("kwok", [*argv, f"--config={layout.config_dir / 'kwok-stages.yaml'}"])


def make_prometheus(layout: Layout) -> Component:
    """Prometheus with its series in memory."""
    argv = [str(layout.bin_dir / "prometheus"), f"--config.file={layout.prometheus_dir / 'prometheus.yaml'}"]
    argv += [f"--storage.tsdb.path={layout.data_dir / 'prometheus'}", "--storage.tsdb.retention.time=2d"]
    argv += [f"--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}", "--storage.tsdb.no-lockfile", "--log.level=warn"]
    return Component("prometheus", [*argv, "--web.enable-lifecycle"])
