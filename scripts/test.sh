#!/usr/bin/env bash
# Runs the test suite on every runtime that this machine can have.
#
# Usage: scripts/test.sh [--runtime=all|auto|tf1|tf2] [pytest arguments]
#
#   scripts/test.sh                              everything, TensorFlow 1 and 2
#   scripts/test.sh --runtime=tf1 -k mentormix_loss
#
# Paths among pytest's arguments are relative to the top of the repository.
# With both runtimes, each run finds the other's Python in the variable
# MENTORMIX_OTHER_PYTHON, for the tests that cross over.
#
# Exit codes: 0 all passed; 1 some failed; 2 bad --runtime; 3 no fit Python.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
asked=all

# Prints one line for people.
say() { printf 'test: %s\n' "$*" >&2; }

for arg; do  # Takes out what is meant for this script, leaves the rest in "$@".
  shift
  case $arg in
    --runtime=all|--runtime=auto|--runtime=tf1|--runtime=tf2)
      asked=${arg#*=} ;;
    --runtime=*)
      say "error: --runtime is all, auto, tf1 or tf2, not '${arg#*=}'"
      exit 2 ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/test.sh; exit ;;
    *) set -- "$@" "$arg" ;;
  esac
done

runtimes=()
if [[ $asked == all ]]; then
  for runtime in tf1 tf2; do
    code=0
    scripts/setup_env.sh --runtime=$runtime --dry_run >/dev/null 2>&1 || code=$?
    ((code == 3)) || runtimes+=("$runtime")
  done
  case ${#runtimes[@]} in
    0) asked=auto ;;  # There is none: let setup_env say so.
    1) say "this machine can have one runtime only: ${runtimes[0]}" ;;
  esac
fi
[[ $asked == all ]] || runtimes=("$asked")

pythons=()
for runtime in "${runtimes[@]}"; do
  pythons+=("$(scripts/setup_env.sh --runtime="$runtime")") || exit
done

workers=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
((workers <= 8)) || workers=8
trap 'exit 130' INT
failed=0
summary=
for i in "${!runtimes[@]}"; do
  if ((${#runtimes[@]} > 1)); then
    export MENTORMIX_OTHER_PYTHON=${pythons[1 - i]}
  fi
  say "${runtimes[i]}: ${pythons[i]#"$PWD"/} with $workers processes"
  code=0 start=$SECONDS
  "${pythons[i]}" -m pytest -q -n "$workers" --dist worksteal \
    "$@" || code=$?
  outcome=passed
  ((code == 0)) || outcome="FAILED (pytest exit code $code)" failed=1
  summary+="${summary:+, }${runtimes[i]} $outcome in $((SECONDS - start)) s"
done
say "$summary"
exit $failed
