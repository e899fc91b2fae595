#!/usr/bin/env bash
# A Redis 7 on a free loopback port, from Debian's package. What it answered survives its death: it keeps an append-only file and syncs it.
#
#   redis.sh install      installs redis-server if it is absent, without a service that runs by itself
#   redis.sh start DIR    starts one that keeps everything in DIR; once it answers, prints a line to eval: REDIS_URL=redis://127.0.0.1:PORT
#                         In a DIR that was started before, starts it again on the same port if it does not run.
#   redis.sh stop DIR     stops it; what it stored stays in DIR
#
# DIR/pid is its process, DIR/log what it says.
set -euo pipefail

main() {
  case ${1-} in
    install) [ $# = 1 ] || usage; install ;;
    start) [ $# = 2 ] || usage; install; start "$2" ;;
    stop) [ $# = 2 ] || usage; stop "$2" ;;
    *) usage ;;
  esac
}

usage() {
  sed -n '4,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
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
  mkdir -p "$1"
  local dir port
  dir=$(cd "$1" && pwd)
  [ -e "$dir/port" ] || free_port >"$dir/port"
  port=$(cat "$dir/port")
  if ! is_running "$dir"; then
    redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --save '' --appendonly yes --appendfsync always \
      --maxmemory-policy noeviction --daemonize yes --pidfile "$dir/pid" --logfile "$dir/log" >/dev/null
  fi
  for _ in $(seq 200); do
    if [ "$(redis-cli -p "$port" ping 2>/dev/null)" = PONG ]; then
      echo "REDIS_URL=redis://127.0.0.1:$port"
      return
    fi
    sleep 0.05
  done
  echo "redis.sh: redis-server does not answer on port $port; see $dir/log" >&2
  exit 1
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

is_running() {
  [ -s "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

main "$@"
