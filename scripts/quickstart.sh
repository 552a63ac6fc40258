#!/usr/bin/env bash
# Trains on handwritten digits, 40% of whose labels are wrong, with and without
# MentorMix, in the active environment or in one that it makes from a Python.
#
# Usage: scripts/quickstart.sh [--seeds=0,1,...] [--runtime=auto|tf1|tf2]
#
#   --seeds    one pair of runs per seed; default 0. With several seeds, the
#              table ends with the mean margin.
#   --runtime  which TensorFlow; see scripts/setup_env.sh.
#
# Data go to data/digits; runs, and a report with pictures, to runs/quickstart.
# Existing data and finished runs are reused; interrupted runs resume.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "quickstart: error: $1" >&2; exit 2; }
seeds=0 runtime=auto
for arg; do
  case $arg in
    --seeds=*) seeds=${arg#*=} ;;
    --runtime=*) runtime=${arg#*=} ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/quickstart.sh; exit ;;
    *) die "unknown argument '$arg'; see --help" ;;
  esac
done
[[ $seeds =~ ^[0-9]+(,[0-9]+)*$ ]] \
  || die "--seeds=$seeds is not a list such as 0,1,2"

python=$(scripts/setup_env.sh --runtime="$runtime")
"$python" code/prepare_data.py --dataset_name=digits --noise_levels=0.4
# Both methods run at the same time, on one core each.
scripts/sweep.sh --run --python="$python" --datasets=digits \
  --noise_levels=0.4 --methods=cross_entropy,mentormix --seeds="$seeds" \
  --preset=fast --jobs=2 --eval_interval_secs=5 --runs_root=runs/quickstart \
  -- --studentnet=fast_thin --max_number_of_steps=400 \
  --save_interval_steps=50 --save_summaries_secs=1 &
trap 'kill $!; wait $!; exit 130' INT TERM
wait $!
"$python" code/report.py --runs=runs/quickstart \
  --output_dir=runs/quickstart/report --title='MentorMix: quick start'

echo
echo 'Accuracy on the clean test set after training on 40% wrong labels, %'
printf '%-6s %-14s %7s %7s\n' seed method last peak
for seed in ${seeds//,/ }; do
  for method in cross_entropy mentormix; do
    awk -F, -v seed="$seed" -v method="$method" \
      'NR > 1 { last = 100 * $2; if (last > peak) peak = last }
       END { printf "%-6s %-14s %7.2f %7.2f\n", seed, method, last, peak }' \
      "runs/quickstart/digits/0.4/$method/seed$seed/eval/results.csv"
  done
done | tee runs/quickstart/table.txt
awk '{ last[$1, $2] = $3; seeds[$1] }
     END { for (s in seeds) {
             margin = last[s, "mentormix"] - last[s, "cross_entropy"]
             n++; sum += margin; squares += margin * margin
             if (n == 1 || margin < least) least = margin }
           printf "MentorMix is ahead by %.2f points", sum / n
           if (n > 1)
             printf " (mean of %d seeds; standard deviation %.2f, least %.2f)",
               n, sqrt((squares - sum * sum / n) / (n - 1)), least
           print "" }' runs/quickstart/table.txt
