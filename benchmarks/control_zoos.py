"""The public data sets as zoos: files in, arrays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wattzoo.cli.outcome_files import read_outcomes, read_table
from wattzoo_policies.sim.stream import Zoo

_GSM8K_PARAMETERS = {"6b": 6.0, "175b": 175.0}
_ROUTELLM_COST = {"small": 1.0, "large": 40.0}


def read_zoos(data: Path) -> dict[str, Zoo]:
    """Return every zoo of the study by name; members are ordered by mean joules."""
    outcomes, requests = data / "mmlupro_outcomes.parquet", data / "mmlupro_requests.parquet"
    llama, llama_ids = _read(outcomes, "llama3", "energy_j_h100", requests)
    base, base_ids = _read(outcomes, "llama3base", "energy_j_h100", requests)
    zoos = {
        "llama3": llama,
        "llama3-b200": _read(outcomes, "llama3", "energy_j_b200", requests)[0],
        "llama3base": base,
        "llama3+base": _join(llama, llama_ids, base, base_ids),
        "llama3 pair": llama.choose([llama.members[0], llama.members[2]]),
        "llama3 8B/70B": llama.choose(llama.members[1:]),
        "routellm": _read_routellm(data / "routellm_mixtral_gpt4.parquet"),
        "gsm8k": _read_gsm8k(data / "gsm8k_6b_175b.parquet"),
    }
    names = zoos["gsm8k"].members
    for cheap, dear in ((1, 2), (1, 3), (0, 3)):
        zoos[f"gsm8k {names[cheap]}/{names[dear]}"] = zoos["gsm8k"].choose([names[cheap], names[dear]])
    return zoos


def levels_between(zoo: Zoo) -> list[float]:
    """Return up to three targets at least .05 above the cheapest member and .05 below the best."""
    low = float(zoo.accuracy[int(np.argmin(zoo.mean_joules))]) + 0.05
    high = float(zoo.accuracy.max()) - 0.05
    if high <= low:
        return []
    return [round(level, 4) for level in ([low, (low + high) / 2.0, high] if high - low > 0.01 else [low])]


def _read(outcomes: Path, zoo: str, column: str, requests: Path) -> tuple[Zoo, list[str]]:
    recorded = read_outcomes(outcomes, zoo, column, {}, requests)
    return recorded.zoo, [str(name) for name in recorded.request_ids]


def _join(one: Zoo, one_ids: list[str], other: Zoo, other_ids: list[str]) -> Zoo:
    """Return the zoo of all members over the requests that both know."""
    place = {name: row for row, name in enumerate(other_ids)}
    rows = [row for row, name in enumerate(one_ids) if name in place]
    others = [place[one_ids[row]] for row in rows]
    joules = np.concatenate([one.joules[rows], other.joules[others]], axis=1)
    outcomes = np.concatenate([one.outcomes[rows], other.outcomes[others]], axis=1)
    members = (*one.members, *other.members)
    order = np.argsort(joules.mean(0))
    return Zoo(tuple(members[n] for n in order), outcomes[:, order], joules[:, order], one.group[rows])


def _read_routellm(path: Path) -> Zoo:
    recorded = read_outcomes(path, None, None, _ROUTELLM_COST, path)
    return recorded.zoo


def _read_gsm8k(path: Path) -> Zoo:
    """Return the four members; what a request costs is parameters times characters of output, in no unit."""
    columns = read_table(path)
    members = [name.removeprefix("correct_") for name in columns if name.startswith("correct_")]
    outcomes = np.stack([columns[f"correct_{name}"].astype(float) for name in members], axis=1)
    cost = np.stack(
        [columns[f"out_chars_{name}"].astype(float) * _GSM8K_PARAMETERS[name.split("_")[0]] for name in members], axis=1
    )
    order = np.argsort(cost.mean(0))
    group = np.zeros(len(outcomes), dtype=np.int64)
    return Zoo(tuple(members[n] for n in order), outcomes[:, order], np.maximum(cost[:, order], 1e-3), group)
