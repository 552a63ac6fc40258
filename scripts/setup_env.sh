#!/usr/bin/env bash
# Makes, or reuses, the Python environment that this project runs in.
#
# Usage: scripts/setup_env.sh [--runtime=auto|tf1|tf2] [--python=PATH]
#                             [--venv=DIR] [--dry_run]
#
#   --runtime  tf1: TensorFlow 1.15 on Python 3.7, the reference runtime.
#              tf2: TensorFlow 2.x on the newest Python 3.9 to 3.13 found.
#              auto (default): the active environment (venv, conda), as it is,
#              if it has what is needed; else tf1 where a Python 3.7 works, else
#              tf2.
#              The GPU build where nvidia-smi runs, else the CPU build.
#   --python   the Python to use. By default the script searches the PATH and
#              the places where pyenv, conda and uv install Pythons.
#   --venv     directory of the environment; default .venv-tf1 or .venv-tf2.
#   --dry_run  prints the choice and changes nothing.
#
# Messages go to stderr; stdout is the path of the environment's Python:
#   python=$(scripts/setup_env.sh) && "$python" code/cifar_train_mentormix.py
#
# Exit codes: 0 ready; 1 installation failed; 2 bad command line; 3 no suitable
# Python.
set -euo pipefail
unset PYTHONPATH PYTHONHOME

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
made=.mentormix-made        # Marks a directory that this script may empty.
stamp=.mentormix-installed  # Written last: the Python and the installed pins.
asked=auto asked_python='' asked_venv='' dry_run='' rejected=''

# Prints version|base interpreter|reason why this Python cannot be used.
probe='
import os, platform, sys
version = "%d.%d" % sys.version_info[:2]
python = os.path.join(sys.base_prefix, "bin", "python" + version)
reason = ""
try:
  import ensurepip, ssl, venv
except ImportError as error:
  reason = "cannot make virtual environments (%s)" % error
if version == "3.7" and platform.system() + os.uname()[4] != "Linuxx86_64":
  reason = "is not for Linux on x86_64, the only system of TensorFlow 1.15"
if sys.implementation.name != "cpython" or "free-threading" in sys.version:
  reason = "is not an ordinary CPython"
print("%s.%d|%s|%s" % (version, sys.version_info[2],
    python if os.path.exists(python) else sys.executable, reason))
'

say() { printf 'setup_env: %s\n' "$*" >&2; }
die() { say "error: $2"; exit "$1"; }

