"""The emulated model servers and the load generator on the real control plane."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from e2e.cluster import Cluster
from e2e.cluster.paths import REPOSITORY_DIR
from e2e.emulator.launch import (
    EMULATOR,
    LOAD,
    read_stats,
    set_faults,
    source_environment,
    start_emulator,
    start_load,
)
from e2e.scenarios.emulated_workload import MEMBER_HEADER, PROFILE, render_profile, render_workload
from e2e.stack import LOAD_URL, eventually

HOSTNAME = "medium.example"
NAME = "medium"
STARTUP_SECONDS = 3
ROWS = 200
LONG_TOKENS = 1000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests q0..q199 of 300 prompt tokens and 250 output tokens, every other one satisfied, and a long one."""
    rows = [f"q{i},test,300,250,{i % 2}" for i in range(ROWS)]
    path = tmp_path_factory.mktemp("emulator") / "table.csv"
    header = f"request_id,service,prompt_tokens,{NAME}_out_tokens,{NAME}_correct"
    path.write_text("\n".join([header, *rows, f"long,other,300,{LONG_TOKENS},1"]), "utf-8")
    return path


@pytest.fixture(scope="module")
def emulator(cluster: Cluster, table: Path) -> Iterator[None]:
    """The emulator with our table; one that other scenarios left running comes back afterwards."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY_DIR / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(REPOSITORY_DIR / "crds"))
    others = cluster.processes()[EMULATOR]["argv"] if cluster.alive(EMULATOR) else None
    if others:
        cluster.stop(EMULATOR)
    start_emulator(cluster, ["--table", str(table), "--drain-quiet-seconds", "2"])
    yield
    cluster.stop(EMULATOR)
    if others:
        cluster.start(EMULATOR, others, source_environment())


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
    return found


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def ready_pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return [pod for pod in pods(cluster, namespace) if is_ready(pod)]


def start_workload(cluster: Cluster, namespace: str, replicas: int) -> None:
    profile = render_profile(namespace, startup_seconds=STARTUP_SECONDS)
    apply(cluster, profile, *render_workload(namespace, NAME, replicas, HOSTNAME, NAME))


def wait_for_ready(cluster: Cluster, namespace: str, replicas: int) -> list[str]:
    """Return the addresses of the ready pods."""

    def look() -> list[str] | None:
        found = ready_pods(cluster, namespace)
        return [pod["status"]["podIP"] for pod in found] if len(found) == replicas else None

    return eventually(look, 30.0, f"{replicas} ready pods")


def question(request_id: str, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "What would you say?"}]
    return {"model": "any", "request_id": request_id, "messages": messages} | more


def ask(url: str, request_id: str, **more: object) -> requests.Response:
    body = question(request_id, **more)
    stream = bool(more.get("stream"))
    return requests.post(f"{url}/v1/chat/completions", json=body, headers={"Host": HOSTNAME}, timeout=60, stream=stream)


def gateway_answers(url: str) -> bool:
    """Whether the route is there; a listener of an earlier test's Gateway may still be on its way out."""
    try:
        return ask(url, "q1", max_tokens=1).status_code == 200
    except requests.exceptions.ConnectionError:
        return False


def read_events(response: requests.Response) -> list[tuple[float, str]]:
    """Return (arrival time, data) of every server-sent event."""
    lines = response.iter_lines(chunk_size=None)
    return [(time.monotonic(), line.decode().removeprefix("data: ")) for line in lines if line]


def read_sent() -> int:
    """How many requests the load generator has sent."""
    try:
        return int(requests.get(LOAD_URL, timeout=5).json().get("sent", 0))
    except requests.exceptions.ConnectionError:
        return 0  # it has not begun


def query(cluster: Cluster, expression: str) -> float | None:
    answer = requests.get(f"{cluster.prometheus_url}/api/v1/query", params={"query": expression}, timeout=5)
    result = answer.json()["data"]["result"]
    return float(result[0]["value"][1]) if result else None


