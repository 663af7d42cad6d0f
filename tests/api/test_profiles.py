"""The shipped ModelProfiles: as the script writes them, accepted, of known origin, and usable as capacity models."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scripts.make_profiles import ROOT, render_profiles
from wattzoo.api.model_profile import ModelProfile
from wattzoo.api.parse import parse
from wattzoo_policies.capacity.fit import ProfilePoint, ReplicaFacts, fit_replica_model
from wattzoo_policies.capacity.interpolation import ProfileCurves
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.techniques.deployment_search import (
    Machine,
    Objective,
    find_deployment,
    make_candidate,
)

SHIPPED = {path.name: path for path in sorted((ROOT / "examples" / "profiles").glob("*.yaml"))}
LICENCES = ("Apache-2.0", "MIT", "own measurement")


def read(path: Path) -> ModelProfile:
    """One shipped profile, through the parser that the operator uses."""
    profile = parse(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert isinstance(profile, ModelProfile)
    return profile


def fit_inputs(profile: ModelProfile) -> tuple[list[ProfilePoint], ReplicaFacts]:
    """Medians and facts in the units of the capacity models."""
    spec = profile.spec
    points = [
        ProfilePoint(
            running_requests=p.running_requests,
            input_tokens=p.input_tokens,
            output_tokens_per_second=p.output_tokens_per_second,
            power_watts=p.power_watts,
            ttft_seconds=p.time_to_first_token_microseconds.p50 / 1e6,
            tpot_seconds=p.time_per_output_token_microseconds.p50 / 1e6,
        )
        for p in spec.points
    ]
    assert spec.resident_watts is not None
    return points, ReplicaFacts(spec.kv_cache_tokens, spec.resident_watts, spec.startup.seconds, max_sequences=2048)


def test_what_is_shipped_is_what_the_script_writes() -> None:
    assert {name: path.read_text(encoding="utf-8") for name, path in SHIPPED.items()} == render_profiles()


def test_every_accelerator_with_measurements_has_profiles() -> None:
    for name in ("-h100", "-h200", "-b200", "-a100"):
        assert any(name in shipped for shipped in SHIPPED), name


@pytest.mark.parametrize("path", SHIPPED.values(), ids=SHIPPED.keys())
def test_a_profile_says_where_it_is_from_and_can_be_used(path: Path) -> None:
    profile = read(path)
    assert profile.metadata.name == path.stem
    source = profile.spec.provenance.source
    assert any(licence in source.partition("Licence: ")[2] for licence in LICENCES), source
    points, facts = fit_inputs(profile)
    assert fit_replica_model(points, facts).model.t0_seconds > 0.0
    curves = ProfileCurves(points, facts, path.stem)
    last = points[-1]
    shape = RequestShape(last.input_tokens, 32.0)
    fits = min(last.running_requests, curves.largest_batch(shape))
    seen = curves.estimate_at_batch(fits, shape)
    assert facts.idle_watts < seen.power_watts.value <= curves.max_watts


def test_the_search_takes_shipped_profiles_as_candidates() -> None:
    """Qwen3 235B in FP8 on a node of 8 H100: two instances give more tokens, one of all eight more per joule."""
    candidates = []
    for count in (4, 8):
        points, facts = fit_inputs(read(SHIPPED[f"qwen3-235b-a22b-fp8-h100x{count}-mlenergy.yaml"]))
        candidates.append(make_candidate(f"h100x{count}", "h100", count, points, facts))
    node = Machine("h100", "h100", 8, 80e9)
    found = {o: find_deployment([node], candidates, RequestShape(512.0, 128.0), o).proposals[0] for o in Objective}
    assert found[Objective.THROUGHPUT].choice.instances == 2
    assert found[Objective.TOKENS_PER_JOULE].choice.tensor_parallel == 8
    assert "(largest measured batch)" in found[Objective.THROUGHPUT].reason
