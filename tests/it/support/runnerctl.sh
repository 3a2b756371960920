#!/bin/sh
# runnerctl start|stop|restart|status: the service manager of a throw-away host's one runner, which runs as user 1000.
#
# As with docker and systemd only a start reads the env file. What lives while it runs lies in /run/forgejo-runner.
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
live=/run/forgejo-runner
env_file=/srv/forgejo-runner/runner.env

# Sets $pid and says whether that process is the runner.
running() {
    pid=
    { read -r pid <"$live/runner.pid"; } 2>/dev/null || return 1
    { tr '\0' '\n' <"/proc/$pid/environ" | grep -qxF "HOME=$live"; } 2>/dev/null
}

up() { running && grep -qxF "pid=$pid" "$live/runner.status" 2>/dev/null; }

start() {
    ! running || return 0
    rm -f "$live"/runner.pid "$live"/runner.status "$live"/runner.heartbeat "$live"/runner.failed
    env -i PATH="$PATH" HOME="$live" setsid sh "$0" take-over </dev/null >>"$live/log" 2>&1 &
    tries=0
    while [ "$tries" -lt 200 ]; do
        ! up || return 0
        if [ -s "$live/runner.failed" ]; then
            read -r why <"$live/runner.failed"
            echo "the runner did not start: $why" >&2
            return 1
        fi
        sleep 0.02
        tries=$((tries + 1))
    done
    echo "the runner did not come up in time" >&2
    return 1
}

stop() {
    for signal in TERM KILL; do
        running || return 0
        kill -s "$signal" "$pid" 2>/dev/null
        tries=0
        while [ "$tries" -lt 100 ]; do
            running || { rm -f "$live/runner.pid" "$live/runner.status" "$live/runner.heartbeat"; return 0; }
            sleep 0.02
            tries=$((tries + 1))
        done
    done
    return 1
}

# In the new session, with an empty environment: the file's lines become the environment, letter by letter, and this very
# process becomes the runner.
take_over() {
    [ -r "$env_file" ] || { echo "cannot read $env_file" >"$live/runner.failed"; exit 1; }
    while IFS= read -r rc_line || [ -n "$rc_line" ]; do
        rc_key=${rc_line%%=*}
        case $rc_key in
        "$rc_line" | '' | [0-9]* | *[!A-Za-z0-9_]* | HOME | PATH) continue ;;
        esac
        export "$rc_key=${rc_line#*=}"
    done <"$env_file"
    echo "$$" >"$live/runner.pid"
    [ "$(id -u)" != 1000 ] || exec sh "$live/runner.sh"
    exec setpriv --reuid=1000 --regid=1000 --clear-groups sh "$live/runner.sh"
}

case ${1:-} in
start) start ;;
stop) stop ;;
restart) stop && start ;;
status) up ;;
take-over) take_over ;;
*) exit 2 ;;
esac
