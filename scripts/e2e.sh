#!/usr/bin/env bash
# Run the end-to-end tests in two lanes at a time, each with a control plane of its own: most of their time is waiting.
# The second lane writes to a file that is shown when it ends. Usage: scripts/e2e.sh PYTEST
set -euo pipefail
set -m # a lane is a process group, which an interruption ends as a whole
pytest=$1
second=(e2e/scenarios/test_demo.py e2e/scenarios/test_emulator.py e2e/scenarios/test_operator_ledger.py)
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

echo "e2e: two lanes: ${second[*]} (shown when it ends), and every other scenario"
"$pytest" "${second[@]}" >"$output" 2>&1 &
lane=$!
status=0
"$pytest" e2e/scenarios "${second[@]/#/--ignore=}" || status=$?
if wait "$lane"; then second_status=0; else second_status=$?; fi
lane=
echo "e2e: the second lane"
cat "$output"
exit $((status > second_status ? status : second_status))
