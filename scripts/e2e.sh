#!/usr/bin/env bash
# Run the end-to-end tests in three lanes at a time, each with a control plane of its own: most of their time is waiting,
# and a lane keeps less than half a core busy. The lanes take about equally long; a new scenario lands in the last one.
# What that one prints is seen as it comes, what the others print when they end. Usage: scripts/e2e.sh PYTEST
set -euo pipefail
set -m # a lane is a process group, which an interruption ends as a whole
pytest=$1
basics=(test_api test_chart test_cluster test_cluster_lifetime test_emulator)
demo=(test_demo) # makes a cluster of its own
plans=(test_operator_ledger test_operator_packing test_operator_planning)
named=("${basics[@]}" "${demo[@]}" "${plans[@]}")

scenarios() {
  local names=("${@/#/e2e/scenarios/}")
  "$pytest" --durations=10 --durations-min=20 "${names[@]/%/.py}"
}
first_lane() {
  local status=0
  trap 'exit 130' INT # an interrupted pytest ends as if it had failed, and the demo would follow
  scenarios "${basics[@]}" || status=$?
  scenarios "${demo[@]}" || status=$?
  return "$status"
}
second_lane() { scenarios "${plans[@]}"; }
last_lane() {
  local others=("${named[@]/#/--ignore=e2e/scenarios/}")
  "$pytest" --durations=10 --durations-min=20 e2e/scenarios "${others[@]/%/.py}"
}

outputs=$(mktemp -d)
lanes=()
end_lanes() {
  for lane in "${lanes[@]}"; do
    kill -INT -- "-$lane" 2>/dev/null || true
  done
  wait || true
  rm -rf "$outputs"
}
trap end_lanes EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "e2e: three lanes: ${basics[*]} ${demo[*]}; ${plans[*]} (both shown when they end); and every other scenario"
first_lane </dev/null >"$outputs/first" 2>&1 &
lanes+=("$!")
second_lane </dev/null >"$outputs/second" 2>&1 &
lanes+=("$!")
last_lane </dev/null &
lanes+=("$!")
status=0
wait "${lanes[2]}" || status=$?
for lane in first second; do
  wait "${lanes[0]}" || status=$?
  lanes=("${lanes[@]:1}")
  echo "e2e: the $lane lane"
  cat "$outputs/$lane"
done
exit "$status"