# Prints the Pythons to try for the versions $1, one path per line; no other one
# where the user names a Python or an environment that this script did not make.
candidates() {
  local conda dir minor
  printf '%s\n' "${asked_python:-$venv/bin/python}"
  [[ -z $asked_python ]] || return 0
  conda=$(type -P conda || echo /opt/conda/bin/conda)
  for minor in $1; do
    type -aP "python$minor" || true
    for dir in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*{,/envs/*} \
        "${CONDA_PREFIX:-${conda%/*/*}}" "${conda%/*/*}"{,/envs/*} \
        "$HOME"/{mini,ana}conda3{,/envs/*} "$HOME"/miniforge3{,/envs/*} \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/*; do
      printf '%s\n' "$dir/bin/python$minor"
    done
  done
  type -aP python3 python || true
}

# Whether this machine can have runtime $1; sets venv, version and python.
can_have() {
  local versions='3.13 3.12 3.11 3.10 3.9' candidate answer reason code
  [[ $1 == tf2 ]] || versions=3.7
  venv=${asked_venv:-$root/.venv-$1}
  # $made is tested last: another set-up may be writing it as its first file.
  [[ -z $(ls -A "$venv" 2>/dev/null) || -e $venv/$made ]] \
    || die 2 "--venv=$venv was not made by this script; name a new directory"
  while IFS= read -r candidate; do
    [[ -x $candidate || -n $asked_python ]] || continue
    # Only running it tells: a pyenv shim may exist and exit with 127.
    code=0
    answer=$("$candidate" -c "$probe" 2>/dev/null </dev/null) || code=$?
    IFS='|' read -r version python reason <<<"$answer"
    if ((code)); then
      reason="does not run (exit code $code)"
    elif [[ " $versions " != *" ${version%.*} "* ]]; then
      [[ $candidate == "${asked_python:-$venv/bin/python}" ]] || continue
      reason="is Python $version"
    elif [[ -z $reason || $candidate == "$venv/bin/python" ]]; then
      return 0
    fi
    [[ $rejected == *"; $candidate "* ]] || rejected+="; $candidate $reason"
  done < <(candidates "$versions")
  return 1
}

# Prints what the stamp of a finished environment holds.
contents() { printf '%s\n' "$version $python" && cat "${files[@]}"; }

# Whether the environment is finished and up to date.
ready() {
  [[ -x $venv/bin/python ]] && contents | cmp -s - "$venv/$stamp" 2>/dev/null
}

# Runs a command with its output in the log, and shows the log if it fails.
logged() {
  local code=0
  "$@" >>"$venv/setup.log" 2>&1 </dev/null || code=$?
  ((code)) || return 0
  tail -n 15 "$venv/setup.log" >&2
  die 1 "'python ${*:2}' failed (exit code $code); see $venv/setup.log"
}

# Makes the environment. Two at once take turns; an interrupted one starts anew.
install() {
  mkdir -p "$venv" || die 2 "cannot make the directory --venv=$venv"
  if exec 9<"$venv" && command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another set-up of $venv"
    flock 9
  fi
  ! ready || return 0
  say "installing into $venv; this takes some minutes"
  : >"$venv/$made" || die 2 "cannot write to --venv=$venv"
  find "$venv" -mindepth 1 -maxdepth 1 ! -name "$made" -exec rm -rf {} +
  logged "$python" -m venv "$venv"
  export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
  logged "$venv/bin/python" -m pip install 'pip>=21'
  logged "$venv/bin/python" -m pip install -r "${files[0]}" \
    -r scripts/requirements/test.txt
  contents >"$venv/$stamp.new"
  mv "$venv/$stamp.new" "$venv/$stamp"
}

for arg; do
  case $arg in
    --runtime=auto|--runtime=tf1|--runtime=tf2) asked=${arg#*=} ;;
    --runtime=*) die 2 "--runtime is auto, tf1 or tf2, not '${arg#*=}'" ;;
    --python=?*) asked_python=${arg#*=} ;;
    --venv=/?*) asked_venv=${arg#*=} ;;
    --venv=?*) asked_venv=$PWD/${arg#*=} ;;
    --dry_run) dry_run=1 ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    *) die 2 "unknown or empty argument '$arg'; see --help" ;;
  esac
done
HOME=${HOME:-/nonexistent}
venv=$asked_venv
asked_python=$(type -P "${asked_python:-none}" || echo "$asked_python")
[[ $asked_python != [!/]*/* ]] || asked_python=$PWD/$asked_python
cd "$root"
active=$(type -P python || echo none)
if [[ $asked$asked_python$asked_venv == auto && :${VIRTUAL_ENV:-}:\
${CONDA_PREFIX:-}: == *":${active%/bin/python}:"* ]]; then
  reason=$("$active" -c 'import sys; sys.path.append("code")
import jinja2, matplotlib, PIL, pooch, tqdm, mentormix.runtime' 2>&1 </dev/null
  ) && { say "takes the active $active"; echo "$active"; exit; }
  rejected="; the active $active lacks something: ${reason##*$'\n'}"
fi
runtimes=${asked/auto/tf1 tf2}
if [[ -z $asked_python && $asked == auto && $("$venv/bin/python" -c "$probe" \
      2>&1) =~ ^3\.(9|1[0-3])\. ]]; then
  runtimes=tf2  # A named environment keeps its runtime.
fi
for runtime in $runtimes; do
  can_have "$runtime" && break
done || die $((${#asked_python} ? 2 : 3)) "no suitable Python for\
 --runtime=$asked: TensorFlow 1.15 needs 3.7, 2.x needs 3.9 to 3.13;\
 --python=PATH names one$rejected"

files=("scripts/requirements/$runtime-cpu.txt") why='no GPU answers nvidia-smi'
if nvidia-smi >/dev/null 2>&1; then
  files=("scripts/requirements/$runtime-gpu.txt") why='a GPU answers nvidia-smi'
  if [[ $runtime == tf1 ]]; then
    files=(requirements.txt)
    ! nvidia-smi --query-gpu=compute_cap --format=csv 2>/dev/null \
      | grep -Eq '^([89]|1[0-9])[.]' \
      || why+=', but TensorFlow 1.15 is too old for it: use --runtime=tf2'
  fi
fi
[[ $runtime == tf1 ]] || files+=(scripts/requirements/tf2-common.txt)
files+=(scripts/requirements/test.txt)
[[ -z $asked_python ]] || rejected=''
say "Python $version from $python, ${files[0]} ($why$rejected)\
 -> ${venv#"$root"/}"
[[ -n $dry_run ]] || ready || install
printf '%s\n' "$venv/bin/python"
