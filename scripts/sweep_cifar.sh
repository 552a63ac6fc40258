#!/usr/bin/env bash
# A grid of runs: data sets x noise levels x methods x seeds. Each run is a
# training process and a process that evaluates its checkpoints.
#
# Usage: scripts/sweep_cifar.sh [settings] [--run|--status] [-- training flags]
#
# By default it prints the command of every run, one line each, and starts
# nothing. With --run it starts them, some at a time, and waits; finished runs
# are skipped, interrupted ones go on where they were, so after a reboot the same
# command is all it takes. With --status it prints how far each run is.
#
#   --datasets=cifar10          names, as DATA_ROOT/NAME/{LEVEL,val}
#   --noise_levels=0.2,0.4,0.6,0.8   names of directories there
#   --methods=cross_entropy,mixup,mentornet,mentormix
#   --seeds=0
#   --preset=published          see code/cifar_train_mentormix.py --help; 'none'
#   --devices=                  GPUs, such as 0,1; none: the CPU
#   --jobs=N                    runs at a time: one per device; on the CPU 2
#   --eval_interval_secs=60     between two looks for a new checkpoint
#   --data_root=data            this and the next: from the top of the repository
#   --runs_root=runs/sweep      run: RUNS_ROOT/DATASET/LEVEL/METHOD/seedSEED
#   --python=PATH               default: that of scripts/setup_env.sh
#
# Each run has one log, log.txt in its directory, with both processes' lines.
# Stop it with Ctrl-C or kill: it ends its children after a checkpoint each. It
# goes on when the terminal closes. For a table: code/report.py.
#
#   scripts/sweep_cifar.sh --datasets=cifar10,cifar100 --devices=0,1 --seeds=0,1,2
#
# Exit codes: 0 all finished; 1 some failed; 2 bad input; 128+n stopped by
# signal n.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

datasets=cifar10
noise_levels=0.2,0.4,0.6,0.8
methods=cross_entropy,mixup,mentornet,mentormix
seeds=0
preset=published
devices=
jobs=
eval_interval_secs=60
data_root=data
runs_root=runs/sweep
python=
action=print
extra=()

say() { printf 'sweep: %s\n' "$*" >&2; }
die() { say "error: $1"; exit 2; }

# Reads the command line.
parse() {
  while (($#)); do
    case $1 in
      --datasets=*|--noise_levels=*|--methods=*|--seeds=*|--preset=*|\
      --devices=*|--jobs=*|--eval_interval_secs=*|--data_root=*|\
      --runs_root=*|--python=*)
        local name=${1%%=*}
        printf -v "${name#--}" '%s' "${1#*=}" ;;
      --run|--status) action=${1#--} ;;
      --) shift; extra=("$@"); return ;;
      -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/sweep_cifar.sh
                 exit ;;
      *) die "unknown argument '$1'; see --help (training flags go after --)" ;;
    esac
    shift
  done
}

# Dies unless flag $1 is a list of words that match $2; $3 says which.
check_list() {
  local value=${!1}
  [[ $value =~ ^($2)(,($2))*$ ]] || die "--$1=$value is not $3"
  [[ $(tr , '\n' <<<"$value" | sort | uniq -d) == '' ]] \
    || die "--$1=$value names one twice"
}

