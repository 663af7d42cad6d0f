#!/usr/bin/env bash
# Run the end-to-end tests in two lanes at a time, each with a control plane of its own: most of their time is waiting.
# The demo's lane writes to a file that is shown when it ends. Usage: scripts/e2e.sh PYTEST
set -euo pipefail
set -m # a lane is a process group, which an interruption ends as a whole
pytest=$1
demo=e2e/scenarios/test_demo.py
output=$(mktemp)
lane=
end_lane() {
  if [ -n "$lane" ]; then
    kill -INT -- "-$lane" 2>/dev/null || true
    wait "$lane" 2>/dev/null || true
  fi
  rm -f "$output"
}
trap end_lane EXIT

echo "e2e: two lanes: the demo's short form (shown when it ends), and every other scenario"
"$pytest" "$demo" >"$output" 2>&1 &
lane=$!
status=0
"$pytest" e2e/scenarios --ignore="$demo" || status=$?
if wait "$lane"; then demo_status=0; else demo_status=$?; fi
lane=
echo "e2e: the demo's lane"
cat "$output"
exit $((status > demo_status ? status : demo_status))
