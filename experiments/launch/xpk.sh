#!/usr/bin/env bash
# Trains on a GKE cluster with TPUs through xpk (pip install xpk), which writes the JobSet itself.
#
#   xpk cluster create --cluster=t5x-lite --tpu-type=v5litepod-16 --num-slices=1 --zone=us-west4-a --project=my-project
#   docker build -f experiments/launch/Dockerfile --build-arg EXTRA=tpu -t gcr.io/my-project/t5x_lite .
#   docker push gcr.io/my-project/t5x_lite
#   CLUSTER=t5x-lite TPU_TYPE=v5litepod-16 ZONE=us-west4-a PROJECT=my-project IMAGE=gcr.io/my-project/t5x_lite \
#     experiments/launch/xpk.sh t5-base --gin_file=t5_1_1_base.gin --gin_file=data/c4.gin --gin.MODEL_DIR=/mnt/runs/t5
#
# The first argument names the workload. SLICES=2 and more: several slices, of which the data axis goes over DCN. XPK_FLAGS
# is passed on, such as --storage=NAME (what MODEL_DIR is mounted from) or --dry-run.
set -eu
: "${CLUSTER:?}" "${TPU_TYPE:?}" "${ZONE:?}" "${PROJECT:?}" "${IMAGE:?}"
workload=${1:?name of the workload}
shift
read -r -a extra <<<"${XPK_FLAGS:-}"
xpk workload create --workload="$workload" --cluster="$CLUSTER" --zone="$ZONE" --project="$PROJECT" \
  --tpu-type="$TPU_TYPE" --num-slices="${SLICES:-1}" --docker-image="$IMAGE" --max-restarts="${MAX_RESTARTS:-20}" \
  --command="python -m t5x_lite.train$(printf ' %q' "$@")" "${extra[@]}"
