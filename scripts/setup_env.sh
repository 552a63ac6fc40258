#!/usr/bin/env bash
# Makes, or reuses, the Python environment that this project runs in.
#
# Usage: scripts/setup_env.sh [--runtime=auto|tf1|tf2] [--venv=DIR] [--dry_run]
#
#   --runtime  tf1: TensorFlow 1.15 on Python 3.7, the reference runtime.
#              tf2: TensorFlow 2.x on the newest Python 3.9 to 3.13 found.
#              auto (default): tf1 where a Python 3.7 works, else tf2.
#              The GPU build where nvidia-smi runs, else the CPU build.
#   --venv     the environment's folder; default .venv-tf1 or .venv-tf2 here.
#   --dry_run  say what would be chosen, make nothing.
#
# Pythons are looked for on the PATH and where pyenv, conda, mamba, uv, asdf and
# mise keep theirs. Messages go to stderr; stdout is the environment's Python:
#   python=$(scripts/setup_env.sh) && "$python" code/cifar_train_mentormix.py
#
# Exit codes: 0 ready; 1 installing failed; 2 bad command line; 3 no fit Python.
set -euo pipefail
unset PYTHONPATH PYTHONHOME

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${HOME:-/nonexistent}
opt=${SETUP_ENV_OPT:-/opt}  # Where system-wide condas live; tests move it.
made=.mentormix-made        # In the folder: this script made it, may empty it.
stamp=.mentormix-installed  # In the folder, written last: what is installed.
tf1_pythons='3.7'
tf2_pythons='3.13 3.12 3.11 3.10 3.9'
asked=auto
asked_venv=
dry_run=
passed_over=

# What a Python says of itself: version|base interpreter|fault, if any.
probe='
import os, sys
if sys.version_info < (3, 3):
  sys.exit(print("2||"))
version = "%d.%d" % sys.version_info[:2]
python = os.path.join(sys.base_prefix, "bin", "python" + version)
fault = ""
try:
  import ensurepip, ssl, venv
except ImportError as error:
  fault = "cannot make virtual environments (%s; Debian, Ubuntu: apt install" \
      " python%s-venv)" % (error, version)
machine = sys.platform + "-" + os.uname()[4]
if version == "3.7" and machine != "linux-x86_64":
  fault = "is for %s, TensorFlow 1.15 is not" % machine
if (sys.maxsize < 2**32 or sys.implementation.name != "cpython"
    or "free-threading" in sys.version):
  fault = "is no ordinary 64-bit CPython"
print("%s.%d|%s|%s" % (version, sys.version_info[2],
    python if os.path.exists(python) else sys.executable, fault))
'

# Prints one line for people.
say() { printf 'setup_env: %s\n' "$*" >&2; }

# Ends with exit code $1 and one line.
die() { say "error: $2"; exit "$1"; }

