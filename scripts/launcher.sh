# What the launchers of a cluster share; sourced by them at their start.
set -euo pipefail
launcher=$(basename "$0" .sh)
action=print training=() train_log_dir=
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Prints one line for people, if they still look.
say() { printf '%s: %s\n' "$launcher" "$*" >&2 || true; }

# Ends with one line about bad input.
die() { say "error: $1"; exit 2; }

# Reads the command line "${@:3}": $1 are the names of the settings, which become
# variables; --$2 sets the action; what follows -- goes to training.
parse() {
  local settings=" $1 " act=$2 setting
  shift 2
  while (($#)); do
    setting=${1#--}
    setting=${setting%%=*}
    case $1 in
      --no_evaluator) evaluator= ;;
      "--$act") action=$act ;;
      --) shift; training=("$@"); return ;;
      -h|--help) sed -n '2,/^\. /s/^# \{0,1\}//p' "scripts/$launcher.sh"; exit ;;
      --*=*) [[ $setting != *' '* && $settings == *" $setting "* ]] \
               || unknown "$1"
             printf -v "$setting" '%s' "${1#*=}" ;;
      *) unknown "$1" ;;
    esac
    shift
  done
}

unknown() {
  die "unknown argument '$1'; see --help (training flags go after --)"
}

# Dies unless setting $1 is a whole number from $2 to $3.
check_number() {
  [[ ${!1} =~ ^(0|[1-9][0-9]{0,4})$ ]] && ((${!1} >= $2 && ${!1} <= $3)) \
    || die "--$1=${!1} is not a number from $2 to $3"
}

# Dies unless the training flags are such, and none of "$@", which the launcher
# sets itself; sets train_log_dir.
check_training() {
  local flag own
  own="^--?($(IFS='|'; printf '%s' "$*"))(=|\$)"
  for flag in ${training[@]+"${training[@]}"}; do
    [[ $flag == --* ]] || die "unexpected '$flag' after --; write --flag=value"
    [[ ! $flag =~ $own ]] || die "$flag after --: the launcher sets that itself"
    [[ $flag != --train_log_dir=* ]] || train_log_dir=${flag#*=}
  done
  [[ $train_log_dir == *[!/]* ]] \
    || die '--train_log_dir=DIR must be given, after --'
}
