#!/usr/bin/env bash
# A grid of runs: data sets x noise levels x methods x checkpoints x seeds. Each
# run is a training process, and processes that evaluate its checkpoints.
#
# Usage: scripts/sweep.sh [settings] [--run] [-- training flags]
#
# Prints one command per run and starts nothing. With --run it runs the
# commands, --jobs at a time, and waits. Finished runs are skipped and
# interrupted ones resume, so the same command completes the grid.
#
#   --datasets=cifar10          names, as in DATA_ROOT/NAME/{LEVEL,val}
#   --noise_levels=0.2,0.4,0.6,0.8   names of directories there; also worse, ...
#   --methods=cross_entropy,mixup,mentornet,mentormix
#   --checkpoint_paths=none     from scratch; or checkpoints to fine-tune
#   --seeds=0
#   --preset=published          see code/cifar_train_mentormix.py --help; 'none'
#   --devices=                  GPUs, such as 0,1; empty for the CPU
#   --jobs=N                    runs at a time: one per device; on the CPU 2
#   --eval_interval_secs=60     time between two searches for a new checkpoint
#   --data_root=data            paths are relative to the top of the repository
#   --runs_root=runs/sweep      run: RUNS_ROOT/DATASET/LEVEL/METHOD/seedSEED
#   --python=PATH               default: what scripts/setup_env.sh takes
#   --run=N                     runs only the command in line N, from 0
#   --slurm_array               prints a script for sbatch, a task for each run
#
# A run that starts with a checkpoint has METHOD-from-PATH in place of METHOD,
# with - for each / of the path. In a run, eval/results.csv has the results on
# val; holdout/ and eval/ilsvrc12/ those on the directories LEVEL_holdout and
# val_ilsvrc12 of the data set, where it has them.
#
# All processes of a run write to log.txt in its directory. The sweep keeps
# running when the terminal closes. Ctrl-C or kill stops it after each training
# has saved a checkpoint. code/report.py makes a table of the runs.
#
# Exit codes: 0 all finished; 1 some failed; 2 bad input; 130, 143 stopped.
# shellcheck disable=SC2016  # $1 in single quotes is for another bash.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

datasets=cifar10 noise_levels=0.2,0.4,0.6,0.8 seeds=0 preset=published
methods=cross_entropy,mixup,mentornet,mentormix checkpoint_paths=none
devices='' jobs='' eval_interval_secs=60 python='' run='' training=()
data_root=data runs_root=runs/sweep slurm=''

say() { printf 'sweep: %s\n' "$*" >&2; }
die() { say "error: $1"; exit 2; }

while (($#)); do
  case $1 in
    --datasets=*|--noise_levels=*|--methods=*|--checkpoint_paths=*|\
    --seeds=*|--preset=*|--devices=*|--jobs=*|--eval_interval_secs=*|\
    --data_root=?*|--runs_root=?*|--python=*)
      name=${1%%=*}; printf -v "${name#--}" %s "${1#*=}" ;;
    --run) run=all ;;
    --run=?*) run=${1#*=} ;;
    --slurm_array) slurm=1 ;;
    --) shift; training=("$@"); break ;;
    -h|--help) sed -n '2,/^# sh/s/^# \{0,1\}//p' scripts/sweep.sh; exit ;;
    *) die "unknown or empty argument '$1'; see --help (training flags go\
 after --)" ;;
  esac
  shift
done

