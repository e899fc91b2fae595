#!/usr/bin/env bash
# Redis 7 on free loopback ports, from Debian's package: one server, a primary with sentinels, or a cluster. What a server answered survives its
# death: it keeps an append-only file and syncs it.
#
#   redis.sh install      installs redis-server if it is absent, without a service that runs by itself
#   redis.sh start DIR    starts one that keeps everything in DIR; once it answers, prints a line to eval: REDIS_URL=redis://127.0.0.1:PORT
#                         In a DIR that was started before, starts it again on the same port if it does not run.
#   redis.sh sentinel DIR the same with a primary, two replicas and three sentinels, in DIR/server-N and DIR/sentinel-N; the URL names the sentinels
#   redis.sh cluster [--replicas N] DIR
#                         the same with a cluster of three primaries and N replicas of each (1), in DIR/node-N; the URL names its nodes
#   redis.sh stop DIR     stops whatever was started in DIR; what it stored stays there
#
# A start that fails stops whatever runs in DIR. With --while PID before DIR, what is started is killed once the process PID is gone. DIR/pid is a server's process, DIR/log what it says, DIR/port its port.
set -euo pipefail

main() {
  case ${1-} in
    install) [ $# = 1 ] || usage; install ;;
    start | sentinel | cluster) begin "$@" ;;
    stop) [ $# = 2 ] || usage; stop_all "$2" ;;
    *) usage ;;
  esac
}

usage() {
  sed -n '5,14s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

begin() {
  local form=$1 while_pid= replicas=1
  shift
  while [ $# -gt 1 ]; do
    case $form$1 in
      *--while) while_pid=$2; shift 2 ;;
      cluster--replicas) replicas=$2; shift 2 ;;
      *) usage ;;
    esac
  done
  [ $# = 1 ] && [ "${1#-}" = "$1" ] || usage
  install
  # Before there is anything to stop: this script may end in the middle, with whoever called it.
  [ -z "$while_pid" ] || { mkdir -p "$1" && stop_with "$while_pid" "$1"; }
  # Nobody may know of what a failed start began, and whoever called it may take the directory away, with which pid files go.
  begun=$1
  trap '[ $? = 0 ] || stop_all "$begun"' EXIT
  "$form" "$1" "$replicas"
}

install() {
  command -v redis-server >/dev/null && return
  # The package starts a service on port 6379 unless a policy says that nothing may be started.
  local policy=/usr/sbin/policy-rc.d made=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=yes; }
  { apt-get install -y --no-install-recommends redis-server || { apt-get update && apt-get install -y --no-install-recommends redis-server; }; } >&2 || {
    [ -z "$made" ] || rm -f "$policy"
    echo "redis.sh: redis-server cannot be installed; install Redis 7 by hand" >&2
    exit 1
  }
  [ -z "$made" ] || rm -f "$policy"
}

start() {
  serve "$1"
  echo "REDIS_URL=redis://127.0.0.1:$(cat "$1/port")"
}

# Two replicas, so that one is left to be waited for (?replicas=1) after a failover.
sentinel() {
  local dir number replica=() urls=()
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  for number in 1 2 3; do
    # Who was started before knows from its own file, which a failover rewrites, whom it follows.
    [ -e "$dir/server-$number/conf" ] || { mkdir -p "$dir/server-$number" && printf '%s' "${replica[*]}" >"$dir/server-$number/conf"; }
    serve "$dir/server-$number"
    [ "$number" != 1 ] || replica=(replicaof 127.0.0.1 "$(cat "$dir/server-1/port")")
  done
  until_true "the replicas do not follow" followed_by_two "$(cat "$dir/server-1/port")"
  for number in 1 2 3; do
    local own=$dir/sentinel-$number
    mkdir -p "$own"
    [ -e "$own/port" ] || free_port >"$own/port"
    [ -e "$own/conf" ] || cat >"$own/conf" <<EOF
sentinel monitor main 127.0.0.1 $(cat "$dir/server-1/port") 2
sentinel down-after-milliseconds main 1000
sentinel failover-timeout main 5000
EOF
    run "$own" --sentinel
    urls+=("127.0.0.1:$(cat "$own/port")")
  done
  for number in 1 2 3; do
    until_true "the sentinels do not know each other" sees_all "$(cat "$dir/sentinel-$number/port")"
  done
  echo "REDIS_URL=redis+sentinel://$(IFS=,; echo "${urls[*]}")/main"
}

