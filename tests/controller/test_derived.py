"""What passes share is worked out once for each snapshot; finding by label finds what a look at everything would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_meta
from tests.controller.world import CHAT, POOL, World
from wattzoo.api.model_pool import ModelPool
from wattzoo.decide.by_label import LabelIndex
from wattzoo.decide.caps import holdings
from wattzoo.decide.context import Specs, read_context, read_pools
from wattzoo.model import Kind, Ref

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(things=st.lists(LABELS), wanted=LABELS)
def test_what_is_found_by_label_is_all_that_carries_it(things: list[dict[str, str]], wanted: Mapping[str, str]) -> None:
    found = LabelIndex((own, number) for number, own in enumerate(things)).find(wanted)
    assert found == [number for number, own in enumerate(things) if wanted and wanted.items() <= own.items()]


def test_a_pool_is_read_once_for_all_services_that_share_a_snapshot() -> None:
    world, specs = World(), Specs()
    snapshot = world.cluster.snapshot()
    pool = specs.model_pool(snapshot.model_pools[POOL])
    assert isinstance(pool, ModelPool)
    context, _ = read_context(specs, POOL, pool, snapshot)
    assert read_context(specs, POOL, pool, snapshot)[0] is context
    assert list(context.services) == [CHAT]
    assert read_context(specs, POOL, pool.model_copy(), snapshot)[0].pool is not pool


def test_the_next_snapshot_is_read_anew() -> None:
    world, specs = World(), Specs()
    before = world.cluster.snapshot()
    pool = specs.model_pool(before.model_pools[POOL])
    assert isinstance(pool, ModelPool)
    assert not read_context(specs, POOL, pool, before)[0].states[0].exists
    held = holdings(before, read_pools(specs, before))
    deployments = {Ref(POOL.namespace, "zoo-small-h100"): {"metadata": make_meta("zoo-small-h100"), "spec": {}}}
    after = replace(before, deployments=deployments)
    assert read_context(specs, POOL, pool, after)[0].states[0].exists
    assert holdings(after, read_pools(specs, after)) != held
    other = {
        "metadata": {**make_meta("search"), "uid": "other"},
        "spec": world.cluster.get(Kind.LLM_SERVICE, "chat")["spec"],
    }
    more = replace(
        before,
        llm_services={**before.llm_services, Ref(POOL.namespace, "search"): {**before.llm_services[CHAT], **other}},
    )
    assert [ref.name for ref in read_context(specs, POOL, pool, more)[0].services] == ["chat", "search"]
