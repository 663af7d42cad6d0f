"""The placement benchmark's choice of worlds, and the bars of those that nothing was tuned on."""

from __future__ import annotations

from benchmarks.placement import DAY_POLICIES, choose_worlds
from benchmarks.placement_held_out import POLICIES, WORLDS, find_held_out_bars, is_held_out
from benchmarks.placement_runs import Job, Row, World


def make_row(policy: str, wh: float, *, starts_per_hour: float = 0.0, accelerators: float = 10.0) -> Row:
    return Row(
        Job(WORLDS[0], policy),
        wh,
        {},
        0.995,
        1.0,
        0.995,
        0.001,
        -0.005,
        starts_per_hour,
        12.0,
        accelerators,
        20,
        None,
        1,
    )


def find_values(rows: dict[str, Row]) -> dict[str, tuple[float, bool]]:
    bars = find_held_out_bars("w", rows, 20.0)
    return {bar.text.removeprefix("w: "): (round(bar.value, 6), "MISSED" not in bar.render()) for bar in bars}


def test_worlds_are_chosen_by_a_text_in_their_names() -> None:
    every = [world.name for world, _ in choose_worlds(24.0, ())]
    assert len(every) == len(set(every))
    held_out = choose_worlds(24.0, ("held out",))
    assert [world for world, _ in held_out] == list(WORLDS)
    assert all(policies == POLICIES and is_held_out(world.name) for world, policies in held_out)
    assert [world.name for world, _ in choose_worlds(24.0, ("Azure 2023 code", "Mooncake"))] == [
        "Azure 2023 code",
        "Mooncake",
    ]


def test_a_day_alone_is_run_with_every_policy_and_both_share_those_that_do_not_look_at_alpha() -> None:
    ((_, policies),) = choose_worlds(24.0, ("day 40/s, alpha at 97",))
    assert policies == DAY_POLICIES
    assert [len(p) for _, p in choose_worlds(24.0, ("day 40/s",))] == [len(DAY_POLICIES), len(DAY_POLICIES) - 4]


def test_held_out_worlds_are_none_that_was_tuned_on() -> None:
    tuned = [world for world, _ in choose_worlds(24.0, ()) if not is_held_out(world.name)]

    def demand(world: World) -> tuple[object, ...]:
        return world.source, world.curve, world.day, world.first_hour, world.gpus

    assert not {demand(world) for world in WORLDS} & {demand(world) for world in tuned}


def test_energy_stands_against_the_packed_mixture_and_starts_against_the_unpacked_one() -> None:
    """12 hours at .3 starts an hour are 3.6 starts; the mixture's .2 are 2.4: 1.2 more, one more is allowed."""
    rows = {
        "mix + HPA, best GPUs": make_row("mix + HPA, best GPUs", 60.0, starts_per_hour=0.2),
        "mix + HPA, best GPUs, packed": make_row("mix + HPA, best GPUs, packed", 40.0),
        "joint": make_row("joint", 36.0, starts_per_hour=0.3),
    }
    values = find_values(rows)
    energy, starts = (
        "% energy against the best blind mix, packed as ours",
        "starts in the whole run beyond the mix + HPA's",
    )
    assert values[energy] == (-10.0, True)
    assert values[starts] == (1.2, False)
    assert values["against the bound"] == (1.8, True)
    rows["joint"] = make_row("joint", 44.0, accelerators=4.0)
    small = find_values(rows)
    assert small[energy] == (10.0, False)
    assert "against the bound" not in small
