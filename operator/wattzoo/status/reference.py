"""The reference page of conditions, from the same closed set that the reporter is held to."""

from __future__ import annotations

from wattzoo.api.conditions import MEANINGS
from wattzoo.model import Kind
from wattzoo.status.pool_report import ACCELERATOR_CONDITIONS, POOL_CONDITIONS
from wattzoo.status.profile_report import PROFILE_CONDITIONS
from wattzoo.status.report import SERVICE_CONDITIONS

USED = {
    Kind.LLM_SERVICE: SERVICE_CONDITIONS,
    Kind.MODEL_POOL: POOL_CONDITIONS,
    Kind.ACCELERATOR_POOL: ACCELERATOR_CONDITIONS,
    Kind.MODEL_PROFILE: PROFILE_CONDITIONS,
}


def render_reference() -> str:
    """The page in Markdown: every condition with its meaning, its kinds and its reasons."""
    lines = [
        "# Conditions",
        "",
        "Generated from `wattzoo.api.conditions`; change it there. Types and reasons are closed sets. `Degraded` and",
        "`Paused` are good when `False`, `Progressing` is news either way, all others are good when `True`.",
        "`Unknown` means that it could not be judged: it is never read as yes or no. `lastTransitionTime` moves only",
        "when `status` changes, and each such change that somebody should look at writes one Event.",
        "",
    ]
    for kind, (meaning, reasons) in MEANINGS.items():
        kinds = ", ".join(f"`{owner}`" for owner, types in USED.items() if kind in types)
        names = ", ".join(f"`{reason}`" for reason in sorted(reasons))
        lines += [f"## {kind}", "", meaning, "", f"On {kinds}. Reasons: {names}.", ""]
    return "\n".join(lines)
