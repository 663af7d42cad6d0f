"""What the placement benchmark's figures must not exceed or fall below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.placement_runs import Row


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and what it must not exceed (`sign` 1) or fall below (-1)."""

    text: str
    value: float
    must: float
    aim: float | None = None
    sign: int = 1

    def render(self) -> str:
        """Return a Markdown row with the verdict."""
        verdict = "ok" if self.sign * self.value <= self.sign * self.must + 1e-9 else "**MISSED**"
        is_aim = self.aim is not None and self.sign * self.value <= self.sign * self.aim + 1e-9
        aim = "" if self.aim is None else f"{self.aim:g}"
        return (
            f"| {self.text} | {self.value:.4g} | {self.must:g} | {aim} | {verdict}{', aim reached' if is_aim else ''} |"
        )


def find_day_bars(label: str, rows: Mapping[str, Row], bound_wh: float) -> list[Bar]:
    """Return the bars of one alpha on the small day."""
    joint = rows["joint"]
    is_low = label == "83 %"

    def saving(policy: str) -> float:
        return 100.0 * (joint.wh / rows[policy].wh - 1.0)

    name = f"day, alpha at {label}"
    on_h100, on_best = ((-50, -70), (-45, -60)) if is_low else ((-30, -50), (-15, -35))
    return [
        Bar(f"{name}: % energy against HPA, 70B on H100", saving("HPA, 70B H100"), *on_h100),
        Bar(
            f"{name}: % energy against HPA, 70B on the best GPU",
            saving("HPA, 70B B200 (best GPU)"),
            *on_best,
        ),
        Bar(f"{name}: % energy against the best blind mix, unpacked", saving("mix + HPA, best GPUs"), -10, -35),
        Bar(f"{name}: % energy against it, packed as ours", saving("mix + HPA, best GPUs, packed"), 0, -20),
        Bar(f"{name}: against the bound (about 10 accelerators)", joint.wh / bound_wh, 2.0, 1.45),
        Bar(
            f"{name}: against itself, clairvoyant in the lead window",
            joint.wh / rows["joint, clairvoyant in the lead window"].wh,
            1.12,
            1.03,
        ),
        Bar(
            f"{name}: against itself, clairvoyant in every interval too",
            joint.wh / rows["joint, clairvoyant in every interval"].wh,
            1.12,
            1.03,
        ),
        *find_service_bars(name, joint),
        Bar(
            f"{name}: starts per hour over the mix + HPA's",
            joint.starts_per_hour / max(0.01, rows["mix + HPA, best GPUs"].starts_per_hour),
            1.0,
            0.4,
        ),
    ]


def find_service_bars(name: str, row: Row, *, slo: float = 99.0, worst: float = -0.0075) -> list[Bar]:
    """Return the bars on attainment and accuracy."""
    bars = [
        Bar(f"{name}: SLO attainment %", 100.0 * row.slo, slo, 99.9 if slo > 95 else 99.5, -1),
        Bar(f"{name}: accuracy at the end less alpha", row.accuracy_margin, 0.0, None, -1),
    ]
    return [*bars, Bar(f"{name}: worst hour less alpha", row.worst_hour_margin, worst, None, -1)]
