#!/usr/bin/env bash
# A grid of runs: data sets x noise levels x methods x seeds. Each run is a
# training process and a process that evaluates its checkpoints.
#
# Usage: scripts/sweep_cifar.sh [settings] [--run] [-- training flags]
#
# Prints one command per run and starts nothing. With --run it runs the
# commands, --jobs at a time, and waits. Finished runs are skipped and
# interrupted ones resume, so the same command completes the grid.
#
#   --datasets=cifar10          names, as in DATA_ROOT/NAME/{LEVEL,val}
#   --noise_levels=0.2,0.4,0.6,0.8   names of directories there
#   --methods=cross_entropy,mixup,mentornet,mentormix   any that
#                               code/cifar_train_mentormix.py --help lists
#   --seeds=0
#   --preset=published          see code/cifar_train_mentormix.py --help; 'none'
#   --devices=                  GPUs, such as 0,1; empty for the CPU
#   --jobs=N                    runs at a time: one per device; on the CPU 2
#   --eval_interval_secs=60     time between two searches for a new checkpoint
#   --data_root=data            paths are relative to the top of the repository
#   --runs_root=runs/sweep      run: RUNS_ROOT/DATASET/LEVEL/METHOD/seedSEED
#   --python=PATH               default: what scripts/setup_env.sh takes
#
# Both processes of a run write to log.txt in its directory. The sweep keeps
# running when the terminal closes. Ctrl-C or kill stops it after each training
# has saved a checkpoint. code/report.py makes a table of the runs.
#
# Exit codes: 0 all finished; 1 some failed; 2 bad input; 130, 143 stopped.
# shellcheck disable=SC2016  # $1 in single quotes is for another bash.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

datasets=cifar10 noise_levels=0.2,0.4,0.6,0.8 seeds=0 preset=published
methods=cross_entropy,mixup,mentornet,mentormix
devices='' jobs='' eval_interval_secs=60 python='' run='' training=()
data_root=data runs_root=runs/sweep

say() { printf 'sweep: %s\n' "$*" >&2; }
die() { say "error: $1"; exit 2; }

while (($#)); do
  case $1 in
    --datasets=*|--noise_levels=*|--methods=*|--seeds=*|--preset=*|\
    --devices=*|--jobs=*|--eval_interval_secs=*|--data_root=?*|\
    --runs_root=?*|--python=*)
      name=${1%%=*}; printf -v "${name#--}" %s "${1#*=}" ;;
    --run) run=1 ;;
    --) shift; training=("$@"); break ;;
    -h|--help) sed -n '2,/^# sh/s/^# \{0,1\}//p' scripts/sweep_cifar.sh; exit ;;
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
known=cross_entropy,bootstrap_soft,bootstrap_hard,s_model,gce,elr,co_teaching
known+=,mixup,mentornet,mentormix
check methods "${known//,/|}" "a list of ${known//,/, }"
check seeds '0|[1-9][0-9]{0,8}' 'a list of numbers such as 0,1,2'
[[ -z $devices ]] || check devices '[0-9]+' 'a list of GPUs such as 0,1'
check preset 'published|cpu|none' 'published, cpu or none'
check jobs '[1-9][0-9]{0,3}' 'a number from 1'
check eval_interval_secs '[1-9][0-9]{0,8}' 'a number from 1'
[[ ,$noise_levels, != *,val,* ]] \
  || die "--noise_levels=$noise_levels: val is the test set"
set_here='dataset_name|data_dir|train_log_dir|method|seed|preset|device_id'
for flag in ${training[@]+"${training[@]}"}; do
  [[ $flag == --* ]] || die "unexpected '$flag' after --; write --flag=value"
  [[ ! $flag =~ ^--?($set_here)(=|$) ]] \
    || die "$flag after --: the sweep sets that itself"
done
if [[ -n $run ]]; then
  for dataset in ${datasets//,/ }; do
    for level in ${noise_levels//,/ } val; do
      [[ -d $data_root/$dataset/$level ]] || die "$data_root/$dataset/$level\
 does not exist; make it with code/prepare_data.py"
    done
  done
  mkdir -p "$runs_root" 2>/dev/null && [[ -w $runs_root ]] \
    || die "--runs_root=$runs_root cannot be written"
  python=${python:-$(scripts/setup_env.sh)}
  command -v "$python" >/dev/null || die "--python=$python does not exist"
fi
python=${python:-$(scripts/setup_env.sh --dry_run 2>/dev/null)}
cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
threads=$((cores > jobs ? cores / jobs : 1))  # Runs on the CPU share its cores.
variables="OMP_NUM_THREADS=$threads TF_NUM_INTRAOP_THREADS=$threads "
[[ -z $devices ]] || variables=''

# Waits for the two processes $t and $e; if one fails, ends the other one.
pair='while kill -0 $t && kill -0 $e; do sleep 1; done 2>/dev/null;'
pair+=' kill -0 $t 2>/dev/null && set $e $t || set $t $e;'
pair+=' wait $1 || { c=$?; kill $2; wait $2; exit $c; }; wait $2'

# Prints its arguments as words for a shell, each with a space behind it.
words() { printf '%q ' "$@"; }

# Prints each run as three strings that end with a NUL: its directory, its
# settings and its command.
commands() {
  local seed dataset level method directory settings evaluation log device i=0
  for seed in ${seeds//,/ }; do for dataset in ${datasets//,/ }; do
  for level in ${noise_levels//,/ }; do for method in ${methods//,/ }; do
    directory=$runs_root/$dataset/$level/$method/seed$seed
    device=${devices:+${device_of[i++ % ${#device_of[@]}]}}
    [[ -z $run ]] || device='$device'  # Known when the run starts.
    settings=$(words "--dataset_name=$dataset" \
      "--data_dir=$data_root/$dataset/$level" \
      "--train_log_dir=$directory/train" "--method=$method" "--seed=$seed")
    [[ $preset == none ]] || settings+="--preset=$preset "
    ((!${#training[@]})) || settings+=$(words "${training[@]}")
    evaluation=$(words "--data_dir=$data_root/$dataset/val" --batch_size=100 \
      "--checkpoint_dir=$directory/train" "--eval_dir=$directory/eval" \
      "--eval_interval_secs=$eval_interval_secs")
    log=$(words "$directory/log.txt")
    printf '%s\0' "$directory" "$settings" "mkdir -p $(words "$directory")&& (\
exec </dev/null >>$log 2>&1; $variables$(words "$python")\
code/cifar_train_mentormix.py $settings--device_id=$device & t=\$!;\
 $variables$(words "$python")\
code/cifar_eval.py $evaluation--device_id=$device & e=\$!; $pair)"
  done; done; done; done
}

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
