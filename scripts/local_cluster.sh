#!/usr/bin/env bash
# A cluster on this machine: parameter servers, workers and an evaluator train
# one model. On a machine with several GPUs: a worker for each.
#
# Usage: scripts/local_cluster.sh [settings] [--run] -- training flags
#
# By default it prints the command of every task, one line each, and starts
# nothing. With --run it starts them, shows the lines of worker 0, starts again
# what dies, and waits for all.
#
#   --workers=2        number of workers; by default one for each device
#   --servers=1        number of parameter servers
#   --devices=         GPUs of the workers, such as 0,1; none: the CPU, whose
#                      cores are divided among them
#   --port=2222        the first of the ports: servers first, then workers
#   --no_evaluator     no task that evaluates the checkpoints
#   --restarts=3       how often a task that died is started again
#   --log_dir=DIR      a log for each task; default: TRAIN_LOG_DIR-logs
#   --python=PATH      default: that of scripts/setup_env.sh
#
# The training flags are those of code/cifar_train_mentormix.py; paths are
# relative to the top of the repository. Ctrl-C or kill ends the workers first,
# so that the chief saves; then the rest. A second one ends all at once. The
# same command goes on. It goes on by itself when the terminal closes.
#
#   scripts/local_cluster.sh --devices=0,1,2,3 --run -- --preset=published \
#     --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train
#
# Exit codes: 0 all finished; 1 a task failed too often; 2 bad input; 128+n
# stopped by signal n.
. "$(dirname "${BASH_SOURCE[0]}")/launcher.sh"

workers= servers=1 devices= port=2222 evaluator=1 restarts=3 log_dir= python=