# Dies unless flag $1 matches $2, or is a list of different words that do; $3
# says what it should be.
check() {
  local pattern="^($2)(,($2))*$"
  [[ $3 == 'a list of '* ]] || pattern="^($2)$"
  [[ ${!1} =~ $pattern ]] || die "--$1=${!1} is not $3"
  [[ -z $(tr , '\n' <<<"${!1}" | sort | uniq -d) ]] \
    || die "--$1=${!1} names one twice"
}
IFS=, read -ra device_of <<<"$devices"
jobs=${jobs:-$((${#device_of[@]} ? ${#device_of[@]} : 2))}
name='[A-Za-z0-9_][A-Za-z0-9_.+-]*'
check datasets "$name" 'a list of data sets such as cifar10,cifar100'
check noise_levels "$name" 'a list of directories such as 0.2,0.4'
check methods "$name" 'a list of methods such as mixup,mentormix'
check checkpoint_paths '[^,]+' 'a list of none and checkpoints'
check seeds '0|[1-9][0-9]{0,8}' 'a list of numbers such as 0,1,2'
[[ -z $devices ]] || check devices '[0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+' \
  'a list of GPUs such as 0,1'
check preset "$name" 'a preset such as published, or none'
check jobs '[1-9][0-9]{0,3}' 'a number from 1'
check eval_interval_secs '[1-9][0-9]{0,8}' 'a number from 1'
[[ -z $run ]] || check run 'all|0|[1-9][0-9]{0,8}' 'the number of a line'
total=1
for list in "$datasets" "$noise_levels" "$methods" "$checkpoint_paths" \
    "$seeds"; do
  IFS=, read -ra paths <<<"$list"
  total=$((total * ${#paths[@]}))
done
IFS=, read -ra paths <<<"$checkpoint_paths"
[[ -z $run || $run == all || $run -lt $total ]] \
  || die "--run=$run: the last run is $((total - 1))"
[[ -z $run || -z $slurm ]] || die 'give --run or --slurm_array, not both'
[[ ,$noise_levels, != *,val,* ]] \
  || die "--noise_levels=$noise_levels: val is the test set"
set_here='dataset_name|data_dir|train_log_dir|method|checkpoint_path|seed'
set_here+='|preset|device_id'
for flag in ${training[@]+"${training[@]}"}; do
  [[ $flag == --* ]] || die "unexpected '$flag' after --; write --flag=value"
  [[ ! $flag =~ ^--?($set_here)(=|$) ]] \
    || die "$flag after --: the sweep sets that itself"
done
if [[ -n $run$slurm ]]; then
  for dataset in ${datasets//,/ }; do
    for level in ${noise_levels//,/ } val; do
      [[ -d $data_root/$dataset/$level ]] || die "$data_root/$dataset/$level\
 does not exist; make it with code/prepare_data.py"
    done
  done
  for path in "${paths[@]}"; do
    [[ $path == none || -e $path || -e $path.index ]] \
      || die "--checkpoint_paths=$checkpoint_paths: $path does not exist"
  done
  mkdir -p "$runs_root" 2>/dev/null && [[ -w $runs_root ]] \
    || die "--runs_root=$runs_root cannot be written"
  python=${python:-$(scripts/setup_env.sh)}
  command -v "$python" >/dev/null || die "--python=$python does not exist"
fi
python=${python:-$(scripts/setup_env.sh --dry_run 2>/dev/null)}
# Names of methods and presets; the check needs no TensorFlow.
! command -v "$python" >/dev/null || "$python" -c '
import sys
sys.path.insert(0, "code")
from mentormix import presets, settings
for flag, names, known in (
    ("methods", sys.argv[1], settings.METHODS),
    ("preset", sys.argv[2], presets.NAMES + ("none",))):
  for name in set(names.split(",")).difference(known):
    sys.exit(f"sweep: error: --{flag}={names}: {name} is not one of "
             + ", ".join(known))' "$methods" "$preset" >&2 || exit 2
cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
threads=$((cores > jobs ? cores / jobs : 1))  # Runs on the CPU share its cores.
variables="OMP_NUM_THREADS=$threads TF_NUM_INTRAOP_THREADS=$threads "
[[ -z $devices ]] || variables=''

# Waits for the processes $@; if one fails, ends the others.
wait_all='while (($#)); do sleep 1; for p; do shift; if kill -0 $p 2>/dev/null;'
wait_all+=' then set -- "$@" $p; else wait $p || { c=$?; kill $@; wait;'
wait_all+=' exit $c; }; fi; done; done'

# Prints its arguments as words for a shell, each with a space behind it.
words() { printf '%q ' "$@"; }

# Prints the path of a checkpoint as a part of a file name.
name_of() {
  local name=${1//[^A-Za-z0-9_.+-]/-}
  echo "${name#-}"
}
[[ -z $(for path in "${paths[@]}"; do name_of "$path"; done | sort \
  | uniq -d) ]] || die "--checkpoint_paths=$checkpoint_paths: two would have\
 one directory"

# Prints each run as three strings that end with a NUL: its directory, its
# settings and its command.
commands() {
  local seed dataset level method path directory settings log device k=0
  local start=' & set -- "$@" $!; '
  for seed in ${seeds//,/ }; do for dataset in ${datasets//,/ }; do
  for level in ${noise_levels//,/ }; do for method in ${methods//,/ }; do
  for path in "${paths[@]}"; do
    device=${devices:+${device_of[k % ${#device_of[@]}]}}
    [[ -z $run ]] || device='$device'  # Known when the run starts.
    [[ -z $run || $run == all || $run == "$k" ]] || { ((++k)); continue; }
    ((++k))
    directory=$runs_root/$dataset/$level/$method
    settings=
    if [[ $path != none ]]; then
      directory+=-from-$(name_of "$path")
      settings=$(words "--checkpoint_path=$path")
    fi
    directory+=/seed$seed
    settings=$(words "--dataset_name=$dataset" \
      "--data_dir=$data_root/$dataset/$level" \
      "--train_log_dir=$directory/train" "--method=$method" "--seed=$seed"
      )$settings
    [[ $preset == none ]] || settings+="--preset=$preset "
    ((!${#training[@]})) || settings+=$(words "${training[@]}")
    log=$(words "$directory/log.txt")
    printf '%s\0' "$directory" "$settings" "mkdir -p $(words "$directory")&& (\
exec </dev/null >>$log 2>&1; set --; $variables$(words "$python")\
code/cifar_train_mentormix.py $settings--device_id=$device$start$(
      evaluations val eval
      evaluations "${level}_holdout" holdout
      evaluations val_ilsvrc12 eval/ilsvrc12)$wait_all)"
  done; done; done; done; done
}

# Prints the process that evaluates on the directory $1, if it exists, to $2.
evaluations() {
  [[ $1 == val || -d $data_root/$dataset/$1 ]] || return 0
  printf %s "$variables$(words "$python" code/cifar_eval.py \
    "--data_dir=$data_root/$dataset/$1" --batch_size=100 \
    "--checkpoint_dir=$directory/train" "--eval_dir=$directory/$2" \
    "--eval_interval_secs=$eval_interval_secs")--device_id=$device$start"
}

if [[ -n $slurm ]]; then
  echo "#!/usr/bin/env bash
# Each task of the array is one run; submit it again to resume and to retry.
#SBATCH --job-name=sweep
#SBATCH --array=0-$((total - 1))
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time limit the run saves a checkpoint.
#SBATCH --signal=B:TERM@120
cd $(words "$PWD")
exec scripts/sweep.sh --run=\"\$SLURM_ARRAY_TASK_ID\" --jobs=1 \\
  --devices=\"\${CUDA_VISIBLE_DEVICES:-}\" \\"
  for flag in datasets noise_levels methods checkpoint_paths seeds preset \
      eval_interval_secs data_root runs_root python; do
    echo "  $(words "--$flag=${!flag}")\\"
  done
  echo "  -- $( ((!${#training[@]})) || words "${training[@]}")"
  exit
fi
if [[ -z $run ]]; then
  commands | xargs -0 -n 3 bash -c 'printf "%s\n" "$3"' print
  exit
fi

# Runs the command $3 of directory $1 with the settings $2, in slot $SLOT.
work='
  gpus=($DEVICES)
  export device=${gpus[${SLOT:-0} % (${#gpus[@]} + !${#gpus[@]})]:-}
  if [[ $(cat "$1/finished.txt" 2>/dev/null) == "$2" ]]; then
    echo "sweep: finished before: $1" >&2
    exit
  fi
  echo "sweep: start: $1" >&2
  if bash -c "$3"; then
    printf "%s\n" "$2" >"$1/finished.txt"
    echo "sweep: finished: $1" >&2
  else
    echo "sweep: failed: $1; errors in its log.txt:" >&2
    grep -e ": error: " -e "Error: " "$1/log.txt" | tail -n 2 >&2
    exit 1
  fi'

# Stops all runs, then the sweep with exit code $2. Training saves a checkpoint.
stop() {
  trap '' INT TERM
  say "stopped by SIG$1; waiting for a checkpoint of each run"
  kill -- "-$group" 2>/dev/null
  while kill -0 -- "-$group" 2>/dev/null; do sleep 1; done
  say 'rerun the same command to resume'
  exit "$2"
}
trap '' HUP
trap 'stop INT 130' INT
trap 'stop TERM 143' TERM
set -m  # The runs get a process group, which Ctrl-C does not reach by itself.
export DEVICES=${devices//,/ }
# SLOT says which of the jobs a run is; only GNU's xargs has that.
(commands | xargs -0 -n 3 -P "$jobs" ${devices:+--process-slot-var=SLOT} \
  bash -c "$work" sweep) &
group=$!
if ! wait "$group"; then
  say 'some runs failed; rerun the same command to try them again'
  exit 1
fi
say "all finished; make a table with: $(words "$python" code/report.py \
  "--runs=$runs_root" "--output_dir=$runs_root/report")"