@pytest.mark.usefixtures("emulator")
def test_pod_is_ready_after_its_start_and_answers_from_the_table(cluster: Cluster, namespace: str) -> None:
    start_workload(cluster, namespace, 1)
    address = eventually(lambda: next((pod["status"].get("podIP") for pod in pods(cluster, namespace)), None))
    began = time.monotonic()
    url = f"http://{address}:8000"
    eventually(lambda: read_stats()["pods"])
    assert requests.get(f"{url}/health", timeout=5).status_code == 503
    assert ask(url, "q0").status_code == 503
    wait_for_ready(cluster, namespace, 1)
    assert STARTUP_SECONDS - 1 < time.monotonic() - began < STARTUP_SECONDS + 5

    assert requests.get(f"{url}/health", timeout=5).status_code == 200
    assert requests.get(f"{url}/v1/models", timeout=5).json()["data"][0]["id"] == PROFILE
    answer = ask(url, "q1")
    assert answer.headers["x-emulator-satisfied"] == "1"
    body = answer.json()
    assert body["usage"] == {"prompt_tokens": 300, "completion_tokens": 250, "total_tokens": 550}
    assert body["choices"][0]["message"]["content"].split() == ["emulated"] * 250
    assert ask(url, "q0", max_tokens=10).json()["choices"][0]["finish_reason"] == "length"
    assert ask(url, "q0", max_tokens=10).headers["x-emulator-satisfied"] == "0"
    assert ask(url, "q0", max_tokens=0).status_code == 400


@pytest.mark.usefixtures("emulator")
def test_a_stream_is_flushed_at_most_ten_times_a_second_and_ends_with_usage(cluster: Cluster, namespace: str) -> None:
    start_workload(cluster, namespace, 1)
    (address,) = wait_for_ready(cluster, namespace, 1)
    events = read_events(ask(f"http://{address}:8000", "q1", stream=True, stream_options={"include_usage": True}))
    assert events[-1][1] == "[DONE]"
    chunks = [(at, json.loads(data)) for at, data in events[:-1]]
    assert chunks[-1][1]["usage"]["completion_tokens"] == 250
    assert chunks[-1][1]["choices"] == []
    content = [chunk["choices"][0]["delta"]["content"] for _, chunk in chunks[:-1]]
    assert "".join(content).split() == ["emulated"] * 250
    # 250 tokens at 12 ms take 3 s: no more than 30 flushes, not one for each token
    times = [at for at, _ in chunks[:-2]]
    assert 5 < len(times) <= 31
    assert (times[-1] - times[0]) / (len(times) - 1) > 0.1


@pytest.mark.usefixtures("emulator")
def test_requests_through_the_gateway_show_in_prometheus(cluster: Cluster, namespace: str) -> None:
    start_workload(cluster, namespace, 2)
    wait_for_ready(cluster, namespace, 2)
    url = cluster.apply_gateway(namespace)
    eventually(lambda: gateway_answers(url), 40.0)
    answers = [ask(url, "q1") for _ in range(4)]
    assert {answer.headers[MEMBER_HEADER] for answer in answers} == {NAME}
    mine = f'namespace="{namespace}"'
    eventually(lambda: (query(cluster, f"sum(vllm:generation_tokens_total{{{mine}}})") or 0) >= 1001)
    in_a_second = f'sum(vllm:time_to_first_token_seconds_bucket{{{mine},le="1.0"}})'
    eventually(lambda: query(cluster, in_a_second) == 5)
    power = f"sum(DCGM_FI_DEV_POWER_USAGE{{{mine}}})"
    eventually(lambda: query(cluster, power) == 160.0)  # two at rest, 80 W resident each
    free = 'count(DCGM_FI_DEV_POWER_USAGE{Hostname=~"a100-.*",pod=""} == 53)'
    assert query(cluster, free) == 14.0  # two nodes of eight
    energy = query(cluster, f"sum(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{mine}}}) / 1000")
    # more than four answers of 3 s at 295 W and a bit of rest
    assert energy is not None
    assert energy > 4 * 3 * 295


def wait_for_more_sent(count: int) -> None:
    """Wait until so many more requests were sent: at twenty a second five seconds for a hundred."""
    goal = read_sent() + count
    eventually(lambda: read_sent() >= goal, 60.0, f"{count} more requests")


