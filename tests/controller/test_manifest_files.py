"""Files of `wattzoo simulate` and `wattzoo plan`: what is read, and that each mistake names object, field and rule."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.controller.zoo_files import accelerator_pool, service, write_csv, write_outcomes, write_zoo, zoo
from wattzoo.cli.fleet_model import check_promises, make_fleet
from wattzoo.cli.manifest_files import ManifestError, read_manifests
from wattzoo.cli.outcome_files import FileError
from wattzoo.cli.trace_files import match_members, read_accuracies, read_trace
from wattzoo.errors import InvalidSpec
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape

ROOT = Path(__file__).resolve().parents[2]
Objects = list[dict[str, Any]]


def test_the_demo_is_read_as_kubectl_would_apply_it() -> None:
    found = read_manifests([ROOT / "examples/demo", ROOT / "examples/profiles"])
    fleet = make_fleet(found)
    assert found.others == {"Namespace": 1, "Gateway": 1}
    assert [pool.accelerators for pool in fleet.pools] == [8, 32, 16]
    assert [v.name for v in fleet.variants] == ["small/l4", "medium/a100", "large/h100"]
    assert [s.name for s in fleet.services] == ["chat", "search"]
    assert fleet.services[0].latency == LatencyTarget(2.0, 0.06)
    small, _, large = fleet.variants
    assert small.model.max_sequences == 64  # from the server's arguments
    assert large.min_replicas == 2
    assert large.model.accelerators == 4
    assert large.model.idle_watts == 464.0


def test_objects_without_a_namespace_are_where_the_others_are(tmp_path: Path) -> None:
    found = read_manifests([write_zoo(tmp_path / "zoo.yaml")])
    assert {ref.namespace for ref in found.profiles} == {"demo"}
    with pytest.raises(InvalidSpec, match=r"no ModelProfile demo/small-a100; there are other/"):
        read_manifests([write_zoo(tmp_path / "zoo.yaml")], namespace="other")


def test_a_folder_is_read_without_its_subfolders(tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo.yaml")
    (tmp_path / "old").mkdir()
    write_zoo(tmp_path / "old" / "zoo.yaml")
    assert len(read_manifests([tmp_path]).services) == 1


def test_a_pool_takes_its_size_from_its_nodes(tmp_path: Path) -> None:
    def change(objects: Objects) -> None:
        del objects[1]["spec"]["maxAccelerators"]
        for number in range(3):
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": f"h100-{number}", "labels": objects[1]["spec"]["nodeSelector"]},
                    "status": {
                        "capacity": {"nvidia.com/gpu": "4"},
                        "allocatable": {"nvidia.com/gpu": "4"},
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                }
            )

    fleet = make_fleet(read_manifests([write_zoo(tmp_path / "zoo.yaml", change)]))
    pools = {pool.name: pool for pool in fleet.pools}
    assert pools["h100"].accelerators == 12
    assert pools["h100"].node_accelerators == (4, 4, 4)
    assert pools["a100"].node_accelerators == (8,)


def test_variants_of_several_pools_keep_apart(tmp_path: Path) -> None:
    objects = zoo()
    other = {**objects[4], "metadata": {"name": "zoo-b", "namespace": "demo"}}
    written = write_zoo(tmp_path / "zoo.yaml", objects=[*objects, other, service("search", pool="zoo-b")])
    fleet = make_fleet(read_manifests([written]))
    assert [v.name for v in fleet.variants] == [
        "zoo/small/a100",
        "zoo/large/h100",
        "zoo-b/small/a100",
        "zoo-b/large/h100",
    ]
    assert fleet.services[1].members == ("zoo-b/small", "zoo-b/large")


def _set(path: tuple[str | int, ...], value: Any) -> Callable[[Objects], None]:
    def change(objects: Objects) -> None:
        target: Any = objects
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def _points_of_no_machine(objects: Objects) -> None:
    for number, point in enumerate(objects[2]["spec"]["points"]):
        step = number * number * 10_000 + 1
        point["timePerOutputTokenMicroseconds"] = {"p50": step, "p95": step}


MEMBERS = (4, "spec", "members")
BAD_OBJECTS: dict[str, tuple[Callable[[Objects], None], tuple[str, ...]]] = {
    "negative power": (
        _set((2, "spec", "points", 1, "powerWatts"), -5),
        ("ModelProfile/demo/small-a100", "spec.points[1].powerWatts", "greater than or equal to 1", "-5"),
    ),
    "one point": (
        lambda objects: objects[2]["spec"].update(points=objects[2]["spec"]["points"][:1]),
        ("ModelProfile/demo/small-a100", "spec.points", "at least 2 items"),
    ),
    "a pool without accelerators": (
        _set((1, "spec", "maxAccelerators"), 0),
        ("AcceleratorPool/h100", "spec.maxAccelerators", "at least 1", "got 0"),
    ),
    "a pool of unknown size": (
        lambda objects: objects[1]["spec"].pop("maxAccelerators"),
        ("AcceleratorPool/h100", "spec.maxAccelerators", "Required value"),
    ),
    "an unknown profile": (
        _set((*MEMBERS, 1, "variants", 0, "profile"), "nothing"),
        ("ModelPool/demo/zoo", "spec.members[1].variants[0].profile", "no ModelProfile demo/nothing"),
    ),
    "an unknown pool": (
        _set((*MEMBERS, 0, "variants", 0, "acceleratorPool"), "tpu"),
        ("ModelPool/demo/zoo", "spec.members[0].variants[0].acceleratorPool", "no AcceleratorPool tpu"),
    ),
    "a closed pool": (
        _set((0, "spec", "allowedNamespaces", "names"), ["other"]),
        ("ModelPool/demo/zoo", "spec.members[0].variants[0].acceleratorPool", "not open to namespace demo"),
    ),
    "a replica larger than a node": (
        _set((*MEMBERS, 1, "variants", 0, "acceleratorsPerReplica"), 16),
        ("ModelPool/demo/zoo", "spec.members[1].variants[0].acceleratorsPerReplica", "fit on one node", "got 16"),
    ),
    "more at least than there is": (
        _set((*MEMBERS, 1, "variants", 0, "minReplicas"), 9),
        ("ModelPool/demo/zoo", "spec.members[1].variants[0].minReplicas", "these need 36", "got 9"),
    ),
    "a service of an unknown zoo": (
        _set((5, "spec", "modelPoolRef", "name"), "park"),
        ("LLMService/demo/chat", "spec.modelPoolRef.name", "no ModelPool demo/park"),
    ),
    "an unknown member": (
        _set((5, "spec", "members", 0, "name"), "tiny"),
        ("LLMService/demo/chat", "spec.members[0].name", "no such member"),
    ),
    "an empty latency block": (
        _set((5, "spec", "sla", "latency"), {}),
        ("LLMService/demo/chat", "spec.sla.latency", "at least one of"),
    ),
    "an unknown field": (
        _set((5, "spec", "sla", "latencies"), {}),
        ("LLMService/demo/chat", "spec.sla.latencies", "unknown field"),
    ),
    "another version": (
        _set((5, "apiVersion"), "wattzoo.dev/v1"),
        ("LLMService/demo/chat", "apiVersion", "must be wattzoo.dev/v1alpha1"),
    ),
    "points of no machine": (
        _points_of_no_machine,
        ("ModelProfile/demo/small-a100", "spec.points"),
    ),
}


@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_a_wrong_object_is_named_with_field_and_rule(case: str, tmp_path: Path) -> None:
    change, parts = BAD_OBJECTS[case]
    with pytest.raises(InvalidSpec) as caught:
        make_fleet(read_manifests([write_zoo(tmp_path / "zoo.yaml", change)]))
    for part in parts:
        assert part in str(caught.value)


PROMISES = {
    "an accuracy nobody reaches": (
        ("accuracy", {"targetPerMille": 700}),
        ("spec.sla.accuracy.targetPerMille", "the best, large, satisfies 630", "got 700"),
    ),
    "a latency nobody keeps": (
        ("latency", {"timePerOutputToken": {"p95Milliseconds": 5}}),
        ("spec.sla.latency", "no variant keeps it", "time per output token 5 ms"),
    ),
    "a latency that only the worse member keeps": (
        ("latency", {"timePerOutputToken": {"p95Milliseconds": 14}}),
        ("spec.sla.accuracy.targetPerMille", "contradicts spec.sla.latency", "small, satisfies 430"),
    ),
}


@pytest.mark.parametrize("case", PROMISES)
def test_a_contradictory_service_level_is_refused(case: str, tmp_path: Path) -> None:
    (field, value), parts = PROMISES[case]
    written = write_zoo(tmp_path / "zoo.yaml", lambda objects: objects[5]["spec"]["sla"].update({field: value}))
    fleet = make_fleet(read_manifests([written]))
    with pytest.raises(InvalidSpec, match="LLMService/demo/chat: ") as caught:
        check_promises(fleet, {"chat": {"small": 0.43, "large": 0.63}}, {"chat": RequestShape(1000.0, 200.0)})
    for part in parts:
        assert part in str(caught.value)


def test_files_that_are_no_manifests(tmp_path: Path) -> None:
    cases = {
        "a: [": "line 2: not readable YAML",
        "- a list": "must be a Kubernetes object",
        "kind: ModelPool": "document 1: apiVersion: Required value",
        "apiVersion: v1\nkind: Pod": "Pod: metadata.name: Required value",
        "apiVersion: wattzoo.dev/v1alpha1\nkind: Pool\nmetadata: {name: a}": "Pool/default/a: kind: must be one of",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}": "no AcceleratorPool among the objects",
    }
    for text, message in cases.items():
        path = tmp_path / "file.yaml"
        path.write_text(text + "\n", encoding="utf-8")
        with pytest.raises((ManifestError, InvalidSpec)) as caught:
            read_manifests([path])
        assert message in str(caught.value)
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_manifests([tmp_path / "nothing"])
    twice = write_zoo(tmp_path / "zoo.yaml", lambda objects: objects.append(accelerator_pool("a100", 1, "NVIDIA-L4")))
    with pytest.raises(ManifestError, match="AcceleratorPool a100 is there twice"):
        read_manifests([twice])


def test_a_later_path_replaces_what_an_earlier_one_says(tmp_path: Path) -> None:
    first = write_zoo(tmp_path / "zoo.yaml")
    second = write_zoo(tmp_path / "more.yaml", objects=[accelerator_pool("a100", 3, "NVIDIA-A100-SXM4-80GB")])
    assert make_fleet(read_manifests([first, second])).pools[0].accelerators == 3
    assert make_fleet(read_manifests([second, first])).pools[0].accelerators == 8


def test_a_routed_variant_is_left_out_with_a_note(tmp_path: Path) -> None:
    routed = {"name": "api", "profile": "small-a100", "serviceRef": {"name": "hosted", "port": 80}}

    def change(objects: Objects) -> None:
        objects[4]["spec"]["members"][0]["variants"].append(routed)

    fleet = make_fleet(read_manifests([write_zoo(tmp_path / "zoo.yaml", change)]))
    assert [v.name for v in fleet.variants] == ["small/a100", "large/h100"]
    assert fleet.notes == ("small/api is left out: replicas behind a serviceRef are not WattZoo's to plan",)


SERVICES = {"chat": "chat", "demo/chat": "chat"}
TWO = {"chat": "chat", "search": "search"}


def test_a_trace_keeps_times_tokens_and_services(tmp_path: Path) -> None:
    rows = [[100, 10, 5, "search"], [100.5, 20, 6, "chat"], [103, 30, 7, "search"]]
    path = write_csv(tmp_path / "t.csv", ["t_s", "in_tokens", "out_tokens", "service"], rows)
    trace = read_trace(path, TWO)
    assert trace.at_seconds.tolist() == [0.0, 0.5, 3.0]
    assert trace.means() == {"chat": (1, 20.0, 6.0), "search": (2, 20.0, 6.0)}
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_trace(packed, TWO).service.tolist() == trace.service.tolist() == [1, 0, 1]
    assert read_trace(path, TWO, all_to="chat").means() == {"chat": (3, 20.0, 6.0)}


def test_a_trace_in_parquet_is_the_same_trace(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    columns = {"t_s": [0.0, 2.0], "in_tokens": [10, 20], "out_tokens": [5, 6], "service": ["search", "chat"]}
    parquet.write_table(arrow.table(columns), path)
    assert read_trace(path, TWO).means() == {"chat": (1, 20.0, 6.0), "search": (1, 10.0, 5.0)}


def test_a_long_trace_is_read_in_blocks(tmp_path: Path) -> None:
    rows = ([n / 10, 100, 50] for n in range(120_000))
    trace = read_trace(write_csv(tmp_path / "t.csv", ["t_s", "in_tokens", "out_tokens"], rows), SERVICES)
    assert trace.length == 120_000
    assert trace.at_seconds[-1] == pytest.approx(11_999.9)


HEADER = ["t_s", "in_tokens", "out_tokens"]
BAD_TRACES: dict[str, tuple[list[str], list[list[Any]], str]] = {
    "no tokens": (["t_s", "in_tokens"], [[0, 1]], "column out_tokens: is missing; there are t_s, in_tokens"),
    "empty": (HEADER, [], "the trace is empty"),
    "unsorted": (HEADER, [[5, 1, 1], [4, 1, 1]], "column t_s: times must not fall: 4 (row 2) comes after 5"),
    "text": (HEADER, [[0, 1, 1], [1, "many", 1]], "column in_tokens: line 3: 'many' is not a number"),
    "short row": (HEADER, [[0, 1, 1], [1, 2]], "column out_tokens: line 3 has only 2 fields"),
    "negative": (HEADER, [[0, -1, 1]], "column in_tokens: must be a number of at least 0, not -1 (row 1)"),
    "not finite": (HEADER, [["nan", 1, 1]], "column t_s: must be a number, not nan (row 1)"),
    "no answers": (HEADER, [[0, 5, 0]], "column out_tokens: no request has an output token"),
    "unknown service": ([*HEADER, "service"], [[0, 1, 1, "mail"]], "column service: there is no LLMService 'mail'"),
    "whose are they": (
        HEADER,
        [[0, 1, 1]],
        "column service: is missing and there are several LLMServices (chat, search)",
    ),
}


@pytest.mark.parametrize("case", BAD_TRACES)
def test_a_wrong_trace_is_named_with_column_and_rule(case: str, tmp_path: Path) -> None:
    header, rows, message = BAD_TRACES[case]
    with pytest.raises(FileError) as caught:
        read_trace(write_csv(tmp_path / "trace.csv", header, rows), TWO if "whose" in case else SERVICES)
    assert "trace.csv" in str(caught.value)
    assert message in str(caught.value)


def test_outcomes_are_of_the_member_by_name_or_by_model(tmp_path: Path) -> None:
    wide = write_outcomes(tmp_path / "wide.csv")
    assert read_accuracies(wide) == {"small": pytest.approx(0.43), "large": pytest.approx(0.63)}
    rows = [[f"q{n}", model, int(n < right)] for model, right in (("small-8b", 4), ("large-70b", 9)) for n in range(10)]
    long = read_accuracies(write_csv(tmp_path / "long.csv", ["request_id", "model", "correct"], rows))
    members = {"small": "org/small-8b", "large": "org/large-70b"}
    assert match_members(tmp_path, long, members) == {"small": 0.4, "large": 0.9}
    spelled = {"Meta-Large_70B": 0.9, "other-70b": 0.1}
    assert match_members(tmp_path, spelled, {"large": "org/large-70b"}) == {"large": 0.9}
    with pytest.raises(FileError, match=r"column model: has no outcomes of member tiny \(org/tiny\)"):
        match_members(tmp_path, long, {"tiny": "org/tiny"})


def test_a_trace_of_the_shipped_example_belongs_to_the_demo() -> None:
    trace = read_trace(ROOT / "examples/simulate/trace.csv.gz", TWO)
    assert trace.length == 19_366
    assert read_accuracies(ROOT / "examples/simulate/outcomes.csv.gz")["large"] == pytest.approx(0.6262, abs=1e-4)
