#!/usr/bin/env bash
# A grid of runs: data sets x noise levels x methods x seeds. Each run is a
# training process and a process that evaluates its checkpoints.
#
# Usage: scripts/sweep_cifar.sh [settings] [--run] [-- training flags]
#
# Prints one command per run and starts nothing. With --run it runs the
# commands, --jobs at a time, and waits. Finished runs are skipped, interrupted
# ones resume, so after a reboot the same command completes the grid.
#
#   --datasets=cifar10          names, as in DATA_ROOT/NAME/{LEVEL,val}
#   --noise_levels=0.2,0.4,0.6,0.8   names of directories there
#   --methods=cross_entropy,mixup,mentornet,mentormix
#   --seeds=0
#   --preset=published          see code/cifar_train_mentormix.py --help; 'none'
#   --devices=                  GPUs, such as 0,1; empty for the CPU
#   --jobs=N                    runs at a time: one per device; on the CPU 2
#   --eval_interval_secs=60     time between two searches for a new checkpoint
#   --data_root=data            paths are relative to the top of the repository
#   --runs_root=runs/sweep      run: RUNS_ROOT/DATASET/LEVEL/METHOD/seedSEED
#   --python=PATH               default: that of scripts/setup_env.sh
#
# Both processes of a run write to log.txt in its directory. The sweep keeps
# running when the terminal closes. Ctrl-C or kill stops it after each training
# has saved a checkpoint. code/report.py makes a table of the runs.
#
# Exit codes: 0 all finished; 1 some failed; 2 bad input; 130, 143 stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

datasets=cifar10 noise_levels=0.2,0.4,0.6,0.8 seeds=0 preset=published
methods=cross_entropy,mixup,mentornet,mentormix
devices='' jobs='' eval_interval_secs=60 python='' run=''
data_root=data runs_root=runs/sweep
training=()

say() { printf 'sweep: %s\n' "$*" >&2; }
die() { say "error: $1"; exit 2; }

while (($#)); do
  case $1 in
    --datasets=*|--noise_levels=*|--methods=*|--seeds=*|--preset=*|\
    --devices=*|--jobs=*|--eval_interval_secs=*|--data_root=?*|\
    --runs_root=?*|--python=*)
      name=${1%%=*}
      printf -v "${name#--}" '%s' "${1#*=}" ;;
    --run) run=1 ;;
    --) shift; training=("$@"); break ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/sweep_cifar.sh; exit ;;
    *) die "unknown or empty argument '$1'; see --help (training flags go\
 after --)" ;;
  esac
  shift
done

# Dies unless flag $1 matches $2, or is a list of different words that do; $3
# says what it should be.
check() { [[ ${!1} =~ ^($2)$ ]] || die "--$1=${!1} is not $3"; }
check_list() {
  check "$1" "($2)(,($2))*" "a list of $3"
  [[ -z $(tr , '\n' <<<"${!1}" | sort | uniq -d) ]] \
    || die "--$1=${!1} names one twice"
}
IFS=, read -ra device_of <<<"$devices"
[[ -n $jobs ]] || jobs=$((${#device_of[@]} ? ${#device_of[@]} : 2))
name='[A-Za-z0-9_][A-Za-z0-9_.+-]*'
check_list datasets "$name" 'data sets such as cifar10,cifar100'
check_list noise_levels "$name" 'directories such as 0.2,0.4'
check_list methods 'cross_entropy|mixup|mentornet|mentormix' \
  'cross_entropy, mixup, mentornet, mentormix'
check_list seeds '0|[1-9][0-9]{0,8}' 'numbers such as 0,1,2'
[[ -z $devices ]] || check_list devices '[0-9]+' 'GPUs such as 0,1'
check preset 'published|cpu|none' 'published, cpu or none'
check jobs '[1-9][0-9]{0,3}' 'a number from 1'
check eval_interval_secs '[1-9][0-9]{0,8}' 'a number from 1'
[[ ,$noise_levels, != *,val,* ]] \
  || die "--noise_levels=$noise_levels: val is the test set"
own='dataset_name|data_dir|train_log_dir|method|seed|preset|device_id'
for flag in ${training[@]+"${training[@]}"}; do
  [[ $flag == --* ]] || die "unexpected '$flag' after --; write --flag=value"
  [[ ! $flag =~ ^--?($own)(=|$) ]] \
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

# Prints the commands, each as three strings that end with a NUL: the run's
# directory, its settings and the command.
commands() {
  local seed dataset level method i=0
  for seed in ${seeds//,/ }; do for dataset in ${datasets//,/ }; do
    for level in ${noise_levels//,/ }; do for method in ${methods//,/ }; do
      command_of "$dataset" "$level" "$method" "$seed" $((i++))
    done; done
  done; done
}

# Prints command $5: of data set $1, noise level $2, method $3 and seed $4.
command_of() {
  local directory=$runs_root/$1/$2/$3/seed$4 device='' settings evaluation log
  [[ -z $devices ]] || device=${device_of[$5 % ${#device_of[@]}]}
  [[ -z $run ]] || device='$device'  # Known when the run starts.
  settings=$(words "--dataset_name=$1" "--data_dir=$data_root/$1/$2" \
    "--train_log_dir=$directory/train" "--method=$3" "--seed=$4")
  [[ $preset == none ]] || settings+="--preset=$preset "
  ((!${#training[@]})) || settings+=$(words "${training[@]}")
  evaluation=$(words "--data_dir=$data_root/$1/val" --batch_size=100 \
    "--checkpoint_dir=$directory/train" "--eval_dir=$directory/eval" \
    "--eval_interval_secs=$eval_interval_secs")
  log=$(words "$directory/log.txt")
  printf '%s\0' "$directory" "$settings" "mkdir -p $(words "$directory")&& (\
exec </dev/null >>$log 2>&1; $variables$(words "$python")\
code/cifar_train_mentormix.py $settings--device_id=$device & t=\$!;\
 $variables$(words "$python")\
code/cifar_eval.py $evaluation--device_id=$device & e=\$!; $pair)"
}

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

if [[ -z $run ]]; then
  commands | xargs -0 -n 3 bash -c 'printf "%s\n" "$3"' print
  exit
fi

# Stops all runs, then the sweep with exit code $2. Training saves a checkpoint.
stop() {
  trap '' INT TERM
  say "stopped by SIG$1; waiting for a checkpoint of each run"
  kill -- "-$group" 2>/dev/null
  while kill -0 -- "-$group" 2>/dev/null; do sleep 1; done
  say 'the same command resumes'
  exit "$2"
}
trap '' HUP
trap 'stop INT 130' INT
trap 'stop TERM 143' TERM
set -m  # The runs get a process group, which Ctrl-C does not reach by itself.
export DEVICES=${devices//,/ }
slot=()  # Which of the jobs a run is; only GNU's xargs has that.
[[ -z $devices ]] || slot=(--process-slot-var=SLOT)
(commands | xargs -0 -n 3 -P "$jobs" ${slot[@]+"${slot[@]}"} \
  bash -c "$work" sweep) &
group=$!
if ! wait "$group"; then
  say 'some runs failed; the same command tries them again'
  exit 1
fi
say "all finished; make a table with: $(words "$python" code/report.py \
  "--runs=$runs_root" "--output_dir=$runs_root/report")"
