#!/bin/sh
# runnerctl start|stop|restart|status: the service manager of a throw-away host's one runner.
#
# Only a start reads runner.env, as with docker and systemd. A start ends when the runner is up or has said why it is
# not; the runner is a session of its own and outlives whoever asked. Every wait is bounded.
set -u
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
case $0 in */*) home=${0%/*} ;; *) home=. ;; esac
home=$(cd "$home" && pwd -P) || exit 2

pause() { sleep 0.05 2>/dev/null || sleep 1; }

# Sets $pid and says whether that process is this host's runner: a reused process id has another environment.
running() {
  pid=
  { read -r pid <"$home/runner.pid"; } 2>/dev/null || return 1
  case $pid in '' | *[!0-9]*) return 1 ;; esac
  { tr '\0' '\n' <"/proc/$pid/environ" | grep -qxF "HOME=$home"; } 2>/dev/null
}

up() { running && grep -qxF "pid=$pid" "$home/runner.status" 2>/dev/null; }

start() {
  if running; then
    echo "already running, pid $pid"
    return 0
  fi
  rm -f "$home/runner.pid" "$home/runner.status" "$home/runner.heartbeat" "$home/runner.failed"
  env -i PATH="$PATH" HOME="$home" setsid sh "$home/runnerctl" take-over \
    </dev/null >>"$home/runner.log" 2>&1 &
  tries=0
  while [ "$tries" -lt 200 ]; do
    if up; then
      echo "started, pid $pid"
      return 0
    fi
    if [ -s "$home/runner.failed" ]; then
      read -r why <"$home/runner.failed"
      echo "the runner did not start: $why" >&2
      return 1
    fi
    pause
    tries=$((tries + 1))
  done
  echo "the runner did not come up in time" >&2
  return 1
}

stop() {
  running || { echo "not running"; return 0; }
  for signal in TERM KILL; do
    kill -s "$signal" "$pid" 2>/dev/null
    tries=0
    while [ "$tries" -lt 100 ]; do
      running || { rm -f "$home/runner.pid" "$home/runner.status" "$home/runner.heartbeat"; echo stopped; return 0; }
      pause
      tries=$((tries + 1))
    done
  done
  echo "pid $pid does not end" >&2
  return 1
}

status() {
  if up; then
    echo "running, pid $pid"
    return 0
  fi
  echo "not running"
  return 3
}

# The last step of a start, in the new session and with an empty environment: the file's lines become the environment,
# letter by letter, and this very process becomes the runner. HOME and PATH are not the file's to set.
take_over() {
  set -- "$home"
  [ -r "$1/runner.env" ] || { echo "cannot read runner.env" >"$1/runner.failed"; exit 1; }
  while IFS= read -r rc_line || [ -n "$rc_line" ]; do
    rc_key=${rc_line%%=*}
    case $rc_key in
      "$rc_line" | '' | [0-9]* | *[!A-Za-z0-9_]* | HOME | PATH) continue ;;
    esac
    export "$rc_key=${rc_line#*=}"
  done <"$1/runner.env"
  echo "$$" >"$1/runner.pid"
  exec sh "$1/runner.sh"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  restart) stop >/dev/null && start ;;
  status) status ;;
  take-over) take_over ;;
  *)
    echo "usage: runnerctl start|stop|restart|status" >&2
    exit 2
    ;;
esac
