"""From an object as the API server gives it to a frozen model, or an `InvalidSpec` that names field, value and rule.

The CRD refuses the same objects; parsing again is for those stored before a rule existed and for tools without a
cluster. A status that cannot be read is logged and dropped: it is the operator's own writing, and a stale one must not
keep the object from being served.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wattzoo.api.accelerator_pool import AcceleratorPool, AcceleratorPoolSpec, AcceleratorPoolStatus
from wattzoo.api.base import API_VERSION, DNS_LABEL_PATTERN, ApiModel, ObjectMeta, get_path
from wattzoo.api.llm_service import LLMService, LLMServiceSpec
from wattzoo.api.llm_service_status import LLMServiceStatus
from wattzoo.api.model_pool import ModelPool, ModelPoolSpec, ModelPoolStatus
from wattzoo.api.model_profile import ModelProfile, ModelProfileSpec, ModelProfileStatus
from wattzoo.errors import InvalidSpec, Problem

Resource = AcceleratorPool | ModelPool | ModelProfile | LLMService
Model = TypeVar("Model", bound=ApiModel)

MAX_NAME_LENGTH = 63
MAX_VALUE_LENGTH = 80

_WORDING = {
    "missing": "Required value",
    "extra_forbidden": "unknown field",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "less_than_equal": "should be less than or equal to {le}",
    "string_pattern_mismatch": "should match '{pattern}'",
    "string_too_short": "should be at least {min_length} chars long",
    "string_too_long": "may not be more than {max_length} bytes",
    "too_short_items": "should have at least {min_length} items",
    "too_long_items": "must have at most {max_length} items",
    "too_short_properties": "should have at least {min_length} properties",
    "too_long_properties": "must have at most {max_length} items",
}
_TYPES = (
    ("int_", "integer"),
    ("bool_", "boolean"),
    ("string_type", "string"),
    ("tuple_type", "array"),
    ("dict_type", "object"),
    ("model_type", "object"),
    ("datetime_", "date-time"),
    ("timezone_", "date-time"),
)

log = logging.getLogger(__name__)


def parse_accelerator_pool(raw: Mapping[str, Any]) -> AcceleratorPool:
    """An AcceleratorPool from plain data; raises InvalidSpec."""
    name = _check_identity(raw, "AcceleratorPool")
    return AcceleratorPool(
        metadata=_parse_metadata(raw, name),
        spec=_parse_spec(AcceleratorPoolSpec, raw, name),
        status=_parse_status(AcceleratorPoolStatus, raw, name),
    )


def parse_model_pool(raw: Mapping[str, Any]) -> ModelPool:
    """A ModelPool from plain data; raises InvalidSpec."""
    name = _check_identity(raw, "ModelPool")
    return ModelPool(
        metadata=_parse_metadata(raw, name),
        spec=_parse_spec(ModelPoolSpec, raw, name),
        status=_parse_status(ModelPoolStatus, raw, name),
    )


def parse_model_profile(raw: Mapping[str, Any]) -> ModelProfile:
    """A ModelProfile from plain data; raises InvalidSpec."""
    name = _check_identity(raw, "ModelProfile")
    return ModelProfile(
        metadata=_parse_metadata(raw, name),
        spec=_parse_spec(ModelProfileSpec, raw, name),
        status=_parse_status(ModelProfileStatus, raw, name),
    )


def parse_llm_service(raw: Mapping[str, Any]) -> LLMService:
    """An LLMService from plain data; raises InvalidSpec."""
    name = _check_identity(raw, "LLMService")
    return LLMService(
        metadata=_parse_metadata(raw, name),
        spec=_parse_spec(LLMServiceSpec, raw, name),
        status=_parse_status(LLMServiceStatus, raw, name),
    )


PARSERS: dict[str, Callable[[Mapping[str, Any]], Resource]] = {
    "AcceleratorPool": parse_accelerator_pool,
    "ModelPool": parse_model_pool,
    "ModelProfile": parse_model_profile,
    "LLMService": parse_llm_service,
}


def parse(raw: Mapping[str, Any]) -> Resource:
    """An object of any of the four kinds from plain data; raises InvalidSpec, also for an unknown kind."""
    parser = PARSERS.get(str(raw.get("kind")))
    if parser is None:
        raise InvalidSpec(
            _object_name(raw), (Problem("kind", _shown(raw.get("kind")), f"must be one of {', '.join(PARSERS)}"),)
        )
    return parser(raw)


def _object_name(raw: Mapping[str, Any]) -> str:
    parts = (raw.get("kind"), get_path(raw, ("metadata", "namespace")), get_path(raw, ("metadata", "name")))
    return "/".join(str(part) for part in parts if part)


def _check_identity(raw: Mapping[str, Any], kind: str) -> str:
    """Refuse another kind or version; the object's name for messages."""
    name = _object_name(raw)
    problems = tuple(
        Problem(field, _shown(raw.get(field)), f"must be {wanted}")
        for field, wanted in (("apiVersion", API_VERSION), ("kind", kind))
        if raw.get(field) != wanted
    )
    if problems:
        raise InvalidSpec(name, problems)
    return name


