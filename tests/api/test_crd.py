"""The generated CRDs: complete, bounded, equal to the models and to the committed files."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.cases import good_samples
from wattzoo.api import crd, reference
from wattzoo.api.crd import KINDS, KindInfo, render_crd, render_schema
from wattzoo.api.parse import parse
from wattzoo.api.structural import RULES_KEY

ROOT = Path(__file__).parents[2]
each_kind = pytest.mark.parametrize("info", KINDS, ids=lambda info: info.kind)

Node = dict[str, Any]


def nodes(schema: Node, path: str) -> Iterator[tuple[str, Node]]:
    """Every node of a schema with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def parts(info: KindInfo) -> Node:
    """spec and status of a kind."""
    properties: Node = render_schema(info)["properties"]
    return {name: properties[name] for name in ("spec", "status")}


@each_kind
def test_every_field_path_has_a_description(info: KindInfo) -> None:
    fields = [node for node in nodes({"properties": parts(info)}, "") if node[0] and not node[0].endswith("[]")]
    assert len(fields) > 5
    assert [path for path, node in fields if not node.get("description", "").endswith(".")] == []


@each_kind
def test_every_string_list_map_and_number_of_the_spec_is_bounded(info: KindInfo) -> None:
    needed = {"string": {"maxLength"}, "array": {"maxItems"}, "integer": {"minimum", "maximum"}}
    unbounded = [
        path
        for path, node in nodes(parts(info)["spec"], "spec")
        if "enum" not in node and "format" not in node and not needed.get(node.get("type", ""), set()) <= node.keys()
    ]
    assert unbounded == []
    maps = [node for _, node in nodes(parts(info)["spec"], "spec") if "additionalProperties" in node]
    assert all("maxProperties" in node for node in maps)


@each_kind
def test_texts_and_lists_of_the_status_are_bounded_and_nothing_in_it_is_required(info: KindInfo) -> None:
    status = parts(info)["status"]
    for path, node in nodes(status, "status"):
        if node.get("type") == "string" and "enum" not in node and "format" not in node:
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
    assert "required" not in status


@each_kind
def test_the_schema_is_structural(info: KindInfo) -> None:
    for path, node in nodes({"properties": parts(info)}, ""):
        forbidden = {"$ref", "$defs", "allOf", "oneOf", "const", "title", "nullable", "propertyNames"} & node.keys()
        assert not forbidden, path
        assert node.get("additionalProperties") is not False, path
        assert "type" in node or "properties" in node or node.get("x-kubernetes-int-or-string"), path
        assert "null" not in str(node.get("anyOf", "")), path
        assert node.get("type") != "number", f"{path}: no floats"


@each_kind
def test_every_list_says_how_it_merges_and_map_lists_have_their_keys(info: KindInfo) -> None:
    for path, node in nodes({"properties": parts(info)}, ""):
        if node.get("type") == "array":
            assert node.get("x-kubernetes-list-type") in {"map", "set", "atomic"}, path
            for key in node.get("x-kubernetes-list-map-keys", ()):
                assert key in node["items"]["required"], path


@each_kind
def test_every_rule_points_at_a_field_that_exists_and_ends_its_message_without_a_stop(info: KindInfo) -> None:
    for path, node in nodes(parts(info)["spec"], "spec"):
        for rule in node.get(RULES_KEY, ()):
            assert not rule["message"].endswith("."), path
            if "fieldPath" in rule:
                assert rule["fieldPath"].removeprefix(".") in node["properties"], path


@each_kind
def test_every_column_reads_a_field_of_the_schema(info: KindInfo) -> None:
    schema = {"properties": {**parts(info), "metadata": {"properties": {"creationTimestamp": {"type": "string"}}}}}
    for column in info.columns:
        node: Node = schema
        for step in column.path.partition("[")[0].strip(".").split("."):
            node = node["properties"][step]
        wanted = {"date": "string"}.get(column.type, column.type)
        assert node["type"] == ("array" if "[" in column.path else wanted), column.path


def test_names_and_columns_are_those_that_people_were_promised() -> None:
    names = {info.kind: render_crd(info)["spec"]["names"] for info in KINDS}
    assert {kind: entry["shortNames"] for kind, entry in names.items()} == {
        "AcceleratorPool": ["accpool"],
        "ModelPool": ["mpool"],
        "ModelProfile": ["mprof"],
        "LLMService": ["llmsvc"],
    }
    assert all(entry["categories"] == ["wattzoo"] for entry in names.values())
    assert [info.kind for info in KINDS if info.scope == "Cluster"] == ["AcceleratorPool"]
    service = next(info for info in KINDS if info.kind == "LLMService")
    assert [column.name for column in service.columns if not column.wide] == [
        *("SLA", "Achieved", "J/Req", "Power", "Policy", "Ready", "Age")
    ]
    assert [column.name for column in service.columns if column.wide] == ["Debt", "Latency", "Reason"]


def with_defaults(value: Any, schema: Node) -> Any:
    """What the API server's defaulting makes of a value: absent fields with a default appear, depth first."""
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = copy.deepcopy(part["default"])
            if name in value:
                value[name] = with_defaults(value[name], part)
    if isinstance(value, list):
        return [with_defaults(item, schema["items"]) for item in value]
    return value


@pytest.mark.parametrize("manifest", good_samples().values(), ids=good_samples().keys())
def test_defaults_of_the_crd_are_those_of_the_models(manifest: dict[str, Any]) -> None:
    info = next(info for info in KINDS if info.kind == manifest["kind"])
    defaulted = with_defaults(copy.deepcopy(manifest), render_schema(info))
    written = {key: value for key, value in parse(manifest).spec.to_manifest().items() if value not in ([], {})}
    assert parse(defaulted).spec == parse(manifest).spec
    assert with_defaults(copy.deepcopy(written), parts(info)["spec"]) == written, "the models know every default"


def test_the_committed_files_are_those_of_the_models() -> None:
    assert crd.main(["--check", str(ROOT / "crds")]) == 0
    assert reference.main(["--check", str(ROOT / "docs" / "reference" / "api.md")]) == 0


def test_check_finds_a_changed_a_missing_and_a_foreign_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--write", str(tmp_path)]) == 0
    assert crd.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "modelpools.wattzoo.dev.yaml").unlink()
    (tmp_path / "llmservices.wattzoo.dev.yaml").write_text("kind: CustomResourceDefinition\n")
    (tmp_path / "zebras.yaml").write_text("{}\n")
    assert crd.main(["--check", str(tmp_path)]) == 1
    listed = capsys.readouterr().err
    assert "llmservices.wattzoo.dev.yaml, modelpools.wattzoo.dev.yaml, zebras.yaml" in listed
    assert "acceleratorpools" not in listed


def test_the_yaml_reads_back_as_rendered() -> None:
    texts = crd.render_crds()
    assert {name: yaml.safe_load(text) for name, text in texts.items()} == {
        info.file_name: render_crd(info) for info in KINDS
    }


def test_reference_lists_every_field_once_per_table() -> None:
    page = reference.reference_markdown()
    for info in KINDS:
        for name, schema in parts(info).items():
            for field in reference.walk_fields(schema, name):
                assert f"| `{field.path}` |" in page
    assert "|  |  |  |" not in page.replace("\n", ""), "a row without type, bounds and default says nothing"
