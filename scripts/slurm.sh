#!/usr/bin/env bash
# A cluster as one Slurm job: parameter servers, workers and an evaluator train
# one model.
#
# Usage: scripts/slurm.sh [settings] [--submit] -- training flags
#
# By default it prints a batch script and submits nothing; --submit gives it to
# sbatch. What it has no setting for, sbatch takes by itself:
#   scripts/slurm.sh ... -- ... | sbatch --account=ME --mem-per-cpu=4G
#
#   --workers=4             tasks of the job; worker 0 writes the checkpoints
#   --servers=1             parameter servers; they and the evaluator run beside
#                           workers, without a GPU
#   --gpus_per_worker=1     or 0
#   --cpus_per_task=        of a worker and what runs beside it
#   --time=1-00:00:00       limit of the job
#   --partition=
#   --port=2222             the first of workers + servers ports; runs that may
#                           share a node need other ones
#   --job_name=mentormix
#   --no_evaluator          no process that evaluates the checkpoints
#   --log_dir=DIR           a log for each process; default: TRAIN_LOG_DIR-logs
#   --python=PATH           default: that of scripts/setup_env.sh here
#
# The training flags are those of code/cifar_train_mentormix.py; paths are
# relative to the top of the repository. All nodes need to see it, the data, the
# Python and --train_log_dir at the same paths. Servers and workers listen at
# the address of their node's name; where others cannot reach that (127.0.1.1),
# add --bind_address=0.0.0.0 after --.
#
# A preempted job is queued again and goes on. After its time limit, scancel or
# a failure, which ends all processes, the same command goes on.
#
#   scripts/slurm.sh --workers=8 --partition=gpu --submit -- \
#     --preset=published --data_dir=data/cifar10/0.4 \
#     --train_log_dir=runs/cifar10_0.4/train
#
# Exit codes: 0 printed or submitted; 2 bad input; else sbatch's.
. "$(dirname "${BASH_SOURCE[0]}")/launcher.sh"

workers=4 servers=1 gpus_per_worker=1 cpus_per_task= port=2222 evaluator=1
time=1-00:00:00 partition= job_name=mentormix log_dir= python=

