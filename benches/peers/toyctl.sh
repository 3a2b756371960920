#!/bin/sh
# toyctl restart DIR | toyctl verify DIR DIGEST: the service manager of a toy runner, and the operator's check of it.
#
# The runner is user 1000. It takes its settings from DIR/runner.env and its token from the file that they name, once, at
# its start: what it read is told by DIR/run/seen (a SHA-256) and by its environment. Its process id is in DIR/run/runner.pid.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
dir=$2

# Sets $pid and says whether that process lives; one that only waits to be taken leave of does not.
alive() {
    { read -r pid <"$dir/run/runner.pid" && read -r stat <"/proc/$pid/stat"; } 2>/dev/null || return 1
    case ${stat##*) } in Z*) return 1 ;; esac
}

case $1 in
restart)
    if alive; then
        kill "$pid"
        while alive; do sleep 0.005; done
    fi
    # The pipe is closed when the runner is up, so nobody needs to look again and again.
    said=$(
        setsid setpriv --reuid=1000 --regid=1000 --clear-groups sh "$0" be "$dir" </dev/null 3>&1 >/dev/null 2>&1 &
        echo "$!" >"$dir/run/runner.pid"
    )
    [ "$said" = up ] || { echo "the runner did not start" >&2; exit 1; }
    ;;
be)
    set -a
    # shellcheck source=/dev/null
    . "$dir/runner.env"
    set +a
    IFS= read -r token <"$INFISICAL_TOKEN_AUTH_FILE" || [ -n "$token" ]
    seen=$(printf %s "$token" | sha256sum)
    echo "${seen%% *}" >"$dir/run/seen"
    echo up >&3
    exec sleep infinity 3>&-
    ;;
verify)
    alive || { echo "the runner is not up" >&2; exit 1; }
    read -r seen <"$dir/run/seen"
    [ "$seen" = "$3" ] || { echo "the runner has another token" >&2; exit 1; }
    tr '\0' '\n' <"/proc/$pid/environ" | grep -qxF "INFISICAL_TOKEN_AUTH_FILE=$dir/data/infisical-token-auth-token" ||
        { echo "the runner has another pointer" >&2; exit 1; }
    ;;
*) exit 2 ;;
esac