def _parse_metadata(raw: Mapping[str, Any], obj: str) -> ObjectMeta:
    metadata = _validate(ObjectMeta, raw.get("metadata"), "metadata", obj)
    if len(metadata.name) > MAX_NAME_LENGTH:
        rule = f"may not be more than {MAX_NAME_LENGTH} bytes"
        raise InvalidSpec(obj, (Problem("metadata.name", _shown(metadata.name), rule),))
    if not re.fullmatch(DNS_LABEL_PATTERN, metadata.name):
        rule = f"should match '{DNS_LABEL_PATTERN}'"
        raise InvalidSpec(obj, (Problem("metadata.name", _shown(metadata.name), rule),))
    return metadata


def _parse_spec(model: type[Model], raw: Mapping[str, Any], obj: str) -> Model:
    return _validate(model, raw.get("spec"), "spec", obj)


def _parse_status(model: type[Model], raw: Mapping[str, Any], obj: str) -> Model:
    """The status, or an empty one where there is none or where it cannot be read (logged)."""
    try:
        return _validate(model, raw.get("status") or {}, "status", obj)
    except InvalidSpec as unreadable:
        log.warning("status dropped, it cannot be read: %s", unreadable)
        return model()


def _validate(model: type[Model], data: Any, root: str, obj: str) -> Model:
    """`data` as `model`, by wire names only; raises InvalidSpec with paths that start at `root`."""
    if data is None:
        raise InvalidSpec(obj, (Problem(root, "nothing", "Required value"),))
    try:
        return model.model_validate(_without_nulls(data), by_alias=True, by_name=False)
    except ValidationError as invalid:
        errors = [error for error in invalid.errors(include_url=False) if not _is_echo(error, invalid)]
        problems = tuple(_problem(error, root) for error in errors)
        raise InvalidSpec(obj, problems) from invalid


def _without_nulls(data: Any) -> Any:
    """Plain data as the API server stores it: a field that is null is absent (templates write such)."""
    if isinstance(data, Mapping):
        return {key: _without_nulls(value) for key, value in data.items() if value is not None}
    return [_without_nulls(item) for item in data] if isinstance(data, list) else data


def _is_echo(error: ErrorDetails, invalid: ValidationError) -> bool:
    """A list that pydantic calls too short only because its items are invalid."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in invalid.errors(include_url=False)
    )


def _problem(error: ErrorDetails, root: str) -> Problem:
    """One pydantic error as field path, value and rule; a rule's own field is looked up below its model."""
    context = error.get("ctx", {})
    path = root
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    value = error["input"]
    below = str(context.get("field", ""))
    if below.startswith("["):
        value = get_path(value, (int(below.strip("[]")),))
    elif below:
        value = get_path(value, below.strip(".").split("."))
    missing = error["type"] == "missing"
    return Problem(
        path + below, "nothing" if missing else _shown(value), _wording(error["type"], context, error["msg"])
    )


def _wording(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Pydantic's error in the API server's words, so that a rule reads the same wherever it is broken."""
    if kind in {"literal_error", "enum"}:
        return "supported values: " + str(context["expected"]).replace("'", '"').replace(" or ", ", ")
    if kind in {"too_short", "too_long"}:
        unit = "properties" if context.get("field_type") == "Dictionary" else "items"
        kind = f"{kind}_{unit}"
    for prefix, name in _TYPES:
        if kind.startswith(prefix):
            return f"must be of type {name}"
    template = _WORDING.get(kind)
    return message if template is None else template.format(**context)


def _shown(value: Any) -> str:
    """A value as JSON, cut to a length that fits a condition; None reads `nothing`."""
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"