check() {
  [[ $devices =~ ^([0-9]+(,[0-9]+)*)?$ ]] \
    || die "--devices=$devices is not a list of GPUs such as 0,1"
  [[ $(tr , '\n' <<<"$devices" | sort | uniq -d) == '' ]] \
    || die "--devices=$devices names one twice"
  IFS=, read -ra device_of <<<"$devices"
  ((${#device_of[@]})) && workers=${workers:-${#device_of[@]}} \
    || workers=${workers:-2}
  check_number workers 1 1000
  check_number servers 1 1000
  check_number restarts 0 1000
  check_number port 1 $((65536 - servers - workers))
  ((workers >= ${#device_of[@]})) \
    || die "--devices=$devices are more than --workers=$workers"
  check_training ps_hosts worker_hosts job_name task device_id bind_address
  log_dir=${log_dir:-${train_log_dir%/}-logs}
}

# Sets names, and the ports of servers and workers.
lay_out() {
  local k
  names=() ps_hosts= worker_hosts=
  for ((k = 0; k < servers; k++)); do
    names+=("ps $k")
    ps_hosts+=,127.0.0.1:$((port + k))
  done
  for ((k = 0; k < workers; k++)); do
    names+=("worker $k")
    worker_hosts+=,127.0.0.1:$((port + servers + k))
  done
  [[ -z $evaluator ]] || names+=('evaluator 0')
  threads=$(( $(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) / workers ))
  ((threads)) || threads=1
}

# Sets command and log of task $1, such as 'worker 0'.
compose() {
  local device=
  command=(env -u TF_CONFIG)
  if ((! ${#device_of[@]})); then
    command+=("OMP_NUM_THREADS=$threads" "TF_NUM_INTRAOP_THREADS=$threads")
  elif [[ $1 == worker* ]]; then
    device=${device_of[${1#* } % ${#device_of[@]}]}
  fi
  command+=("$python" code/cifar_train_mentormix.py "${training[@]}"
    "--ps_hosts=${ps_hosts#,}" "--worker_hosts=${worker_hosts#,}"
    "--job_name=${1% *}" "--task=${1#* }" "--device_id=$device")
  log=$log_dir/${1/ /}.txt
}

# Starts task $1, a number.
start() {
  compose "${names[$1]}"
  nohup "${command[@]}" >>"$log" 2>&1 </dev/null &
  pids[$1]=$!
}

# Starts all tasks, keeps them up, and waits for them.
run_all() {
  local k
  pids=() outcomes=() tries=() asked=() stopped= ending= news= failed=0
  trap '' HUP PIPE  # Whoever looks on may go.
  trap 'stop INT 130' INT
  trap 'stop TERM 143' TERM
  compose 'worker 0'
  chief_log=$log
  : >>"$chief_log"
  shown=$(wc -c <"$chief_log")
  for k in "${!names[@]}"; do
    tries[k]=0
    start "$k"
  done
  while ((${#pids[@]})); do
    pause
    for k in "${!pids[@]}"; do reap "$k"; done
    follow
    [[ -z $ending ]] || end_tasks
  done
  for k in "${!names[@]}"; do
    say "${names[k]} ended with exit code ${outcomes[k]}"
  done
  if [[ -n $stopped ]]; then
    say 'the same command goes on from there'
    exit "$stopped"
  fi
  exit "$failed"
}

# Looks whether task $1 has ended, and starts it again if it died.
reap() {
  local code=0
  ! kill -0 "${pids[$1]}" 2>/dev/null || return 0
  wait "${pids[$1]}" 2>/dev/null || code=$?
  unset "pids[$1]"
  outcomes[$1]=$code
  ((code)) && [[ -z $ending ]] || return 0
  compose "${names[$1]}"
  say "${names[$1]} died with exit code $code: $(tail -n 1 "$log")"
  if ((code != 2 && tries[$1] < restarts)); then
    tries[$1]=$((tries[$1] + 1))
    say "starting it again, ${tries[$1]} of $restarts times"
    start "$1"
  else
    failed=$((code == 2 ? 2 : 1)) ending=1
    news='ending the others; then the same command goes on'
  fi
}

# Asks the workers to end, and the rest when there are none any more: the chief
# saves what the servers have. Each is asked once: a second signal would end a
# worker without its checkpoint.
end_tasks() {
  local k now=()
  [[ -z $news ]] || say "$news"
  news=
  for k in "${!pids[@]}"; do
    [[ ${names[k]} != worker* ]] || now+=("$k")
  done
  ((${#now[@]})) || now=("${!pids[@]}")
  for k in ${now[@]+"${now[@]}"}; do
    [[ -n ${asked[k]:-} ]] || kill "${pids[k]}" 2>/dev/null || true
    asked[k]=1
  done
}

# Prints what is new in the log of the chief.
follow() {
  local size
  size=$(wc -c <"$chief_log") || return 0  # Ctrl-C ended it.
  tail -c "+$((shown + 1))" "$chief_log" 2>/dev/null \
    | head -c $((size - shown)) 2>/dev/null || true
  shown=$size
}

# A second's sleep that a signal ends. Who was killed, `reap` says, not Bash.
pause() { { sleep 1 & wait $! || true; } 2>/dev/null; }

# On signal $1, ends all tasks, then this script with exit code $2.
stop() {
  if [[ -n $stopped ]]; then
    kill -KILL ${pids[@]+"${pids[@]}"} 2>/dev/null || true
    return 0
  fi
  stopped=$2 ending=1 news="stopped by $1; ending the workers, then the rest"
}

parse "workers servers devices port restarts log_dir python" run "$@"
check
lay_out
say "TensorFlow's ports have no authentication: who reaches one owns the\
 account. These are on 127.0.0.1, for all users of this machine"
if [[ -z $python && $action == run ]]; then
  python=$(scripts/setup_env.sh)
elif [[ -z $python ]]; then
  python=$(scripts/setup_env.sh --dry_run 2>/dev/null)
fi
if [[ $action == print ]]; then
  for name in "${names[@]}"; do
    compose "$name"
    printf 'mkdir -p %q; nohup%s >>%q 2>&1 &\n' "$log_dir" \
      "$(printf ' %q' "${command[@]}")" "$log"
  done
  exit
fi
command -v "$python" >/dev/null || die "--python=$python is not there"
for ((k = port; k < port + servers + workers; k++)); do
  ! (exec 3<>"/dev/tcp/127.0.0.1/$k") 2>/dev/null \
    || die "port $k is in use; name the first of other ones with --port"
done
mkdir -p "$log_dir" 2>/dev/null && [[ -w $log_dir ]] \
  || die "--log_dir=$log_dir cannot be written"
say "${#names[@]} tasks; a log for each in $log_dir; below, worker 0"
run_all
