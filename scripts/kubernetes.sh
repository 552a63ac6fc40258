#!/usr/bin/env bash
# A cluster of Kubernetes pods: parameter servers, workers and an evaluator
# train one model. Plain Jobs, no operator; any image with Python and bash.
#
# Usage: scripts/kubernetes.sh --image=IMAGE --volume_claim=NAME [settings]
#          [--apply] -- training flags
#
# By default it prints the manifests; --apply gives them to kubectl apply.
#
#   --image=IMAGE           such as python:3.11-slim
#   --volume_claim=NAME     a PersistentVolumeClaim that all pods can write
#                           (ReadWriteMany) with a clone of this repository at
#                           its top, and the data
#   --name=mentormix        of the run; up to 40 of a-z, 0-9 and -
#   --namespace=            default: that of kubectl
#   --workers=2             worker 0 writes the checkpoints
#   --servers=1             parameter servers, without a GPU
#   --gpus_per_worker=0     or 1: nvidia.com/gpu of each worker
#   --port=2222             of every server and worker, in its own pod
#   --mount=/mentormix      where pods see the volume, and work
#   --no_evaluator          no pod that evaluates the checkpoints
#   --python=PATH           in the image, with all that is needed; by default
#                           each pod sets up an environment of its own
#
# The training flags are those of code/cifar_train_mentormix.py; paths are
# relative to the top of the volume. A pod that fails or is evicted is replaced,
# and training goes on; bad input (exit code 2) ends its Job. Follow the workers
# by the first of these; the second ends the run, and the same command goes on:
#   kubectl logs -f --prefix -l job-name=NAME-worker
#   kubectl delete job,service,networkpolicy -l app.kubernetes.io/instance=NAME
#
# Exit codes: 0 printed or applied; 2 bad input; else kubectl's.
. "$(dirname "${BASH_SOURCE[0]}")/launcher.sh"

image= volume_claim= name=mentormix namespace= python=
workers=2 servers=1 gpus_per_worker=0 port=2222 mount=/mentormix evaluator=1

# Dies unless flag $1 matches $2; $3 says what it is not.
check_text() { [[ ${!1} =~ ^($2)$ ]] || die "--$1=${!1} is not $3"; }

