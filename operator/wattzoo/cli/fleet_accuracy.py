"""How often each member satisfies each service: from recorded outcomes, else from what the LLMServices expect."""

from __future__ import annotations

from pathlib import Path

from wattzoo.cli.fleet_model import Fleet
from wattzoo.cli.trace_files import match_members, read_accuracies
from wattzoo.errors import InvalidSpec, Problem


def read_service_accuracies(fleet: Fleet, outcomes: Path | None, zoo: str | None) -> dict[str, dict[str, float]]:
    """Return the satisfied share by service and member.

    outcomes: recorded requests, the same for all services. Raises `FileError`, and `InvalidSpec` for a member of which
    nobody says anything.
    """
    if outcomes is not None:
        recorded = read_accuracies(outcomes, zoo)
        needed = {name for service in fleet.services for name in service.members}
        models = {name: model for name, model in fleet.models.items() if name in needed}
        known = match_members(outcomes, recorded, models)
        return {service.name: {name: known[name] for name in service.members} for service in fleet.services}
    found: dict[str, dict[str, float]] = {}
    for service in fleet.services:
        found[service.name] = {}
        for name in service.members:
            prior = service.accuracies[name]
            if prior is None:
                member = fleet.members[service.name][name]
                rule = f"without --outcomes accuracyPriorPerMille of member {member} is required"
                obj = f"LLMService/{fleet.service_refs[service.name]}"
                raise InvalidSpec(obj, (Problem("spec.members", "nothing", rule),))
            found[service.name][name] = prior
    return found
