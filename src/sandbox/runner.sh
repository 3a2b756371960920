#!/bin/sh
# Stand-in for a CI runner's daemon, for throw-away hosts only.
#
# It takes its settings from its environment, once, as a real runner does: a changed runner.env or token file means
# nothing to it until it is started again. Of the token only the SHA-256 is kept. All its files lie beside this script:
#   runner.pid        its process id, written by runnerctl just before this script takes over that process
#   runner.status     pid, fingerprint and pointer, written once it is up
#   runner.heartbeat  "UPTIME PID FINGERPRINT", every second
#   runner.failed     why it is not up, for runnerctl
#   pinned            if there: the only fingerprint it accepts, and after how many seconds it dies of another one
#   owner             if there: process id and start time of the sandbox; without that process it ends by itself, and
#                     also when its directory is gone
set -u
home=${0%/*}
umask 077

fail() {
  rm -f "$home/runner.status" "$home/runner.heartbeat" "$home/runner.pid"
  printf '%s\n' "$1" >"$home/runner.failed"
  printf 'runner: %s\n' "$1"
  exit 1
}

finish() { # also where the directory is gone already
  [ -z "$nap" ] || kill "$nap" 2>/dev/null
  rm -f "$home/runner.status" "$home/runner.heartbeat" "$home/runner.pid"
  printf 'runner: stopped (%s)\n' "$1"
  exit 0
}

# Whether the host is still there and the process that made it still lives; a reused process id has another start time.
owned() {
  [ -f "$0" ] || return 1
  [ -f "$home/owner" ] || return 0
  read -r owner born <"$home/owner" || return 0
  { read -r stat <"/proc/$owner/stat"; } 2>/dev/null || return 1
  # shellcheck disable=SC2086 # the fields after the program's name are plain words
  set -- ${stat##*) }
  [ "${20:-}" = "$born" ]
}

nap=
trap 'finish TERM' TERM
trap 'finish INT' INT

pointer=${INFISICAL_TOKEN_AUTH_FILE:-}
[ -n "$pointer" ] || fail "INFISICAL_TOKEN_AUTH_FILE is not set"
{ [ -f "$pointer" ] && [ -r "$pointer" ]; } || fail "cannot read the token file $pointer"
[ -s "$pointer" ] || fail "the token file $pointer is empty"
# printf is a builtin of every shell meant here: the token is in no argument list and no environment.
token=$(printf %s "$(cat "$pointer")" | sha256sum) || fail "cannot read the token file $pointer"
token="sha256:${token%% *}"

wanted=$token
after=0
if [ -f "$home/pinned" ]; then
  read -r wanted after <"$home/pinned"
  if [ "$token" != "$wanted" ] && [ "${after:-0}" -eq 0 ]; then
    fail "the server refuses this runner's token"
  fi
fi

printf 'pid=%s\ntoken=%s\npointer=%s\n' "$$" "$token" "$pointer" >"$home/runner.status.new"
mv "$home/runner.status.new" "$home/runner.status" || fail "cannot write runner.status"
printf 'runner: up\n'

beats=0
while owned; do
  if [ "$token" != "$wanted" ] && [ "$beats" -ge "$after" ]; then
    fail "the server refuses this runner's token"
  fi
  read -r uptime _ </proc/uptime
  { printf '%s %s %s\n' "$uptime" "$$" "$token" >"$home/runner.heartbeat"; } 2>/dev/null
  sleep 1 &
  nap=$!
  wait "$nap"
  beats=$((beats + 1))
done
finish "the sandbox is gone"