cluster() {
  local dir number nodes=() replicas=$2
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  for number in $(seq $((3 + 3 * replicas))); do
    local own=$dir/node-$number
    mkdir -p "$own"
    [ -e "$own/bus" ] || free_port >"$own/bus"
    serve "$own" --cluster-enabled yes --cluster-port "$(cat "$own/bus")" --cluster-node-timeout 2000
    nodes+=("127.0.0.1:$(cat "$own/port")")
  done
  if [ ! -e "$dir/formed" ]; then
    redis-cli --cluster create "${nodes[@]}" --cluster-replicas "$replicas" --cluster-yes >"$dir/log" || {
      echo "redis.sh: the cluster does not form; see $dir/log" >&2
      exit 1
    }
    touch "$dir/formed"
  fi
  until_true "the cluster does not serve all slots" serves_all "$(cat "$dir/node-1/port")"
  echo "REDIS_URL=redis+cluster://$(IFS=,; echo "${nodes[*]}")"
}

# A server that keeps everything in a directory.
serve() {
  mkdir -p "$1"
  local dir=$1
  shift
  dir=$(cd "$dir" && pwd)
  [ -e "$dir/port" ] || free_port >"$dir/port"
  run "$dir" --save '' --appendonly yes --appendfsync always --maxmemory-policy noeviction --repl-diskless-sync-delay 0 "$@"
}

# Runs a process in a directory, with the configuration there if there is one, and waits until it answers.
run() {
  local dir=$1 port conf=()
  shift
  port=$(cat "$dir/port")
  [ ! -e "$dir/conf" ] || conf=("$dir/conf")
  if ! is_running "$dir"; then
    redis-server "${conf[@]}" --bind 127.0.0.1 --port "$port" --dir "$dir" --daemonize yes --pidfile "$dir/pid" --logfile "$dir/log" "$@" >/dev/null
  fi
  until_true "redis-server does not answer on port $port; see $dir/log" answers "$port"
}

answers() {
  [ "$(redis-cli -p "$1" ping 2>/dev/null)" = PONG ]
}

followed_by_two() {
  local said
  said=$(redis-cli -p "$1" info replication)
  # Since a failover it follows another one itself.
  [[ $said == *role:slave* ]] || [ "$(grep -c state=online <<<"$said")" = 2 ]
}

sees_all() {
  [ "$(redis-cli -p "$1" sentinel master main | grep -A1 -x 'num-slaves\|num-other-sentinels' | grep -c -x 2)" = 2 ]
}

serves_all() {
  redis-cli -p "$1" cluster info | grep -q '^cluster_state:ok'
}

# Waits for a state: what to say if it does not come, then the command that asks for it.
until_true() {
  local what=$1
  shift
  for _ in $(seq 600); do
    "$@" 2>/dev/null && return
    sleep 0.05
  done
  echo "redis.sh: $what" >&2
  exit 1
}

stop_with() {
  local pid=$1 dir=$2 own
  (
    trap '' HUP INT TERM
    while kill -0 "$pid" 2>/dev/null && [ -d "$dir" ]; do sleep 0.5; done
    # Nothing of it is needed any more, so nobody waits for an orderly end.
    for own in "$dir"/sentinel-* "$dir"/server-* "$dir"/node-* "$dir"; do
      ! is_running "$own" || kill -KILL "$(cat "$own/pid")" 2>/dev/null || true
    done
  ) </dev/null >/dev/null 2>&1 &
}

# Sentinels first, so that none of them promotes anyone.
stop_all() {
  local dir
  for dir in "$1"/sentinel-* "$1"/server-* "$1"/node-* "$1"; do
    [ ! -d "$dir" ] || stop "$dir"
  done
}

stop() {
  is_running "$1" || return 0
  local pid
  pid=$(cat "$1/pid")
  # A stopped process hears nothing but this.
  kill -CONT "$pid" 2>/dev/null || true
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.05
  done
  kill -KILL "$pid"
}

# A process that was killed and not yet reaped has no command line, one that got the number afterwards has another.
is_running() {
  [ -s "$1/pid" ] && grep -qs ":$(cat "$1/port")" "/proc/$(cat "$1/pid")/cmdline"
}

# A port below those that the system hands out by itself, so that nobody else gets it before the server listens, or while it is dead.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

main "$@"
