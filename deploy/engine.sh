# shellcheck shell=bash
# A Docker engine for image-check: the one that answers, else Debian's, started by hand in $work.
# Sets DOCKER_HOST, `docker` and `engine`; `stop_engine` ends what was started.
# shellcheck disable=SC2034,SC2154  # the names are image-check's

engine_pid=

use_engine() {
  if command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1; then
    engine="the engine of this machine"
    docker=docker
    return
  fi
  [ "$(id -u)" = 0 ] || cannot "no Docker engine answers, and only root can start one"
  install_engine
  start_engine
  engine="an engine of its own"
}

install_engine() {
  command -v dockerd >/dev/null && command -v mmdebstrap >/dev/null && return
  command -v apt-get >/dev/null || cannot "there is no dockerd here, and no apt-get to install it"
  say "Installing Debian's docker.io and mmdebstrap ..."
  { timeout 300 apt-get update &&
    DEBIAN_FRONTEND=noninteractive timeout 600 \
      apt-get install -y --no-install-recommends docker.io mmdebstrap; } >"$work/apt.log" 2>&1 ||
    { tail -5 "$work/apt.log" >&2; cannot "docker.io and mmdebstrap cannot be installed"; }
}

# No bridge of its own and no firewall rules: it leaves the host's network alone.
start_engine() {
  export DOCKER_HOST=unix://$work/docker.sock
  unset DOCKER_CONTEXT
  # Debian's client: another one on PATH may lack the builder.
  docker=/usr/bin/docker
  dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" \
    --pidfile "$work/docker.pid" --bridge=none --iptables=false --ip-masq=false \
    --ip-forward=false >"$work/dockerd.log" 2>&1 &
  engine_pid=$!
  for _ in $(seq 150); do
    timeout 5 "$docker" version >/dev/null 2>&1 && return
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.2
  done
  tail -3 "$work/dockerd.log" >&2
  cannot "Debian's dockerd does not start here"
}

stop_engine() {
  [ -n "$engine_pid" ] || return 0
  kill -TERM "$engine_pid" 2>/dev/null || true
  for _ in $(seq 150); do
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL "$engine_pid" 2>/dev/null || true
  wait "$engine_pid" 2>/dev/null || true
  # What the engine mounted, deepest first; paths in /proc/mounts are whole words.
  awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r |
    while read -r mounted; do umount "$mounted" 2>/dev/null || true; done
}