# Prints a path the short way.
short() {
  local path=${1#"$root"/}
  printf '%s' "${path/#"$home"\//\~/}"
}

# Reads the command line.
parse() {
  local arg
  for arg; do
    case $arg in
      --runtime=auto|--runtime=tf1|--runtime=tf2) asked=${arg#*=} ;;
      --runtime=*) die 2 "--runtime is auto, tf1 or tf2, not '${arg#*=}'" ;;
      --venv=?*) asked_venv=${arg#*=} ;;
      --venv=) die 2 '--venv needs a folder' ;;
      --dry_run) dry_run=1 ;;
      -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
      *) die 2 "unknown argument '$arg'; see --help" ;;
    esac
  done
  asked_venv=${asked_venv/#\~\//$home/}
  case $asked_venv in
    ''|/*) ;;
    *) asked_venv=$PWD/$asked_venv ;;
  esac
  venv=$asked_venv
}

# Prints where a Python $1 may be, one path a line, the PATH first.
candidates() {
  local tool dir
  type -aP "python$1" python3 python || true
  {
    for tool in pyenv conda mamba; do  # Their own prefix: PREFIX/bin/TOOL.
      tool=$(command -v "$tool") && printf '%s\n' "${tool%/*/*}"{,/envs/*} \
        "${tool%/*/*}"/versions/*
    done
    printf '%s\n' "${PYENV_ROOT:-$home/.pyenv}"/versions/*{,/envs/*} \
      "$home"/.pyenv/versions/*{,/envs/*} "${CONDA_PREFIX:-}" \
      "${MAMBA_ROOT_PREFIX:-}"/envs/* \
      "$home"/{mini,ana}conda{,3}{,/envs/*} "$home"/.conda/envs/* \
      "$home"/{mini,mamba}forge{,3}{,/envs/*} "$home"/micromamba{,/envs/*} \
      "$home"/.local/share/mamba{,/envs/*} \
      "$opt"/{conda,miniconda3,anaconda3,miniforge3,mambaforge}{,/envs/*} \
      "${XDG_DATA_HOME:-$home/.local/share}"/uv/python/* \
      "${XDG_DATA_HOME:-$home/.local/share}"/mise/installs/python/* \
      "${UV_PYTHON_INSTALL_DIR:-$home/.local/share/uv/python}"/* \
      "$home"/.asdf/installs/python/*
    cat "$home"/.conda/environments.txt 2>/dev/null  # Every conda ever made.
  } | while IFS= read -r dir; do
    [[ -z $dir || ! -x $dir/bin/python$1 ]] || printf '%s\n' "$dir/bin/python$1"
  done
}

# Whether Python $1 works and is one of the versions $2; sets version, python.
# Running it is the only way to know: a pyenv shim exists but may exit with 127.
suits() {
  local answer fault code=0
  answer=$("$1" -c "$probe" 2>/dev/null </dev/null) || code=$?
  fault="does not run (exit $code)"
  if ((code == 0)); then
    IFS='|' read -r version python fault <<<"$answer"
    [[ " $2 " == *" ${version%.*} "* ]] || return 1
    [[ -n $fault && $1 != "$venv/bin/python" ]] || return 0
  fi
  fault="$(short "$1") $fault"
  [[ $passed_over == *"$fault"* ]] || passed_over+="; $fault"
  return 1
}

# Whether runtime $1 can be had here; sets runtime, venv, version and python.
can_have() {
  local pythons=$tf2_pythons minor candidate
  [[ $1 == tf2 ]] || pythons=$tf1_pythons
  runtime=$1
  venv=${asked_venv:-$root/.venv-$1}
  # In this order: another set-up may be making its first file, which is $made.
  if [[ -n $(ls -A "$venv" 2>/dev/null) && ! -e $venv/$made
        && ! -e $venv/pyvenv.cfg ]]; then
    die 2 "$(short "$venv") holds something else than a virtual environment;\
 name a new or empty folder with --venv"
  fi
  if [[ -x $venv/bin/python ]] && suits "$venv/bin/python" "$pythons"; then
    return 0
  elif [[ -e $venv/pyvenv.cfg && ! -e $venv/$made ]]; then
    passed_over+="; $(short "$venv") is not of Python ${pythons// /, }"
    return 1  # Somebody else's environment is used as it is or not at all.
  fi
  for minor in $pythons; do
    while IFS= read -r candidate; do
      suits "$candidate" "$minor" && return 0
    done < <(candidates "$minor")
  done
  return 1
}

# Settles the runtime; sets why.
choose() {
  local found=" (passed over: "
  if [[ $asked == auto && -x $venv/bin/python ]] \
      && suits "$venv/bin/python" "$tf2_pythons"; then
    asked=tf2  # The named folder holds one already.
  fi
  case $asked in
    auto)
      if can_have tf1; then
        why='a Python 3.7 works here'
      else
        why="no Python 3.7 works here${passed_over:+"$found${passed_over#; })"}"
        can_have tf2 || die 3 "no Python 3.7 (for TensorFlow 1.15) and none of \
3.9 to 3.13 (for TensorFlow 2.x) works here\
${passed_over:+"$found${passed_over#; })"}"
      fi ;;
    *)
      why="--runtime=$asked"
      passed_over=
      can_have "$asked" || die 3 "$([[ $asked == tf1 ]] \
        && echo 'TensorFlow 1.15 needs a Python 3.7' \
        || echo 'TensorFlow 2.x needs a Python 3.9 to 3.13'), and none works \
here${passed_over:+"$found${passed_over#; })"}" ;;
  esac
}

# Settles the packages for the runtime; sets files, package, size; adds to why.
choose_packages() {
  local capability other='>= "3.10"'
  [[ $version == 3.9.* ]] || other='< "3.10"'
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
    why+='; a GPU answers nvidia-smi'
    case $runtime in
      tf1)
        files=requirements.txt size='1.4 GB, a minute or two'
        capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader \
          2>/dev/null | sed -n 's/^\([0-9]*\)\.[0-9]$/\1/p;q') || true
        if ((${capability:-0} >= 8)); then
          why+=', but is newer than 1.15 has kernels for: --runtime=tf2 uses it'
        fi ;;
      tf2) files=scripts/requirements/tf2-gpu.txt size='6 GB, some minutes' ;;
    esac
  else
    why+='; no GPU answers nvidia-smi'
    files=scripts/requirements/$runtime-cpu.txt size='about a minute'
  fi
  package=$(grep -E '^(intel-)?tensorflow' "$files" | grep -v "$other")
  if [[ $package == *$'\n'* ]]; then  # One line for Linux on x86, one for else.
    [[ $(uname -sm) == 'Linux x86_64' ]] && package=${package%%$'\n'*} \
      || package=${package#*$'\n'}
  fi
  package=${package%%;*}
  [[ $runtime == tf1 ]] || files+=' scripts/requirements/tf2-common.txt'
  files+=' scripts/requirements/test.txt'
}

# What a finished environment's stamp holds: its Python and every pin.
contents() {
  # shellcheck disable=SC2086
  printf '%s\n' "$version $python" && cat $files
}

# Whether the environment is finished and up to date.
ready() {
  [[ -x $venv/bin/python && -f $venv/$stamp \
    && $(<"$venv/$stamp") == "$(contents)" ]]
}

# Runs a command with its output in the log, which is shown if it fails.
logged() {
  local code=0
  "$@" >>"$venv/setup.log" 2>&1 </dev/null || code=$?
  ((code)) || return 0
  tail -n 15 "$venv/setup.log" >&2
  die 1 "'python ${*:2}' failed (exit $code);\
 the whole log: $(short "$venv")/setup.log"
}

# Makes the environment; two at once take turns, an interrupted one starts anew.
install() {
  mkdir -p "$venv" || die 2 "cannot make the folder $(short "$venv")"
  if exec 9<"$venv" && command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another set-up of $(short "$venv")"
    flock 9
  fi
  ! ready || return 0
  say "installing into $(short "$venv") ($size)"
  if [[ -e $venv/$made || ! -e $venv/pyvenv.cfg ]]; then
    : >"$venv/$made" || die 2 "cannot write to $(short "$venv")"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "$made" -exec rm -rf {} +
    logged "$python" -m venv "$venv"
  fi
  export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
  rm -f "$venv/$stamp"
  logged "$venv/bin/python" -m pip install 'pip>=21'
  logged "$venv/bin/python" -m pip install -r "${files%% *}" \
    -r scripts/requirements/test.txt
  contents >"$venv/$stamp.new"
  mv "$venv/$stamp.new" "$venv/$stamp"
}

parse "$@"
cd "$root"
choose
choose_packages
say "TensorFlow ${package#*==} (${package%%==*}), Python $version from\
 $(short "$python"): $why -> $(short "$venv")"
if [[ -z $dry_run ]]; then
  ready || install
fi
printf '%s\n' "$venv/bin/python"