check() {
  check_number workers 1 1000
  check_number servers 1 1000
  check_number gpus_per_worker 0 1  # Training takes one.
  [[ -z $cpus_per_task ]] || check_number cpus_per_task 1 1024
  check_number port 1 $((65536 - servers - workers))
  [[ $time =~ ^[0-9]+(-[0-9]+)?(:[0-9]+){0,2}$ ]] \
    || die "--time=$time is not a time such as 12:00:00 or 1-00:00:00"
  [[ $partition =~ ^([A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*)?$ ]] \
    || die "--partition=$partition is not a name"
  [[ $job_name =~ ^[A-Za-z0-9_.-]+$ ]] \
    || die "--job_name=$job_name is not a name"
  check_training ps_hosts worker_hosts job_name task device_id
  log_dir=${log_dir:-${train_log_dir%/}-logs}
}

# Prints the batch script: what sbatch reads, the settings, and what it does.
batch_script() {
  printf '#!/usr/bin/env bash\n'
  printf '#SBATCH --%s\n' "job-name=$job_name" "time=$time" \
    "ntasks=$workers" ${cpus_per_task:+"cpus-per-task=$cpus_per_task"} \
    ${partition:+"partition=$partition"} requeue open-mode=append \
    signal=TERM@120  # Time to save before the limit.
  ((! gpus_per_worker)) \
    || printf '#SBATCH --gpus-per-task=%s\n' "$gpus_per_worker"
  printf 'set -euo pipefail\ncd %q\n' "$PWD"
  printf '%s=%q\n' workers "$workers" servers "$servers" port "$port" \
    gpus_per_worker "$gpus_per_worker" cpus_per_task "$cpus_per_task" \
    evaluator "$evaluator" log_dir "$log_dir"
  printf 'command=(%s)\n' "$(printf ' %q' env -u TF_CONFIG "$python" \
    code/cifar_train_mentormix.py "${training[@]}")"
  cat <<'REST'

say() { printf 'mentormix: %s\n' "$*" >&2; }

# Sets hosts: the node of each task. Slurm says for a step how many tasks each
# of its nodes has, as in 2(x3),1; --distribution=block numbers them in order.
find_hosts() {
  local nodes group count times k node=0
  hosts=()
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_STEP_NODELIST")
  for group in ${SLURM_STEP_TASKS_PER_NODE//,/ }; do
    count=${group%%(*} times=1
    [[ $group != *x* ]] || { times=${group#*x}; times=${times%)}; }
    for ((; times > 0; times--, node++)); do
      for ((k = 0; k < count; k++)); do hosts+=("${nodes[node]:-}"); done
    done
  done
  ((${#hosts[@]} == workers)) \
    && [[ ${hosts[SLURM_PROCID]} == "$SLURMD_NODENAME" ]] || {
    say "error: task $SLURM_PROCID is on $SLURMD_NODENAME; the $workers tasks\
 are not where Slurm says: $SLURM_STEP_TASKS_PER_NODE on $SLURM_STEP_NODELIST"
    exit 1
  }
}

# Starts process $2 of job $1 with GPUs $3.
start() {
  "${command[@]}" "--job_name=$1" "--task=$2" "--device_id=$3" \
    >>"$log_dir/$1$2.txt" 2>&1 </dev/null &
  pids[$1$2]=$!
}

# What each task of the job does: it starts a worker, beside it its share of the
# servers, and the last task the evaluator. So Slurm has tasks of one kind to
# place, in one step. Several steps on a node may wait for each other's memory
# for ever, and a step cannot have tasks with and without a GPU.
run_task() {
  local k name code ps_hosts= worker_hosts= stopped= device=
  local -A pids=()
  find_hosts
  # A port for each process, since tasks may share a node.
  for ((k = 0; k < servers; k++)); do
    ps_hosts+=,${hosts[k % workers]}:$((port + k))
  done
  for ((k = 0; k < workers; k++)); do
    worker_hosts+=,${hosts[k]}:$((port + servers + k))
  done
  command+=("--ps_hosts=${ps_hosts#,}" "--worker_hosts=${worker_hosts#,}")
  if ((gpus_per_worker)); then
    device=${CUDA_VISIBLE_DEVICES:-}
    [[ -n $device && $device != *,* ]] || {
      say "error: task $SLURM_PROCID was given the GPUs '$device', not one; it\
 needs Slurm 20.11 or later, which binds GPUs to tasks"
      exit 1
    }
  fi
  # Slurm may send TERM to all processes, and more than once. The servers are to
  # stay until the chief has saved, and a second one would end the chief at
  # once: so all ignore it, and the first is passed on as HUP where it belongs.
  trap '' TERM
  for ((k = SLURM_PROCID; k < servers; k += workers)); do start ps "$k" ''; done
  start worker "$SLURM_PROCID" "$device"
  [[ -z $evaluator ]] || ((SLURM_PROCID < workers - 1)) || start evaluator 0 ''
  trap 'stop_task' TERM
  while ((${#pids[@]})); do
    for name in "${!pids[@]}"; do
      ! kill -0 "${pids[$name]}" 2>/dev/null || continue
      code=0
      wait "${pids[$name]}" 2>/dev/null || code=$?
      unset "pids[$name]"
      # An exit code ends the whole step; when stopped, only the chief's may.
      ((code)) && [[ -z $stopped || $name == worker0 ]] || continue
      say "$name ended with exit code $code: $(tail -n 1 "$log_dir/$name.txt")"
      exit "$code"
    done
    { sleep 1 & wait $! || true; } 2>/dev/null
  done
}

# Ends the worker, after a checkpoint if it is the chief, and the evaluator.
stop_task() {
  local name
  trap '' TERM
  stopped=1
  for name in "${!pids[@]}"; do
    [[ $name == ps* ]] || kill -HUP "${pids[$name]}" 2>/dev/null || true
  done
}

mkdir -p "$log_dir"
say "$workers workers, $servers servers; logs in $log_dir"
# Newer versions of srun do not take --cpus-per-task from the job.
srun --kill-on-bad-exit=1 --wait=0 --distribution=block --ntasks="$workers" \
  ${cpus_per_task:+"--cpus-per-task=$cpus_per_task"} bash -c "set -euo pipefail
$(declare -p workers servers port gpus_per_worker evaluator log_dir command
  declare -f say find_hosts start run_task stop_task)
run_task"
REST
}

parse "workers servers gpus_per_worker cpus_per_task time partition port job_name\
 log_dir python" submit "$@"
check
say "TensorFlow's ports have no authentication: who reaches one, on the network\
 of the cluster, owns the account. Have them open to its own users only"
if [[ -z $python && $action == submit ]]; then
  python=$(scripts/setup_env.sh)
elif [[ -z $python ]]; then
  python=$(scripts/setup_env.sh --dry_run 2>/dev/null)
fi
if [[ $action == print ]]; then
  batch_script
  exit
fi
command -v sbatch >/dev/null || die '--submit: there is no sbatch here'
command -v "$python" >/dev/null || die "--python=$python is not there"
batch_script | sbatch