check() {
  local name='[A-Za-z0-9_][A-Za-z0-9_.+-]*'
  check_list datasets "$name" 'a list of data sets such as cifar10,cifar100'
  check_list noise_levels "$name" 'a list of directories such as 0.2,0.4'
  check_list methods 'cross_entropy|mixup|mentornet|mentormix' \
    'a list of cross_entropy, mixup, mentornet, mentormix'
  [[ ",$noise_levels," != *,val,* ]] \
    || die "--noise_levels=$noise_levels: val is the test set"
  check_list seeds '0|[1-9][0-9]{0,8}' 'a list of numbers such as 0,1,2'
  [[ -z $devices ]] || check_list devices '[0-9]+' 'a list of GPUs such as 0,1'
  [[ $preset =~ ^(published|cpu|none)$ ]] \
    || die "--preset=$preset is not published, cpu or none"
  [[ $eval_interval_secs =~ ^[1-9][0-9]{0,8}$ ]] \
    || die "--eval_interval_secs=$eval_interval_secs is not a number from 1"
  IFS=, read -ra device_of <<<"$devices"
  if [[ -z $jobs ]]; then
    jobs=${#device_of[@]}
    ((jobs)) || jobs=2
  fi
  [[ $jobs =~ ^[1-9][0-9]{0,3}$ ]] || die "--jobs=$jobs is not a number from 1"
  [[ -n $data_root && -n $runs_root ]] \
    || die '--data_root and --runs_root may not be empty'
  local flag own
  own='^--?(dataset_name|data_dir|train_log_dir|method|seed|preset|device_id)(=|$)'
  for flag in ${extra[@]+"${extra[@]}"}; do
    [[ $flag == --* ]] || die "unexpected '$flag' after --; write --flag=value"
    [[ ! $flag =~ $own ]] || die "$flag after --: the sweep sets that itself"
  done
}

# Sets run, settings, and what its two processes have on their command lines,
# for the grid point $1 in slot $2.
compose() {
  local dataset level method seed device= threads
  IFS=' ' read -r dataset level method seed <<<"$1"
  run=$runs_root/$dataset/$level/$method/seed$seed
  environment=()
  if ((${#device_of[@]})); then
    device=${device_of[$2 % ${#device_of[@]}]}
  else
    threads=$(( $(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) / jobs ))
    ((threads)) || threads=1
    environment=("OMP_NUM_THREADS=$threads" "TF_NUM_INTRAOP_THREADS=$threads")
  fi
  train=(code/cifar_train_mentormix.py "--dataset_name=$dataset"
    "--data_dir=$data_root/$dataset/$level" "--train_log_dir=$run/train"
    "--method=$method" "--seed=$seed")
  [[ $preset == none ]] || train+=("--preset=$preset")
  train+=(${extra[@]+"${extra[@]}"})
  settings=${train[*]}
  train+=("--device_id=$device")
  evaluate=(code/cifar_eval.py "--data_dir=$data_root/$dataset/val"
    "--checkpoint_dir=$run/train" "--eval_dir=$run/eval" --batch_size=100
    "--eval_interval_secs=$eval_interval_secs" "--device_id=$device")
}

# Prints the grid, a point per line, so that early lines cover all methods.
grid() {
  local seed dataset level method
  for seed in ${seeds//,/ }; do
    for dataset in ${datasets//,/ }; do
      for level in ${noise_levels//,/ }; do
        for method in ${methods//,/ }; do
          echo "$dataset $level $method $seed"
        done
      done
    done
  done
}

# Prints the command of a run as a line for a shell. Without the training there
# is nothing for the evaluation to wait for.
print_command() {
  local start log
  start="nohup env$(printf ' %q' ${environment[@]+"${environment[@]}"} \
    "$python")"
  log=$(printf '%q' "$run/log.txt")
  printf 'mkdir -p %q; (%s%s >>%s 2>&1 & t=$!; %s%s >>%s 2>&1 & e=$!;' "$run" \
    "$start" "$(printf ' %q' "${train[@]}")" "$log" \
    "$start" "$(printf ' %q' "${evaluate[@]}")" "$log"
  printf ' wait $t || kill $e; wait $e)\n'
}

# The number after "max_number_of_steps" in the settings of a run, if any.
last_step() {
  sed -n 's/.*"max_number_of_steps": \([0-9]*\).*/\1/p' \
    "$run/train/config.json" 2>/dev/null || true
}

# Sets state, step, last and peak from the files of a run.
look() {
  local end
  end=$(last_step)
  step=$(sed -n '1s/.*-\([0-9]*\)"$/\1/p' "$run/train/checkpoint" \
    2>/dev/null) || true
  read -r evaluated last peak < <(awk -F, '
    NR > 1 && NF == 6 { step = $1; last = 100 * $2
                        if (last > peak) peak = last }
    END { if (step == "") print "- - -"
          else printf "%d %.2f %.2f\n", step, last, peak }' \
    "$run/eval/results.csv" 2>/dev/null) || evaluated=- last=- peak=-
  if locked; then
    state=running
  elif [[ -n $end && $evaluated == "$end" ]]; then
    state=finished
  elif [[ -f $run/log.txt && $(tail -n 1 "$run/log.txt") == 'sweep: error: '* ]]
  then
    state=failed
  elif [[ -n $step ]]; then
    state=stopped
  else
    state=waiting
  fi
  step=${step:-0}/${end:-?}
}

# Whether a process works in the run, be it of this sweep or of another.
locked() {
  [[ -f $run/.lock ]] && command -v flock >/dev/null \
    && ! flock -n "$run/.lock" true
}

# The two processes of a run, in a subshell of their own. Both hold the lock on
# descriptor 9, so it outlives this script if they do. Whichever fails takes the
# other along.
work() {
  local code=0 stopped= children=() trainer evaluator begin
  trap 'stopped=1; kill ${children[@]+"${children[@]}"} 2>/dev/null' TERM
  exec 9>>"$run/.lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "$run is at work already, from an earlier sweep; waiting for it"
    flock 9 &
    children=($!)
    [[ -z $stopped ]] || kill "${children[@]}"
    wait_for "${children[0]}"
    [[ -z $stopped ]] || exit 143
  fi
  printf '%s\n' "$settings" >"$run/settings.txt"
  : >>"$run/log.txt"
  begin=$(($(wc -c <"$run/log.txt") + 1))
  nohup env ${environment[@]+"${environment[@]}"} "$python" "${train[@]}" \
    >>"$run/log.txt" 2>&1 </dev/null &
  trainer=$!
  nohup env ${environment[@]+"${environment[@]}"} "$python" "${evaluate[@]}" \
    >>"$run/log.txt" 2>&1 </dev/null &
  evaluator=$!
  children=("$trainer" "$evaluator")
  [[ -z $stopped ]] || kill "${children[@]}" 2>/dev/null
  while kill -0 "$trainer" && kill -0 "$evaluator"; do pause; done 2>/dev/null
  if kill -0 "$trainer" 2>/dev/null; then
    end_pair "$evaluator" "$trainer"
  else
    end_pair "$trainer" "$evaluator"
  fi
  if ((code)) && [[ -z $stopped ]]; then
    echo "sweep: error: exit code $code: $(tail -c "+$begin" "$run/log.txt" \
      | grep -e ': error: ' -e 'Error: ' | tail -n 1)" >>"$run/log.txt"
  fi
  exit "$code"
}

# Waits for process $1, which has ended, and for $2; sets code.
end_pair() {
  wait_for "$1"
  if ((code)); then
    local failure=$code
    # A second signal would end a training without its checkpoint.
    [[ -n $stopped ]] || kill "$2" 2>/dev/null
    wait_for "$2"
    code=$failure
  else
    wait_for "$2"
  fi
}

# Waits for process $1, though a signal may come meanwhile; sets code.
wait_for() {
  while :; do
    code=0
    wait "$1" 2>/dev/null || code=$?
    kill -0 "$1" 2>/dev/null || return 0
  done
}

# Starts all runs that are not finished, $jobs at a time, and waits for them.
run_all() {
  local point slot failed=0 workers=() names=()
  trap '' HUP
  trap 'stop INT 130' INT
  trap 'stop TERM 143' TERM
  while IFS= read -r point <&8; do
    while :; do  # Until a slot is free.
      for ((slot = 0; slot < jobs; slot++)); do
        reap "$slot"
        [[ -n ${workers[slot]:-} ]] || break 2
      done
      pause
    done
    compose "$point" "$slot"
    look
    # With other settings the training itself says what differs.
    if [[ $state == finished
          && $(cat "$run/settings.txt" 2>/dev/null) == "$settings" ]]; then
      say "finished before: $run"
      continue
    fi
    mkdir -p "$run"
    say "start ($state, step $step): $run"
    ( set +e; work ) 8<&- &
    workers[slot]=$! names[slot]=$run
  done 8< <(grid)
  for ((slot = 0; slot < jobs; slot++)); do
    while [[ -n ${workers[slot]:-} ]]; do
      reap "$slot"
      pause
    done
  done
  if ((failed)); then
    say "$failed failed; the same command tries them again"
    exit 1
  fi
  say "all finished; make a table with: $(printf '%q ' "$python" \
    code/report.py "--runs=$runs_root" "--output_dir=$runs_root/report")"
}

# Frees slot $1 if its run has ended.
reap() {
  local code=0
  [[ -n ${workers[$1]:-} ]] && ! kill -0 "${workers[$1]}" 2>/dev/null \
    || return 0
  wait "${workers[$1]}" || code=$?
  workers[$1]=
  if ((code)); then
    failed=$((failed + 1))
    say "failed: ${names[$1]}; the end of its log.txt:"
    tail -n 1 "${names[$1]}/log.txt" >&2
  else
    say "finished: ${names[$1]}"
  fi
}

# A second's sleep that a signal ends.
pause() { sleep 1 & wait $! || true; }

# Ends all runs after a checkpoint each, then this script with exit code $2.
stop() {
  local worker
  trap '' INT TERM
  say "stopped by $1; ending the runs after a checkpoint each"
  for worker in ${workers[@]+"${workers[@]}"}; do
    [[ -z $worker ]] || kill "$worker" 2>/dev/null || true
  done
  wait
  say 'the same command goes on from there'
  exit "$2"
}

parse "$@"
check
if [[ -z $python && $action == run ]]; then
  python=$(scripts/setup_env.sh)
elif [[ -z $python ]]; then
  python=$(scripts/setup_env.sh --dry_run 2>/dev/null)
fi
command -v "$python" >/dev/null || [[ $action != run ]] \
  || die "--python=$python is not there"
case $action in
  print)
    slot=0
    while IFS= read -r point; do
      compose "$point" $((slot++ % jobs))
      print_command
    done < <(grid) ;;
  status)
    printf '%-9s %15s %7s %7s  %s\n' state step 'last %' 'peak %' run
    while IFS= read -r point; do
      compose "$point" 0
      look
      printf '%-9s %15s %7s %7s  %s\n' "$state" "$step" "$last" "$peak" "$run"
    done < <(grid) ;;
  run)
    for dataset in ${datasets//,/ }; do
      for level in ${noise_levels//,/ } val; do
        [[ -d $data_root/$dataset/$level ]] || die "$data_root/$dataset/$level\
 is not there; make it with code/prepare_data.py"
      done
    done
    mkdir -p "$runs_root" 2>/dev/null && [[ -w $runs_root ]] \
      || die "--runs_root=$runs_root cannot be written"
    run_all ;;
esac
