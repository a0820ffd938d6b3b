#!/usr/bin/env bash
# Trains with Open MPI: PROCESSES processes on the hosts of HOSTS, restarted when one is lost.
#
#   PROCESSES=2 experiments/launch/openmpi.sh --gin_file=t5_tiny.gin --gin.MODEL_DIR=runs/mpi             # this machine
#   PROCESSES=16 HOSTS=a:8,b:8 experiments/launch/openmpi.sh --gin_file=t5_1_1_base.gin ...               # two hosts
#
# Run it on the host of process 0, the first of HOSTS. Open MPI only starts the processes; JAX talks on its own port.
# Open MPI 5 does not tell the processes where process 0 is: set COORDINATOR=HOST:PORT there. MPIRUN_FLAGS is passed on,
# such as --allow-run-as-root, or --bind-to none where the processes share cores.
set -u
processes=${PROCESSES:-2}
max_restarts=${MAX_RESTARTS:-20}
read -r -a extra <<<"${MPIRUN_FLAGS:-}"
[ -n "${HOSTS:-}" ] && extra+=(--host "$HOSTS")
[ -n "${COORDINATOR:-}" ] && extra+=(-x "JAX_COORDINATOR_ADDRESS=$COORDINATOR")
[ -n "${T5X_LITE_CACHE:-}" ] && extra+=(-x T5X_LITE_CACHE)

stopped=''
trap 'stopped=1; kill -TERM "$mpirun" 2>/dev/null' TERM INT
for ((restart = 0; restart <= max_restarts; restart++)); do
  mpirun -n "$processes" "${extra[@]}" python -m t5x_lite.train "$@" &
  mpirun=$!
  wait "$mpirun"
  code=$?
  while kill -0 "$mpirun" 2>/dev/null; do # A signal ends the first `wait`, not mpirun.
    wait "$mpirun"
    code=$?
  done
  case $code in
    0 | 2 | 3) exit $code ;; # complete, bad input, diverged
  esac
  [ -n "$stopped" ] && exit "$code"
  echo "exit code $code: starting again from the last checkpoint" >&2
done
exit "$code"
