#!/usr/bin/env bash
# Makes a data-driven MentorNet. It replaces some labels of a few trusted images
# by wrong ones, trains a student on them, and trains the MentorNet to tell from
# the losses which labels are right.
#
# Usage: scripts/mentornet_dd.sh [settings] [-- training flags]
#
#   --dataset=digits      or cifar10, cifar100
#   --skip_train=N        the images after the first N are the trusted ones; by
#                         default a tenth of CIFAR, half of digits
#   --noise_level=0.4     share of the trusted images that get a wrong label
#   --archive=FILE        archive of CIFAR; default: downloaded
#   --output_dir=runs/mentornet_dd/DATASET/mentornet_dd   the MentorNet
#   --overwrite           replace an existing MentorNet
#   --python=PATH         default: what scripts/setup_env.sh takes
#
# MentorMix trains the student with mentornet_pd and --preset=cpu; flags after --
# change that, such as -- --preset=published. Data, run and losses go to
# runs/mentornet_dd/DATASET and are reused.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dataset=digits skip_train='' noise_level=0.4 archive='' output_dir='' python=''
overwrite='' training=()
die() { echo "mentornet_dd: error: $1" >&2; exit 2; }

while (($#)); do
  case $1 in
    --dataset=*|--skip_train=*|--noise_level=*|--archive=*|--output_dir=*|\
    --python=*) name=${1%%=*}; printf -v "${name#--}" %s "${1#*=}" ;;
    --overwrite) overwrite=1 ;;
    --) shift; training=("$@"); break ;;
    -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/mentornet_dd.sh; exit ;;
    *) die "unknown argument '$1'; see --help (training flags go after --)" ;;
  esac
  shift
done
case $dataset in
  digits) skip_train=${skip_train:-697} ;;
  cifar10|cifar100) skip_train=${skip_train:-45000} ;;
  *) die "--dataset=$dataset is not digits, cifar10 or cifar100" ;;
esac
[[ $noise_level =~ ^0\.[0-9]*[1-9]$ ]] \
  || die "--noise_level=$noise_level is not a number such as 0.4 or 0.45"
for flag in ${training[@]+"${training[@]}"}; do
  [[ ! $flag =~ ^--?(data_dir|train_log_dir|loss_csv_file)(=|$) ]] \
    || die "$flag after --: the script sets that itself"
done
[[ $dataset != digits ]] || training=(--batch_size=32 --max_number_of_steps=2000
  --num_epochs_per_decay=4 ${training[@]+"${training[@]}"})
work=runs/mentornet_dd/$dataset
output_dir=${output_dir:-$work/mentornet_dd}
[[ ! -e $output_dir || -n $overwrite ]] \
  || die "--output_dir=$output_dir exists; add --overwrite to replace it"
[[ -n $python ]] || python=$(scripts/setup_env.sh)
command -v "$python" >/dev/null || die "--python=$python does not exist"

"$python" code/prepare_data.py --dataset_name="$dataset" \
  --noise_levels="$noise_level" --skip_train="$skip_train" \
  --output_dir="$work/data" ${archive:+"--archive=$archive"}
"$python" code/cifar_train_mentormix.py --preset=cpu \
  --data_dir="$work/data/$noise_level" --train_log_dir="$work/train" \
  --loss_csv_file="$work/mentornet_dd.csv" ${training[@]+"${training[@]}"}
"$python" code/train_mentornet.py --curriculum="$work/mentornet_dd.csv" \
  --output_dir="$output_dir" ${overwrite:+--overwrite}
