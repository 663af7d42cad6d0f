"""`wattzoo plan`: one plan for a declared load, and why it is that one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from wattzoo.cli.fleet_accuracy import read_service_accuracies
from wattzoo.cli.fleet_model import DEFAULT_ACCELERATORS_PER_NODE, Fleet, check_promises, make_fleet
from wattzoo.cli.fleet_objective import UNITS, ObjectiveOption
from wattzoo.cli.fleet_plan import (
    Load,
    LoadError,
    VariantPlan,
    describe_plan,
    make_problem,
    mean_shape,
    parse_loads,
    shape_of,
)
from wattzoo.cli.fleet_variants import MemberProposal, propose_variants
from wattzoo.cli.manifest_files import ManifestError, read_manifests
from wattzoo.cli.outcome_files import FileError
from wattzoo.cli.quiet import without_native_output
from wattzoo.cli.simulate_control import EXIT_USAGE, read_commit
from wattzoo.errors import InvalidSpec
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.problem import Plan
from wattzoo_policies.placement.solve import solve_plan

TIME_LIMIT_SECONDS = 10.0
_WIDTH = 120  # of a table that goes to a file or a pipe

ManifestsOption = Annotated[
    list[Path], typer.Option("-f", "--manifests", help="YAML as for kubectl: a file or a folder; repeatable.")
]
LoadOption = Annotated[
    list[str], typer.Option("--load", help="SERVICE=RPS[,INxOUT]: requests/s and mean tokens; repeatable.")
]
OutcomesOption = Annotated[
    Path | None, typer.Option(help="Outcomes as for `simulate`; without them accuracyPriorPerMille of the LLMServices.")
]
ZooOption = Annotated[str | None, typer.Option(help="Zoo of the outcomes file, where it holds several.")]
ProposeOption = Annotated[
    bool, typer.Option("--propose-variants", help="Also say which tensor-parallel degree each pool should run.")
]
NamespaceOption = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Of objects that name none (default: the one the others name).")
]
PerNodeOption = Annotated[
    int, typer.Option(help="Accelerators of a node, where the files hold no Node objects.", min=1)
]
GapOption = Annotated[float, typer.Option(help="Relative distance to the best plan at which the search ends.", min=0.0)]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the plan as JSON.")]


def plan(
    *,
    manifests: ManifestsOption,
    load: LoadOption,
    outcomes: OutcomesOption = None,
    zoo: ZooOption = None,
    propose: ProposeOption = False,
    namespace: NamespaceOption = None,
    accelerators_per_node: PerNodeOption = DEFAULT_ACCELERATORS_PER_NODE,
    objective: ObjectiveOption = Objective.ENERGY,
    gap: GapOption = 0.01,
    json_file: JsonOption = None,
) -> None:
    """Print the plan of fewest watts (or least carbon or cost) for a load, and why it is that one."""
    try:
        found = read_manifests(manifests, namespace)
        fleet = make_fleet(found, accelerators_per_node, objective)
        loads = parse_loads(load, [service.name for service in fleet.services])
        accuracies = read_service_accuracies(fleet, outcomes, zoo)
        check_promises(fleet, accuracies, {name: shape_of(fleet, loads, name) for name in loads})
        problem = make_problem(fleet, loads, accuracies)
        with without_native_output():
            answer = solve_plan(problem, time_limit_seconds=TIME_LIMIT_SECONDS, gap=gap, explain=True)
        proposals = propose_variants(found, fleet, mean_shape(fleet, loads)) if propose else ()
        _show(
            fleet,
            loads,
            answer,
            proposals,
            json_file,
            objective,
            inputs={"manifests": [str(path) for path in manifests], "load": load, "objective": str(objective)},
        )
    except (ManifestError, InvalidSpec, FileError, LoadError) as error:
        sys.stderr.write(f"wattzoo: {error}\n")
        raise typer.Exit(EXIT_USAGE) from error


def _show(
    fleet: Fleet,
    loads: dict[str, Load],
    answer: Plan,
    proposals: Sequence[MemberProposal],
    json_file: Path | None,
    objective: Objective,
    inputs: dict[str, Any],
) -> None:
    rows = describe_plan(fleet, loads, answer)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(render_table(rows, answer))
    for line in (*render_reasons(answer, objective), *render_proposals(proposals)):
        console.print(line, soft_wrap=True, highlight=False)
    for note in fleet.notes:
        sys.stderr.write(f"wattzoo: {note}\n")
    if json_file is not None:
        body = render_json(rows, answer, proposals, objective) | {"inputs": inputs, "commit": read_commit()}
        try:
            json_file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise FileError(json_file, None, f"cannot be written ({error.strerror})") from error


def render_table(rows: Sequence[VariantPlan], answer: Plan) -> Table:
    """Return the plan by variant."""
    table = Table(title=f"{sum(row.watts for row in rows):,.0f} W, {answer.status}" + _gap(answer))
    for head in ("variant", "pool", "replicas", "active", "accelerators", "requests/s", "of the knee", "watts"):
        table.add_column(head, justify="left" if head in {"variant", "pool"} else "right")
    for row in rows:
        table.add_row(
            row.variant.name,
            row.variant.pool,
            str(row.replicas),
            str(row.active),
            str(row.replicas * row.variant.model.accelerators),
            f"{row.rate_rps:.2f}",
            "-" if row.load is None else f"{row.load:.0%}",
            f"{row.watts:,.0f}",
        )
    return table


def _gap(answer: Plan) -> str:
    return "" if answer.gap is None else f" within {answer.gap:.1%}"


def render_reasons(answer: Plan, objective: Objective = Objective.ENERGY) -> list[str]:
    """Return the sentences below the table: shortages first."""
    units = UNITS[objective]
    lines = [f"short: {name} lacks capacity for {rate:.2f} requests/s" for name, rate in answer.short_rps.items()]
    lines += [f"short: {name} misses its accuracy by {share:.4f}" for name, share in answer.accuracy_missing.items()]
    counted = "" if lines else f", {units.show(answer.objective)} by the planner's law"
    lines.append(f"minimised: {objective}{counted}")
    lines.append(f"what binds: {answer.binding or 'demand'}")
    if answer.runner_up:
        extra = answer.runner_up_objective
        more = "" if extra is None else f" ({units.show(extra - answer.objective, '+')} in the planner's objective)"
        lines.append(f"runner-up: {answer.runner_up}{more}")
    for pool, value in answer.accelerator_value_watts.items():
        lines.append(f"one more accelerator in {pool} would save {units.show(value)}")
    for name, price in answer.price_joules_per_satisfied.items():
        lines.append(f"one more satisfied request of {name} costs {price:,.0f} {units.request}")
    return lines


def render_proposals(proposals: Sequence[MemberProposal]) -> list[str]:
    """Return one line per member, objective and pool, and one per candidate that cannot run."""
    lines = []
    for one in proposals:
        lines.append(f"best degrees of {one.member} by {one.deployment.objective}:")
        lines += [
            f"  {part.choice.machine}: {part.choice.candidate}, {part.reason}" for part in one.deployment.proposals
        ]
        lines += [
            f"  {out.machine}: not {out.candidate or one.member}, {out.reason}" for out in one.deployment.rejected
        ]
    return lines


def render_json(
    rows: Sequence[VariantPlan],
    answer: Plan,
    proposals: Sequence[MemberProposal] = (),
    objective: Objective = Objective.ENERGY,
) -> dict[str, Any]:
    """Return the body of `--json`; watts by the replica's own law, objective as the planner minimised it.

    Values of accelerators in watts and prices in joules are there with objective Energy alone.
    """
    units, energy = UNITS[objective], objective is Objective.ENERGY
    return {
        "variants": [
            {
                "variant": row.variant.name,
                "member": row.variant.member,
                "pool": row.variant.pool,
                "replicas": row.replicas,
                "active": row.active,
                "accelerators": row.replicas * row.variant.model.accelerators,
                "requests_per_second": row.rate_rps,
                "share_of_knee": row.load,
                "watts": row.watts,
            }
            for row in rows
        ],
        "flows": {name: dict(flows) for name, flows in answer.flows.items()},
        "watts": sum(row.watts for row in rows),
        "minimised": str(objective),
        "objective": answer.objective,
        "objective_unit": units.objective,
        "status": str(answer.status),
        "gap": answer.gap,
        "binding": answer.binding,
        "runner_up": {"plan": answer.runner_up, "objective": answer.runner_up_objective},
        "accelerator_value": dict(answer.accelerator_value_watts),
        "accelerator_value_watts": dict(answer.accelerator_value_watts) if energy else None,
        "price_per_satisfied": dict(answer.price_joules_per_satisfied),
        "price_per_satisfied_unit": units.request,
        "price_joules_per_satisfied": dict(answer.price_joules_per_satisfied) if energy else None,
        "short_requests_per_second": dict(answer.short_rps),
        "accuracy_missing": dict(answer.accuracy_missing),
        "proposals": [
            {
                "member": one.member,
                "objective": str(one.deployment.objective),
                "pool": part.choice.machine,
                "variant": part.choice.candidate,
                "tensor_parallel": part.choice.tensor_parallel,
                "instances": part.choice.instances,
                "tokens_per_second": part.choice.tokens_per_second,
                "tokens_per_joule": part.choice.tokens_per_joule,
                "reason": part.reason,
            }
            for one in proposals
            for part in one.deployment.proposals
        ],
    }
