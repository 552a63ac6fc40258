#!/usr/bin/env bash
# A cluster as one Slurm job: parameter servers, workers and an evaluator train
# one model. From the top of the repository:
#
#   sbatch --ntasks=8 --partition=gpu scripts/slurm.sh --preset=published \
#     --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train
#
# The training flags, those of code/cifar_train_mentormix.py, follow the file.
# All nodes need to see the repository, the data and --train_log_dir at the same
# paths. Change the lines below, or override them on sbatch's command line.
#
# Each task runs one worker; worker 0 writes the checkpoints. Servers and the
# evaluator run beside workers, without GPUs.
#SBATCH --job-name=mentormix
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=1-00:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time limit the chief saves. A preempted job is queued
# again and resumes. After the time limit, scancel or a failure (which ends all
# processes), submit the same command again to resume.
#SBATCH --signal=TERM@120
set -euo pipefail

servers=${servers:-1}  # Parameter servers: servers=2 sbatch ...
port=${port:-2222}  # The first of workers + servers ports.
training=("$@"
  # TensorFlow's server has no password, executes what it is sent and listens on
  # every interface: whoever reaches these ports can use your account. Ask the
  # administrator which ports of a compute node only your own processes can
  # reach, and set `port` to the first of those. If there are none, request
  # whole nodes (--exclusive) on a network that only users you trust can enter.
  --listen_on_all_interfaces)

cd "${SLURM_SUBMIT_DIR:-.}"
python=${python:-$(scripts/setup_env.sh)}
train_log_dir=''
for flag; do
  [[ $flag != --train_log_dir=* ]] || train_log_dir=${flag#*=}
done
log_dir=${train_log_dir:?give --train_log_dir}-logs  # A log for each process.
mkdir -p "$log_dir"

say() { printf 'mentormix: %s\n' "$*" >&2; }

# Starts process $2 of job $1 on GPU $3, '' for none.
start() {
  env -u TF_CONFIG "$python" code/cifar_train_mentormix.py "${training[@]}" \
    "--job_name=$1" "--task=$2" "--device_id=$3" \
    >>"$log_dir/$1$2.txt" 2>&1 </dev/null &
  names[$!]=$1$2
}

# Each task starts its worker, and beside it its share of the servers; the last
# task also starts the evaluator. So Slurm places equal tasks, in one step.
run_task() {
  local -A names=()
  local pid code k=$SLURM_PROCID stopped=''
  # Slurm may send TERM to every process, and more than once. The servers must
  # run until the chief has saved, and a second signal would kill the chief. So
  # all ignore TERM; workers and the evaluator get the first one as HUP.
  trap '' TERM
  for ((; k < servers; k += SLURM_NTASKS)); do start ps "$k" ''; done
  start worker "$SLURM_PROCID" "${CUDA_VISIBLE_DEVICES:-}"
  ((SLURM_PROCID < SLURM_NTASKS - 1)) || start evaluator 0 ''
  trap stop TERM
  while ((${#names[@]})); do
    { sleep 1 & wait $! || true; } 2>/dev/null
    for pid in "${!names[@]}"; do
      ! kill -0 "$pid" 2>/dev/null || continue
      code=0
      wait "$pid" 2>/dev/null || code=$?
      k=${names[$pid]}
      unset "names[$pid]"
      # A failure ends the job; after a signal, only that of the chief does.
      ((code)) && [[ -z $stopped || $k == worker0 ]] || continue
      say "$k ended with exit code $code: $(tail -n 1 "$log_dir/$k.txt")"
      exit "$code"
    done
  done
}

stop() {
  local pid
  trap '' TERM
  stopped=1
  for pid in "${!names[@]}"; do
    [[ ${names[$pid]} == ps* ]] || kill -HUP "$pid" 2>/dev/null || true
  done
}

# A first step asks each task for its node. Tasks may share a node, so each
# process has its own port.
step=(srun --distribution=block "--ntasks=$SLURM_NTASKS"
  ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"})
nodes=$("${step[@]}" --label printenv SLURMD_NODENAME | sort -n \
  | cut -d ' ' -f 2)
mapfile -t nodes <<<"$nodes"
ps_hosts='' worker_hosts=''
for ((k = 0; k < servers; k++)); do
  ps_hosts+=,${nodes[k % SLURM_NTASKS]}:$((port + k))
done
for k in "${!nodes[@]}"; do
  worker_hosts+=,${nodes[k]}:$((port + servers + k))
done
training+=("--ps_hosts=${ps_hosts#,}" "--worker_hosts=${worker_hosts#,}")
say "$SLURM_NTASKS workers, $servers servers; logs in $log_dir"
"${step[@]}" --kill-on-bad-exit=1 --wait=0 bash -c "set -euo pipefail
$(declare -p servers training log_dir python
declare -f say start run_task stop)
run_task"
