#!/usr/bin/env bash
# Trains on a Cloud TPU slice, one process on each of its hosts; they find each other through the slice's metadata.
#
#   export TPU=t5x-lite ZONE=us-west4-a PROJECT=my-project
#   experiments/launch/tpu_vm.sh create v5litepod-16 v2-alpha-tpuv5-lite     # accelerator type, runtime version
#   experiments/launch/tpu_vm.sh install                                     # copies this checkout to all hosts
#   experiments/launch/tpu_vm.sh train --gin_file=t5_1_1_base.gin --gin_file=data/c4.gin --gin_file=meshes/fsdp.gin \
#     --gin.MODEL_DIR=/mnt/shared/runs/t5
#   experiments/launch/tpu_vm.sh stop        # SIGTERM to every host: saves and ends
#   experiments/launch/tpu_vm.sh delete
#
# MODEL_DIR must be mounted on all hosts at the same path (Filestore, or a bucket through gcsfuse), before `train`.
set -eu
: "${TPU:?name of the slice}" "${ZONE:?zone}" "${PROJECT:?project}"
max_restarts=${MAX_RESTARTS:-20}
root=$(cd "$(dirname "$0")/../.." && pwd)
where=("--zone=$ZONE" "--project=$PROJECT")

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --worker=all --command="$1"
}

action=${1:?create, install, train, stop or delete}
shift
case $action in
  create)
    gcloud compute tpus tpu-vm create "$TPU" "${where[@]}" --accelerator-type="$1" --version="$2"
    ;;
  install)
    git -C "$root" archive --format=tar.gz --output=/tmp/t5x_lite.tar.gz HEAD
    gcloud compute tpus tpu-vm scp /tmp/t5x_lite.tar.gz "$TPU:" "${where[@]}" --worker=all
    # Images may have Python 3.10, which is too old: uv brings one of its own.
    on_all_hosts 'mkdir -p t5x_lite && tar -xzf t5x_lite.tar.gz -C t5x_lite && python3 -m pip install --quiet --user uv &&
      python3 -m uv venv --quiet --seed --python 3.12 venv && venv/bin/pip install --quiet "./t5x_lite[tpu]"'
    ;;
  train)
    command="venv/bin/python -m t5x_lite.train$(printf ' %q' "$@")"
    for ((restart = 0; restart <= max_restarts; restart++)); do
      code=0
      on_all_hosts "$command" || code=$?
      case $code in
        0 | 2 | 3 | 143) exit "$code" ;; # complete, bad input, diverged, stopped
      esac
      echo "exit code $code: starting again from the last checkpoint" >&2
      on_all_hosts 'pkill -KILL -f "[t]5x_lite.train" || true' # A process that hangs holds the chips.
    done
    exit "$code"
    ;;
  stop) on_all_hosts 'pkill -TERM -f "[t]5x_lite.train" || true' ;;
  delete) gcloud compute tpus tpu-vm delete "$TPU" "${where[@]}" --quiet ;;
  *)
    echo "unknown action $action: expected create, install, train, stop or delete" >&2
    exit 2
    ;;
esac
