#!/usr/bin/env bash
# Lists the suspicious labels of a folder of images: trains a small network on
# them and ranks the labels by how little it believes them. Makes a page with
# pictures of the most suspicious, each with the given and a proposed class.
#
# Usage: scripts/find_wrong_labels.sh DIR [settings] [-- training flags]
#
#   DIR                   has a folder for each class, with its images; if it
#                         holds a folder train, that one has them
#   --output_dir=DIR      default: runs/wrong_labels/<name of DIR>
#   --image_size=32       height and width that images are resized to for the
#                         network, a multiple of 4
#   --num_images=500      how many images the page shows, up to 1000
#   --max_bad_records=0   how many files to leave out that are not images
#   --python=PATH         default: what scripts/setup_env.sh takes
#
# The list is scores/scores.csv in the output directory, the page
# scores/suspicious.html. It works without clean labels and without a GPU.
# Whatever stops it, the same command goes on. Training is short, six epochs or
# 400 steps, so that the network does not learn the wrong labels by heart. Flags
# after -- go to it, such as -- --precision=mixed.
set -euo pipefail
die() { echo "find_wrong_labels: error: $1" >&2; exit 2; }
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

images='' output_dir='' image_size=32 num_images=500 max_bad_records=0 python=''
training=()
while (($#)); do
  case $1 in
    --output_dir=*|--image_size=*|--num_images=*|--max_bad_records=*|\
    --python=*) name=${1%%=*}; printf -v "${name#--}" %s "${1#*=}" ;;
    --) shift; training=("$@"); break ;;
    -h|--help)
      sed -n '2,/^set/s/^# \{0,1\}//p' scripts/find_wrong_labels.sh; exit ;;
    -*) die "unknown argument '$1'; see --help (training flags go after --)" ;;
    *) [[ -z $images ]] || die "two directories: '$images' and '$1'"
       images=$1 ;;
  esac
  shift
done
[[ -n $images ]] || die 'which directory has the images? See --help'
absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
asked=$images images=$(absolute "$images")
[[ -d $images ]] || die "$asked is not a directory"
images=$(cd "$images" && pwd)
name=$(basename "$images" | tr -c 'A-Za-z0-9_\n-' _)
[[ ! -d $images/train ]] || images=$images/train
for flag in image_size num_images max_bad_records; do
  [[ ${!flag} =~ ^[0-9]+$ ]] || die "--$flag=${!flag} is not a number"
done
for flag in ${training[@]+"${training[@]}"}; do
  [[ ! $flag =~ ^--?(data_dir|train_log_dir)(=|$) ]] \
    || die "$flag after --: the script sets that itself"
done
output_dir=$(absolute "${output_dir:-$PWD/runs/wrong_labels/$name}")
[[ -n $python ]] || python=$(scripts/setup_env.sh)
command -v "$python" >/dev/null || die "--python=$python does not exist"

"$python" code/prepare_data.py --dataset_name="images_$name" \
  --image_dir="$images" --image_size="$image_size" \
  --max_bad_records="$max_bad_records" --output_dir="$output_dir/data"
count=$("$python" -c \
  'import json, sys; print(json.load(open(sys.argv[1]))["num_examples"])' \
  "$output_dir/data/0/noise.json")
steps=$((6 * count / 500))
"$python" code/cifar_train_mentormix.py --preset=fast --studentnet=fast_thin \
  --method=cross_entropy --data_dir="$output_dir/data/0" \
  --train_log_dir="$output_dir/train" \
  --max_number_of_steps=$((steps > 400 ? steps : 400)) \
  ${training[@]+"${training[@]}"}
"$python" code/score_labels.py --data_dir="$output_dir/data/0" \
  --checkpoint_dir="$output_dir/train" --output_dir="$output_dir/scores" \
  --image_dir="$images" --num_images="$num_images" --statistics=recomputed
echo "The most suspicious labels: $output_dir/scores/suspicious.html"
