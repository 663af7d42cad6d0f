"""Run the image's operator once against the harness's control plane, as a kubelet would: non-root on a read-only root.

There is no container runtime in the harness, so its part is done here: the image's file system is bound read-only, the
service account's files are mounted where a pod has them, and the image's entry point starts as user 65532 with the
chart's arguments. It must win the Lease, become ready and end cleanly.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.cluster import Cluster
from e2e.cluster.build import binaries
from e2e.cluster.init import HOST_IP
from e2e.operator_process import NAMESPACE, RELEASE, OperatorProcess, install_chart, read_deployment, render_command

USER = "65532:65532"
ENTER = """
set -eu
root=$1 token=$2 authority=$3 user=$4; shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
account=$root/run/secrets/kubernetes.io/serviceaccount
mkdir -p "$account"
cp "$token" "$account/token"; cp "$authority" "$account/ca.crt"; chmod -R a+rX "$root/run"
mount --rbind /proc "$root/proc"; mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" /opt/wattzoo/bin/wattzoo "$@"
"""


class ImageProcess(OperatorProcess):
    """The operator of the image whose file system is at `root`."""

    def start_from(self, root: Path, token: Path) -> None:
        """Start with the chart's arguments and a pod's environment."""
        arguments, env = render_command(read_deployment(self.cluster), self.identity, self.replica)
        env |= {"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": HOST_IP, "KUBERNETES_SERVICE_PORT": "6443", "HOME": "/"}
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            ENTER,
            "enter",
            root,
            token,
            self.cluster.ca_file,
            USER,
            *arguments,
        ]
        self.cluster.start(self.name, [str(part) for part in command], env)


@contextmanager
def mounted(tag: str) -> Iterator[Path]:
    """The image's file system, for as long as the block runs."""
    container = buildah("from", tag)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("umount", container)
        buildah("rm", container)


def buildah(*arguments: str) -> str:
    """Run buildah and return what it says."""
    done = subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def try_image(tag: str, cluster: Cluster, root: Path) -> None:
    """Start, lead, be ready, stop; raises when one of them does not happen."""
    install_chart(cluster)
    token = cluster.run_dir / "token"
    token.touch(mode=0o600)
    token.write_text(cluster.kubectl("create", "token", RELEASE, "--namespace", NAMESPACE).strip())
    operator = ImageProcess(cluster)
    started = time.monotonic()
    operator.start_from(root, token)
    try:
        cluster.wait_until(lambda: operator.leading() or not operator.alive(), 60.0, "the image's operator leads")
        ready = f"{operator.health_url}/readyz"
        cluster.wait_until(lambda: operator.fetch(ready)[0] == 200 or not operator.alive(), 30.0, "it is ready")
        seconds = time.monotonic() - started
        user = cluster.exec(
            ["stat", "-c", "%u", f"/proc/{cluster.processes()[operator.name]['pid']}"], capture_output=True
        )
        operator.stop()
        code = cluster.processes()[operator.name]["exit_code"]
    except BaseException:
        print(cluster.tail(operator.name))
        raise
    if code != 0:
        raise RuntimeError(f"the image's operator ended with {code}\n{cluster.tail(operator.name)}")
    print(f"image: {tag} led, was ready after {seconds:.1f} s as user {user.stdout.decode().strip()}, ended cleanly")


def main() -> int:
    """Run as `scripts/try_image.py TAG`; skips where the harness is not built."""
    if not all(path.exists() for path in binaries().values()):
        print("image: not run: the cluster harness is not built; `make cluster-build` builds it")
        return 0
    with mounted(sys.argv[1]) as root, tempfile.TemporaryDirectory(prefix="wattzoo-image-") as folder:
        cluster = Cluster.up(Path(folder) / "run", tied=True)
        try:
            try_image(sys.argv[1], cluster, root)
        finally:
            cluster.down(keep_logs=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