check() {
  local LC_ALL=C label='[a-z]([-a-z0-9]*[a-z0-9])?' flag
  check_text image '[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?' 'an image'
  check_text volume_claim '[a-z0-9]([-.a-z0-9]*[a-z0-9])?' 'the name of a claim'
  check_text name "$label" 'a name of a-z, 0-9 and -'
  ((${#name} <= 40)) || die "--name=$name has more than 40 characters"
  check_text namespace "($label)?" 'a namespace'
  check_text mount '(/[A-Za-z0-9_.-]+)+' 'a path such as /mentormix'
  check_text python '[[:print:]]*' 'printable ASCII'
  check_number workers 1 1000
  check_number servers 1 1000
  check_number gpus_per_worker 0 1  # Training takes one.
  check_number port 1 65535
  for flag in ${training[@]+"${training[@]}"}; do
    [[ $flag =~ ^[[:print:]]*$ ]] || die "$flag is not printable ASCII"
  done
  check_training ps_hosts worker_hosts job_name task device_id bind_address
  [[ $train_log_dir != /* || $train_log_dir == "$mount"/* ]] \
    || die "--train_log_dir=$train_log_dir is not under --mount=$mount, the\
 volume"
}

# Prints $1 as a string of YAML that Kubernetes does not expand, either: it
# replaces $(NAME) in a command, and $$ stands for $.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//\$/\$\$}"
}

# Prints the hosts of the $2 tasks of job $1: the pods' names by the Service.
hosts() {
  local k list=
  for ((k = 0; k < $2; k++)); do list+=,$name-$1-$k.$name:$port; done
  printf '%s' "${list#,}"
}

# Prints the metadata of object $1.
metadata() {
  printf 'metadata:\n  name: "%s"\n' "$1"
  [[ -z $namespace ]] || printf '  namespace: "%s"\n' "$namespace"
  printf '  labels: %s\n' "$labels"
}

# Prints what lets the pods find each other, and keeps all others out. Their
# names have to resolve before they are ready, since they wait for each other.
network() {
  printf '%s\n' 'apiVersion: networking.k8s.io/v1' 'kind: NetworkPolicy'
  metadata "$name"
  cat <<END
spec:
  podSelector: {matchLabels: $labels}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: $labels}
    ports: [{protocol: TCP, port: $port}]
---
apiVersion: v1
kind: Service
END
  metadata "$name"
  cat <<END
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: $labels
  ports: [{name: tensorflow, port: $port}]
END
}

# Prints the Job of the $2 tasks of job $1, with a GPU each if $3 is 1.
job() {
  local flag device=
  printf '%s\n' --- 'apiVersion: batch/v1' 'kind: Job'
  metadata "$name-$1"
  # A pod that fails is replaced (Never), not started again (OnFailure): only so
  # can exit codes be told apart. The new one has the same name and index.
  cat <<END
spec:
  completionMode: Indexed
  completions: $2
  parallelism: $2
  backoffLimit: $((6 * $2))
  podFailurePolicy:
    rules:
    - action: FailJob  # Bad input stays bad.
      onExitCodes: {containerName: mentormix, operator: In, values: [2]}
    - action: Ignore  # Preempted or drained: that is no failure.
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
  template:
    metadata:
      labels: $labels
    spec:
      restartPolicy: Never
      subdomain: "$name"
      automountServiceAccountToken: false  # Not for what comes in by the port.
      enableServiceLinks: false
      terminationGracePeriodSeconds: 120  # For the chief to save.
      volumes:
      - name: mentormix
        persistentVolumeClaim: {claimName: "$volume_claim"}
      containers:
      - name: mentormix
        image: "$image"
        workingDir: "$mount"
        volumeMounts: [{name: mentormix, mountPath: "$mount"}]
        securityContext: {allowPrivilegeEscalation: false}
        ports: [{containerPort: $port}]
        env:
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
END
  if (($3)); then
    device=0
    printf '        resources: {limits: {nvidia.com/gpu: 1}}\n'
  fi
  cat <<'END'
        command:
        - bash
        - -euc
        - |
          job=$1 python=$2
          shift 2
          if [[ $job == ps ]]; then
            trap '' TERM  # The chief saves what the servers have.
          fi
          if [[ -z $python ]]; then
            python=$$(bash scripts/setup_env.sh --venv=/tmp/mentormix)
          fi
          exec "$python" code/cifar_train_mentormix.py "$@" \
            --job_name="$job" --task="$JOB_COMPLETION_INDEX" \
            --bind_address="$POD_IP"
END
  for flag in mentormix "$1" "$python" "${training[@]}" \
      "--ps_hosts=$(hosts ps "$servers")" \
      "--worker_hosts=$(hosts worker "$workers")" "--device_id=$device"; do
    printf '        - %s\n' "$(quoted "$flag")"
  done
}

manifests() {
  network
  job ps "$servers" 0
  job worker "$workers" "$gpus_per_worker"
  [[ -z $evaluator ]] || job evaluator 1 0
}

parse "image volume_claim name namespace workers servers gpus_per_worker port\
 mount python" apply "$@"
check
labels="{app.kubernetes.io/name: mentormix,\
 app.kubernetes.io/instance: \"$name\"}"
say "TensorFlow's port has no authentication: who reaches it owns the pods and\
 the volume. The NetworkPolicy lets only pods of this run in, where the\
 cluster's network enforces such"
if [[ $action == print ]]; then
  manifests
  exit
fi
command -v kubectl >/dev/null || die '--apply: there is no kubectl here'
manifests | kubectl apply -f -