@pytest.mark.usefixtures("emulator")
def test_no_request_fails_while_pods_come_and_go(cluster: Cluster, namespace: str, table: Path, tmp_path: Path) -> None:
    start_workload(cluster, namespace, 3)
    wait_for_ready(cluster, namespace, 3)
    url = cluster.apply_gateway(namespace)
    eventually(lambda: gateway_answers(url), 40.0)
    before = read_stats()
    summary_file = tmp_path / "summary.json"
    load = ["--table", str(table), "--service", f"{namespace}/test={HOSTNAME}", "--minutes", "5", "--peak-rps", "20"]
    start_load(cluster, [*load, "--output", str(tmp_path / "load.jsonl"), "--summary", str(summary_file)])
    wait_for_more_sent(100)
    cluster.kubectl("scale", "deployment", NAME, "-n", namespace, "--replicas=2")
    eventually(lambda: len(pods(cluster, namespace)) == 2, 60.0, "one pod has drained and gone")
    wait_for_more_sent(100)
    cluster.kubectl("scale", "deployment", NAME, "-n", namespace, "--replicas=4")
    wait_for_ready(cluster, namespace, 4)
    wait_for_more_sent(100)
    victim = ready_pods(cluster, namespace)[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", victim, "-n", namespace, "--wait=false")
    eventually(lambda: victim not in cluster.kubectl("get", "pods", "-n", namespace, "-o", "name"), 60.0, "it has gone")
    wait_for_more_sent(100)
    feedback = f'sum(wattzoo_feedback_total{{namespace="{namespace}",service="test",member="{NAME}"}})'
    eventually(lambda: (query(cluster, feedback) or 0) > 300)
    cluster.stop(LOAD, 60.0)  # it sends nothing more and waits for what it has sent

    summary = json.loads(summary_file.read_text("utf-8"))
    assert summary["failed"] == 0, summary["errors"]
    assert summary["sent"] >= 400
    yes, no = (summary["satisfied"][f"{namespace}/test"][key] for key in ("yes", "no"))
    assert yes + no == summary["sent"]
    assert abs(yes - no) <= ROWS  # every round through the table has as many of both
    stats = read_stats()
    assert stats["valid"], stats["verdict"]
    assert stats["unknown_outcomes"] == before["unknown_outcomes"]
    completed = (s["attainment_by_host"][HOSTNAME]["requests"] for s in (stats, before))
    assert next(completed) - next(completed) == summary["sent"]


@pytest.mark.usefixtures("emulator")
def test_a_pod_that_is_gone_cuts_its_connections(cluster: Cluster, namespace: str) -> None:
    start_workload(cluster, namespace, 1)
    (address,) = wait_for_ready(cluster, namespace, 1)
    cluster.kubectl("scale", "deployment", NAME, "-n", namespace, "--replicas=0")
    response = ask(f"http://{address}:8000", "long", stream=True)  # it still answers: it is draining
    assert response.status_code == 200
    cluster.kubectl("delete", "pods", "--all", "-n", namespace, "--force", "--grace-period=0")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        read_events(response)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"http://{address}:8000/health", timeout=5)


@pytest.mark.usefixtures("emulator")
def test_a_client_that_leaves_frees_the_server(cluster: Cluster, namespace: str) -> None:
    start_workload(cluster, namespace, 1)
    (address,) = wait_for_ready(cluster, namespace, 1)
    url = f"http://{address}:8000"
    with requests.Session() as session:
        body = question("long", stream=True)
        response = session.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=10)
        next(response.iter_lines())
        assert "vllm:num_requests_running" in requests.get(f"{url}/metrics", timeout=5).text
        response.close()

    def page() -> list[str]:
        return requests.get(f"{url}/metrics", timeout=5).text.splitlines()

    eventually(lambda: f'vllm:num_requests_running{{model_name="{PROFILE}"}} 0' in page(), 5.0)
    assert f'vllm:request_success_total{{model_name="{PROFILE}",finished_reason="abort"}} 1' in page()


@pytest.mark.usefixtures("emulator")
def test_faults_are_seen_where_the_operator_looks(cluster: Cluster, namespace: str) -> None:
    set_faults(freeze_loading=PROFILE)
    start_workload(cluster, namespace, 1)
    eventually(lambda: any(name.startswith(f"{namespace}/") for name in read_stats()["pods"]))
    time.sleep(STARTUP_SECONDS + 2)  # longer than a start: that it does not end takes time to see
    assert ready_pods(cluster, namespace) == []
    set_faults(freeze_loading=None, report_nan_power=True)
    wait_for_ready(cluster, namespace, 1)
    mine = f'DCGM_FI_DEV_POWER_USAGE{{namespace="{namespace}"}}'
    eventually(lambda: (watts := query(cluster, mine)) is not None and watts != watts)  # noqa: PLR0124 (NaN alone differs)
    set_faults(report_nan_power=False)
    eventually(lambda: query(cluster, mine) == 80.0)
