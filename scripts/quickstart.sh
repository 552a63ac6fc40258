#!/usr/bin/env bash
# Plain training against MentorMix on handwritten digits, 40% of whose labels
# are wrong. Needs nothing but a Python; sets everything else up.
#
# Usage: scripts/quickstart.sh [--seeds=0,1,...] [--runtime=auto|tf1|tf2]
#
#   --seeds    one pair of runs for each; default 0. With several, the table
#              ends with the mean margin.
#   --runtime  which TensorFlow, see scripts/setup_env.sh.
#
# Data go to data/digits, runs to runs/quickstart; what is there already is not
# made again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds=0
runtime=auto
for arg; do
  case $arg in
    --seeds=*) seeds=${arg#*=} ;;
    --runtime=*) runtime=${arg#*=} ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/quickstart.sh; exit ;;
    *) echo "quickstart: error: unknown argument '$arg'; see --help" >&2
       exit 2 ;;
  esac
done
if ! [[ $seeds =~ ^[0-9]+(,[0-9]+)*$ ]]; then
  echo "quickstart: error: --seeds=$seeds is not a list such as 0,1,2" >&2
  exit 2
fi

python=$(scripts/setup_env.sh --runtime="$runtime")
steps=2000
level=0.4
mentor=mentornet_models/mentornet_pd
# Both methods at a time, a core each: faster than one after the other.
export OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1
children=()
logs=()
trap 'kill "${children[@]}" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

# Starts the training of a method and the evaluation of its checkpoints.
start() {
  local method=$1 run=$2; shift 2
  echo "$method, log in $run"
  mkdir -p "$run"
  "$python" code/cifar_train_mentormix.py --method="$method" \
    --dataset_name=digits --data_dir=data/digits/$level \
    --train_log_dir="$run/train" --studentnet=resnet14_thin \
    --trained_mentornet_dir=$mentor --max_number_of_steps=$steps \
    --batch_size=32 --num_epochs_per_decay=2 --burn_in_epoch=10 \
    --loss_p_percentile=0.6 --mixup_alpha=2 --nosecond_reweight \
    --save_interval_secs=20 --device_id= "$@" >>"$run/train.txt" 2>&1 &
  children+=($!) logs+=("$run/train.txt")
  "$python" code/cifar_eval.py --data_dir=data/digits/val \
    --checkpoint_dir="$run/train" --eval_dir="$run/eval" --batch_size=100 \
    --eval_interval_secs=10 --device_id= >>"$run/eval.txt" 2>&1 &
  children+=($!) logs+=("$run/eval.txt")
}

# Waits for all that was started; where one fails, shows its last line.
finish() {
  local i
  for i in 0 2 1 3; do  # The trainings first: evaluation waits for them.
    wait "${children[i]}" || { tail -n 1 "${logs[i]}" >&2; exit 1; }
  done
  children=() logs=()
}

# Prints the last and the peak accuracy of a results.csv, in percent.
last_and_peak() {
  awk -F, 'NR > 1 { last = 100 * $2; if (last > peak) peak = last }
           END { printf "%.2f %.2f", last, peak }' "$1"
}

"$python" code/prepare_data.py --dataset_name=digits --noise_levels=$level
table=
for seed in ${seeds//,/ }; do
  for method in cross_entropy mentormix; do
    start $method "runs/quickstart/seed$seed/$method" --seed="$seed"
  done
  finish
  for method in cross_entropy mentormix; do
    run=runs/quickstart/seed$seed/$method
    table+="$seed $method $(last_and_peak "$run/eval/results.csv")"$'\n'
  done
done

echo
echo 'Accuracy on the clean test set after training on 40% wrong labels, %'
awk 'NF { if (!header++) printf "%-6s %-14s %7s %7s\n", "seed", "method",
            "last", "peak"
          printf "%-6s %-14s %7.2f %7.2f\n", $1, $2, $3, $4
          last[$1, $2] = $3; seeds[$1] }
     END { for (s in seeds) {
             margin = last[s, "mentormix"] - last[s, "cross_entropy"]
             n++; sum += margin; squares += margin * margin
             if (n == 1 || margin < least) least = margin }
           printf "MentorMix is ahead by %.2f points", sum / n
           if (n > 1)
             printf " (mean of %d seeds; standard deviation %.2f, least %.2f)",
               n, sqrt((squares - sum * sum / n) / (n - 1)), least
           print "" }' <<<"$table"
