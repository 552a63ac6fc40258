#!/usr/bin/env bash
# A cluster on this machine: parameter servers, workers and an evaluator train
# one model. On a machine with several GPUs: a worker for each.
#
# Usage: scripts/local_cluster.sh [settings] -- training flags
#
#   --workers=2        number of workers; by default one for each device
#   --servers=1        number of parameter servers
#   --devices=         GPUs of the workers, such as 0,1; by default they share
#                      the cores of the CPU
#   --port=2222        first of the ports: servers first, then workers
#   --no_evaluator     start no task that evaluates the checkpoints
#   --restarts=3       how often a task that died is started again
#   --log_dir=DIR      a log for each task; default: TRAIN_LOG_DIR-logs
#   --python=PATH      default: what scripts/setup_env.sh takes
#
# The training flags are those of code/cifar_train_mentormix.py; paths are
# relative to the top of the repository. The script shows the lines of worker 0.
# Ctrl-C or kill stops all tasks, the workers first, so that the chief saves a
# checkpoint; a second one kills them at once. Rerun the same command to resume.
# The cluster keeps running when the terminal closes.
#
# TensorFlow's server has no password and executes what it is sent. So the tasks
# run in a network namespace of their own, where nobody else can reach them.
# Where the system forbids that, --listen_on_all_interfaces among the training
# flags starts them without.
#
#   scripts/local_cluster.sh --devices=0,1,2,3 -- --preset=published \
#     --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train
#
# Exit codes: 0 all finished; 1 a task failed too often; 2 bad input; 128+n
# stopped by signal n.
set -euo pipefail
self=scripts/local_cluster.sh
cd "$(dirname "${BASH_SOURCE[0]}")/.."
workers='' servers=1 devices='' port=2222 evaluator=1 restarts=3 log_dir=''
python='' inside='' train_log_dir='' given=("$@")

exec 3>&2
# Prints one line for people, if they still look.
say() { printf 'local_cluster: %s\n' "$*" >&3 || true; }
die() { say "error: $1"; exit 2; }

while (($#)); do
  case $1 in
    --workers=*|--servers=*|--devices=*|--port=*|--restarts=*|--log_dir=*|\
    --python=*|--inside=*) name=${1%%=*}; printf -v "${name#--}" %s "${1#*=}" ;;
    --no_evaluator) evaluator='' ;;
    --) shift; break ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' $self; exit ;;
    *) die "unknown argument '$1'; see --help (training flags go after --)" ;;
  esac
  shift
done
for flag; do
  [[ $flag != --train_log_dir=* ]] || train_log_dir=${flag#*=}
done
[[ -n $train_log_dir ]] || die '--train_log_dir=DIR must be given, after --'
IFS=, read -ra device_of <<<"$devices"
workers=${workers:-$((${#device_of[@]} ? ${#device_of[@]} : 2))}
[[ $workers,$servers,$port,$restarts \
  =~ ^[1-9][0-9]*,[1-9][0-9]*,[0-9]+,[0-9]+$ ]] \
  || die '--workers, --servers, --port and --restarts must be whole numbers'
log_dir=${log_dir:-${train_log_dir%/}-logs}
[[ -n $python ]] || python=$(scripts/setup_env.sh)

if [[ -n $inside ]]; then  # Brings loopback up: SIOCSIFFLAGS with IFF_UP.
  "$python" -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH22x", b"lo", 1))'
elif [[ " $* " != *' --listen_on_all_interfaces '* ]]; then
  namespace=(unshare --user --map-root-user --net)
  "${namespace[@]}" true 2>/dev/null \
    || die "this system forbids a network namespace (unshare --user --net); if\
 nobody else can reach the ports, give --listen_on_all_interfaces after --"
  exec "${namespace[@]}" bash $self --inside=1 "--python=$python" "${given[@]}"
fi

# Prints the addresses of $1 tasks from port $2.
addresses() { seq -s, -f 127.0.0.1:%g "$2" $(($2 + $1 - 1)); }
training=("$@" "--ps_hosts=$(addresses "$servers" "$port")"
  "--worker_hosts=$(addresses "$workers" $((port + servers)))")
tasks=()
for ((k = 0; k < servers; k++)); do tasks+=("ps$k"); done
for ((k = 0; k < workers; k++)); do tasks+=("worker$k"); done
[[ -z $evaluator ]] || tasks+=(evaluator0)
cores=$(nproc)
threads=$((cores > workers ? cores / workers : 1))
pids=() tries=() asked=() ending='' result=0

# Starts task $1, a number; its log begins with its command.
start() {
  local task=${tasks[$1]} device='' command=(env -u TF_CONFIG) log
  log=$log_dir/$task.txt
  if ((! ${#device_of[@]})); then
    command+=("OMP_NUM_THREADS=$threads" "TF_NUM_INTRAOP_THREADS=$threads")
  elif [[ $task == worker* ]]; then
    device=${device_of[${task#worker} % ${#device_of[@]}]}
  fi
  command+=("$python" code/cifar_train_mentormix.py "${training[@]}"
    "--job_name=${task%%[0-9]*}" "--task=${task##*[a-z]}" "--device_id=$device")
  printf '%q ' "${command[@]}" >>"$log" && echo >>"$log"
  if [[ $task == worker0 ]]; then
    "${command[@]}" > >(tee -a "$log") 2>&1 </dev/null &
  else
    "${command[@]}" >>"$log" 2>&1 </dev/null &
  fi
  pids[$1]=$!
}

# Handles the end of task $1: starts it again if it died.
ended() {
  local code=0 task=${tasks[$1]}
  wait "${pids[$1]}" 2>/dev/null || code=$?
  unset "pids[$1]"
  say "$task ended with exit code $code"
  ((code)) && [[ -z $ending ]] || return 0
  say "$task: $(tail -n 1 "$log_dir/$task.txt")"
  tries[$1]=$((${tries[$1]:-0} + 1))
  if ((code != 2 && tries[$1] <= restarts)); then
    say "starting $task again, ${tries[$1]} of $restarts times"
    start "$1"
  else
    say 'stopping the others; rerun the same command to resume'
    ending=1 result=$((code == 2 ? 2 : 1))
  fi
}

# Stops the workers; once they have ended, stops the rest. Each gets one signal,
# because a second one would kill the chief before it has saved.
stop_tasks() {
  local k now=()
  for k in "${!pids[@]}"; do [[ ${tasks[k]} != worker* ]] || now+=("$k"); done
  ((${#now[@]})) || now=("${!pids[@]}")
  for k in "${now[@]}"; do
    [[ -n ${asked[k]:-} ]] || kill "${pids[k]}" 2>/dev/null || true
    asked[k]=1
  done
}

# On signal $1, whose exit code is $2; a second one kills all tasks.
stop() {
  [[ -z $ending ]] || kill -KILL "${pids[@]}" 2>/dev/null || true
  [[ -n $ending ]] || say "stopped by $1; rerun the same command to resume"
  ending=1 result=$2
}

mkdir -p "$log_dir" 2>/dev/null || die "--log_dir=$log_dir cannot be written"
say "${#tasks[@]} tasks; a log for each in $log_dir; below, worker0"
trap '' HUP PIPE
trap 'stop INT 130' INT
trap 'stop TERM 143' TERM
for k in "${!tasks[@]}"; do start "$k"; done
while ((${#pids[@]})); do
  { sleep 1 & wait $! || true; } 2>/dev/null  # A signal ends the wait.
  for k in "${!pids[@]}"; do
    kill -0 "${pids[k]}" 2>/dev/null || ended "$k"
  done
  [[ -z $ending ]] || stop_tasks
done
exit "$result"
