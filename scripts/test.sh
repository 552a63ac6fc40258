#!/usr/bin/env bash
# Runs the tests on TensorFlow 1.15 and 2.x at the same time, where this machine
# can have both.
#
# Usage: scripts/test.sh [--runtime=all|auto|tf1|tf2] [--slow] [pytest flags]
#
#   --runtime  one runtime only; 'auto' takes what scripts/setup_env.sh takes.
#   --slow     also runs the tests marked slow, which kill processes, fill disks,
#              start clusters, or take long.
#
# Paths among pytest's arguments are relative to the top of the repository. With
# both runtimes, each run finds the other Python in MENTORMIX_OTHER_PYTHON.
#
# Exit codes: 0 all passed; 1 some failed; 2 bad --runtime; 3 no fitting Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

unset VIRTUAL_ENV CONDA_PREFIX  # The tests need the pins, and pytest.
say() { printf 'test: %s\n' "$*" >&2; }

asked=all slow=()
for arg; do  # Takes out what is meant for this script, leaves the rest in "$@".
  shift
  case $arg in
    --runtime=*) asked=${arg#*=} ;;
    --slow) slow=(-m '') ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/test.sh; exit ;;
    *) set -- "$@" "$arg" ;;
  esac
done

runtimes=("$asked")  # setup_env.sh says if it is not one.
if [[ $asked == all ]]; then
  runtimes=()
  for runtime in tf1 tf2; do
    code=0
    scripts/setup_env.sh --runtime=$runtime --dry_run >/dev/null 2>&1 || code=$?
    ((code == 3)) || runtimes+=("$runtime")
  done
  ((${#runtimes[@]} != 1)) || say "one runtime only: ${runtimes[0]}"
  ((${#runtimes[@]})) || runtimes=(auto)  # setup_env.sh says what is missing.
fi
pythons=()
for runtime in "${runtimes[@]}"; do
  pythons+=("$(scripts/setup_env.sh --runtime="$runtime")") || exit
done

cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
workers=$(((cores < 16 ? cores : 16) / ${#runtimes[@]}))
((workers)) || workers=1
set -m  # Each run gets a process group, so that Ctrl-C can end all of it.
pids=() failed=0
# Ends all runs by signal $1, then the script with exit code $2.
stop() {
  trap '' INT TERM
  for pid in $(jobs -p); do kill "-$1" -- "-$pid" 2>/dev/null || true; done
  wait
  exit "$2"
}
trap 'stop INT 130' INT
trap 'stop TERM 143' TERM
for i in "${!runtimes[@]}"; do
  ((${#runtimes[@]} == 1)) || export MENTORMIX_OTHER_PYTHON=${pythons[1 - i]}
  say "${runtimes[i]}: ${pythons[i]#"$PWD"/} with $workers processes"
  (
    set +m  # All of it stays in one process group.
    outcome=passed SECONDS=0
    "${pythons[i]}" -m pytest -q -n "$workers" --dist worksteal \
      ${slow[@]+"${slow[@]}"} "$@" 2>&1 </dev/null \
      | while IFS= read -r line; do echo "${runtimes[i]}: $line"; done \
      || outcome=FAILED
    say "${runtimes[i]} $outcome in $SECONDS s"
    [[ $outcome == passed ]]
  ) &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit $failed
