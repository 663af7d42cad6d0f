"""Write every generated file from the code, or check that none has drifted.

The pydantic models are the single source of the CRDs; the chart carries a copy of those, and the reference pages come
from the models, the metrics registry and the chart's value schema.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from scripts.chart_reference import chart_markdown
from wattzoo.api.crd import render_crds
from wattzoo.api.reference import reference_markdown
from wattzoo.status import reference as conditions
from wattzoo.telemetry import render_reference

ROOT = Path(__file__).parents[1]


def render_all() -> dict[str, str]:
    """Path below the root -> text, for every generated file."""
    crds = render_crds()
    return {
        **{f"crds/{name}": text for name, text in crds.items()},
        **{f"charts/wattzoo/crds/{name}": text for name, text in crds.items()},
        "docs/reference/api.md": reference_markdown(),
        "docs/reference/chart.md": chart_markdown(),
        "docs/reference/conditions.md": conditions.render_reference(),
        "docs/reference/metrics.md": render_reference(),
    }


def check(files: dict[str, str]) -> int:
    """Print a diff for every file that differs from what the code says; return how many do."""
    drifted = 0
    for name, expected in files.items():
        path = ROOT / name
        actual = path.read_text() if path.exists() else ""
        if actual != expected:
            drifted += 1
            sys.stdout.writelines(
                difflib.unified_diff(
                    actual.splitlines(keepends=True), expected.splitlines(keepends=True), name, "generated", n=1
                )
            )
    return drifted


def write(files: dict[str, str]) -> None:
    """Write what differs and say so."""
    for name, content in files.items():
        path = ROOT / name
        if path.exists() and path.read_text() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(f"generate: wrote {name}")


def main() -> int:
    """Run as `scripts/generate.py --write` or `--check`."""
    parser = argparse.ArgumentParser(description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the files")
    mode.add_argument("--check", action="store_true", help="fail when a file differs")
    arguments = parser.parse_args()
    files = render_all()
    if arguments.write:
        write(files)
        return 0
    drifted = check(files)
    if drifted:
        print(f"generate: {drifted} of {len(files)} files differ: run `make generate` and commit", file=sys.stderr)
    return int(drifted > 0)


if __name__ == "__main__":
    raise SystemExit(main())
