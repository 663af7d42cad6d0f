#!/usr/bin/env bash
# Run the end-to-end tests in two lanes at a time, each with a control plane of its own: most of their time is waiting.
# The second lane writes to a file that is shown when it ends. Usage: scripts/e2e.sh PYTEST
set -euo pipefail
set -m # a lane is a process group, which an interruption ends as a whole
pytest=$1
second=(
  e2e/scenarios/test_demo.py e2e/scenarios/test_emulator.py e2e/scenarios/test_operator_ledger.py
  e2e/scenarios/test_operator_planning.py
)
output=$(mktemp)
lanes=()
end_lanes() {
  for lane in "${lanes[@]}"; do
    kill -INT -- "-$lane" 2>/dev/null || true
  done
  wait || true
  rm -f "$output"
}
trap end_lanes EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "e2e: two lanes: ${second[*]} (shown when it ends), and every other scenario"
"$pytest" "${second[@]}" </dev/null >"$output" 2>&1 &
lanes+=("$!")
"$pytest" e2e/scenarios "${second[@]/#/--ignore=}" </dev/null &
lanes+=("$!")
status=0
second_status=0
wait "${lanes[1]}" || status=$?
wait "${lanes[0]}" || second_status=$?
echo "e2e: the second lane"
cat "$output"
exit $((status > second_status ? status : second_status))
