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
# Data go to data/digits; runs, and a report with pictures, to runs/quickstart.
# What is there already is not made again.
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
"$python" code/prepare_data.py --dataset_name=digits --noise_levels=0.4
# Both methods at a time, a core each: faster than one after the other.
scripts/sweep_cifar.sh --run --python="$python" --datasets=digits \
  --noise_levels=0.4 --methods=cross_entropy,mentormix --seeds="$seeds" \
  --preset=none --jobs=2 --eval_interval_secs=10 --runs_root=runs/quickstart \
  -- --studentnet=resnet14_thin --max_number_of_steps=2000 --batch_size=32 \
  --num_epochs_per_decay=2 --mixup_alpha=2 --nosecond_reweight \
  --trained_mentornet_dir=mentornet_models/mentornet_pd --burn_in_epoch=10 \
  --loss_p_percentile=0.6 --save_interval_secs=20 --save_summaries_secs=1 &
trap 'kill $!; wait $!; exit 130' INT TERM
wait $!
"$python" code/report.py --runs=runs/quickstart \
  --output_dir=runs/quickstart/report --title='MentorMix: quick start'

# Prints the last and the peak accuracy of a results.csv, in percent.
last_and_peak() {
  awk -F, 'NR > 1 { last = 100 * $2; if (last > peak) peak = last }
           END { printf "%.2f %.2f", last, peak }' "$1"
}

table=
for seed in ${seeds//,/ }; do
  for method in cross_entropy mentormix; do
    run=runs/quickstart/digits/0.4/$method/seed$seed
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
