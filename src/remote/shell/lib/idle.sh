# shellcheck shell=dash
# idle.sh - whether a runner works on a job right now, and whether a task of the forge ran here.
#
# A job shows in two places: as processes below the runner's own daemon, and as the containers that a runner starts for its
# tasks (in the engine of this host, or in one nested in a container of the same compose project).

# ks_busy KIND A B: sets KS_LOOKED to the places that were looked at (`processes`, `containers`), KS_JOBS to what was found
# there, and KS_BLIND to why a place could not be looked at.
ks_busy() {
  local dir
  KS_LOOKED='' KS_JOBS='' KS_BLIND=''
  # Without a directory no check command is run: only the process is wanted here.
  dir=${KS_RUN_DIR:-} KS_RUN_DIR=''
  ks_svc_state "$1" "$2" "$3"
  KS_RUN_DIR=$dir
  [ "$KS_PID" = 0 ] || ks_busy_tree "$KS_PID"
  ks_busy_containers "$@"
}

# ks_processes PID: sets KS_TABLE to `PID PARENT NAME` of every process that lives, or just of those below PID, a line each.
# Names are made harmless.
ks_processes() {
  local f line pid name state parent
  KS_TABLE=
  if [ -n "$KS_HANDS" ] && ks_hand processes "$1"; then
    KS_TABLE=$KS_SAID$KS_NL
    return 0
  fi
  set +f
  for f in /proc/[0-9]*/stat; do
    set -f
    { read -r line <"$f"; } 2>/dev/null || continue
    pid=${line%% *} name=${line#*\(}
    name=${name%)*} line=${line##*) }
    state=${line%% *} line=${line#* }
    parent=${line%% *}
    case $parent in '' | *[!0-9]*) continue ;; esac
    case $name in '' | *[!A-Za-z0-9_.:-]*) name=unnamed ;; esac
    [ "$state" = Z ] || KS_TABLE=$KS_TABLE"$pid $parent $name$KS_NL"
  done
  set -f
}

# ks_busy_tree PID: looks below the runner's daemon, which is PID itself or (behind an init of a container) below it. Of a
# program that is not known as a runner nothing can be told: it may keep helpers for ever.
ks_busy_tree() {
  local pid parent name tree named daemons grown process ifs
  ks_processes "$1"
  tree=" $1 " grown=yes
  # No here-document: older bash makes a file for it, and a full disk would look like a runner without a job.
  ifs=$IFS IFS=$KS_NL
  # shellcheck disable=SC2086
  set -- $KS_TABLE
  IFS=$ifs
  while [ $grown = yes ]; do
    grown=no
    for process; do
      pid=${process%% *} parent=${process#* }
      parent=${parent% *}
      case $tree in *" $pid "*) continue ;; esac
      case $tree in *" $parent "*) tree="$tree$pid " grown=yes ;; esac
    done
  done
  named=' '
  for process; do
    pid=${process%% *} name=${process##* }
    case $tree in *" $pid "*) ;; *) continue ;; esac
    # the kernel keeps 15 characters of a name, and a release's file is called `forgejo-runner-12.1.2-linux-amd64`
    case $name in
      forgejo-runner* | forgejo_runner* | act_runner* | act-runner* | gitea-runner* | gitlab-runner* | Runner.Listener) named="$named$pid " ;;
    esac
  done
  # What a daemon has forked bears its name until it becomes another program: that is a job.
  daemons=' '
  for process; do
    pid=${process%% *} parent=${process#* }
    parent=${parent% *}
    case $named in *" $parent "*) continue ;; esac
    case $named in *" $pid "*) daemons="$daemons$pid " ;; esac
  done
  [ "$daemons" != ' ' ] || return 0
  KS_LOOKED="$KS_LOOKED processes"
  for process; do
    pid=${process%% *} name=${process##* } parent=${process#* }
    parent=${parent% *}
    case $daemons in *" $pid "*) continue ;; esac
    case $daemons in *" $parent "*) KS_JOBS="$KS_JOBS process:$pid($name)" ;; esac
  done
}

# ks_task_containers ENGINE ARGS...: the names of task containers in an engine, as words. Fails when it does not say them whole.
ks_task_containers() {
  local list name ifs
  list=$({ ks_bounded 15 "$@" ps --filter name=-ACTIONS-TASK- --format '{{.Names}}' 2>/dev/null; echo "=$?"; } | head -c 65536)
  case $list in *"=0") list=${list%=0} ;; *) return 1 ;; esac
  case " $KS_LOOKED " in *' containers '*) ;; *) KS_LOOKED="$KS_LOOKED containers" ;; esac
  ifs=$IFS IFS=$KS_NL
  # shellcheck disable=SC2086
  set -- $list
  IFS=$ifs
  for name; do
    case $name in *[!A-Za-z0-9_.-]*) continue ;; esac
    case "$KS_JOBS " in *" container:$name "*) continue ;; esac
    KS_JOBS="$KS_JOBS container:$name"
  done
}

# ks_busy_containers KIND A B: looks into every engine that the runner may use for its jobs.
ks_busy_containers() {
  local pid id net engine
  pid=$KS_PID
  for engine in docker podman; do
    command -v $engine >/dev/null 2>&1 || continue
    # Where nothing listens there is no engine, and its program is not started to find that out: that costs more than all else.
    case $engine.$1 in
      docker.docker | docker.compose | podman.*) ;;
      *) [ -S "${KS_DOCKER_SOCKET:-/var/run/docker.sock}" ] || continue ;;
    esac
    # One that hangs, or that will not have us, may run jobs.
    ks_task_containers $engine || KS_BLIND="the $engine engine does not answer"
  done
  case $1 in
    docker | compose) ;;
    *)
      [ "$pid" = 0 ] || ks_busy_own_engine "$pid"
      return 0
      ;;
  esac
  command -v docker >/dev/null 2>&1 || return 0
  # The engine for jobs may be a container of the same project, or of the same network.
  if [ "$1" = compose ]; then
    ks_busy_nested "$(ks_compose 30 "$2" ps -q 2>/dev/null)"
    return 0
  fi
  for net in $(ks_bounded 15 docker inspect -f '{{range .NetworkSettings.Networks}}{{.NetworkID}} {{end}}' -- "$2" 2>/dev/null); do
    case $net in *[!0-9a-f]*) continue ;; esac
    ks_busy_nested "$(ks_bounded 15 docker ps -q --filter "network=$net" 2>/dev/null)"
  done
}

# ks_busy_nested IDS: looks into those of these containers that are engines. One listens where its command says: on its socket
# or a port.
ks_busy_nested() {
  local id what
  for id in $1; do
    case $id in *[!0-9a-f]*) continue ;; esac
    what=$(ks_bounded 15 docker inspect -f '{{.Path}} {{join .Args " "}}' -- "$id" 2>/dev/null) || continue
    case $what in *dockerd*) ;; *) continue ;; esac
    ks_task_containers docker exec "$id" docker || ks_task_containers docker exec "$id" docker -H tcp://127.0.0.1:2375 ||
      KS_BLIND="the engine in container ${id%"${id#????????????}"} does not answer"
  done
}

# ks_busy_own_engine PID: the runner may use an engine of its own user, or one that its environment names. Only one of this
# host is asked: an address is never followed to another.
ks_busy_own_engine() {
  local at
  if ks_proc_env "$1" DOCKER_HOST; then
    case $KS_VALUE in
      *[!A-Za-z0-9_./:-]*) at= ;;
      unix:///* | tcp://127.0.0.1:* | tcp://localhost:*) at=$KS_VALUE ;;
      *) at= ;;
    esac
    if [ -z "$at" ]; then
      KS_BLIND="the runner's engine (DOCKER_HOST) is not one of this host"
    else
      ks_busy_engine_at "$at"
    fi
    return 0
  fi
  ks_credentials "$1" || return 0
  for at in "/run/user/$KS_USER/docker.sock" "/run/user/$KS_USER/podman/podman.sock"; do
    [ ! -S "$at" ] || ks_busy_engine_at "unix://$at"
  done
}

# ks_busy_engine_at ADDRESS: both engines speak the same language.
ks_busy_engine_at() {
  if command -v docker >/dev/null 2>&1; then
    ks_task_containers docker -H "$1" && return 0
  elif command -v podman >/dev/null 2>&1; then
    ks_task_containers podman --url "$1" && return 0
  fi
  KS_BLIND="the engine at $1 does not answer"
}

# ks_stop_limit KIND A B: sets KS_STOP to the seconds that the service manager gives the runner to stop (`infinity`: no end;
# empty: it does not say).
ks_stop_limit() {
  local id unit n
  KS_STOP=
  case $1 in
    systemd)
      # `infinity`, or words as `1min 30s`
      for id in $(ks_bounded 15 systemctl show -p TimeoutStopUSec -- "$2" 2>/dev/null); do
        id=${id#TimeoutStopUSec=}
        unit=${id##*[0-9]} n=${id%"$unit"}
        case $id in infinity) KS_STOP=infinity; return 0 ;; esac
        case $n in '' | *[!0-9]*) continue ;; esac
        case $unit in s) ;; min) n=$((n * 60)) ;; h) n=$((n * 3600)) ;; d) n=$((n * 86400)) ;; *) n=0 ;; esac
        KS_STOP=$((${KS_STOP:-0} + n))
      done
      ;;
    docker | compose)
      id=$2
      [ "$1" = docker ] || id=$(ks_compose 30 "$2" ps -a -q "$3" 2>/dev/null | tail -n 1)
      [ -z "$id" ] || KS_STOP=$(ks_bounded 15 docker inspect -f '{{.Config.StopTimeout}}' -- "$id" 2>/dev/null)
      case $KS_STOP in *[!0-9]*) KS_STOP= ;; esac
      ;;
  esac
}

# ks_jobs_meanwhile STEP PID LIMIT: runs beside a restart, until the old process is gone, and notes in `meanwhile.STEP` a job
# that it still has: it began after the last look.
ks_jobs_meanwhile() {
  local start i
  ks_pid "$2" || return 0
  start=$KS_START i=0
  while ks_alive "$2" "$start" && [ ! -e "$KS_RUN_DIR/ended.$1" ] && [ $i -lt $(($3 * 2)) ]; do
    KS_JOBS=
    ks_busy_tree "$2"
    if [ -n "$KS_JOBS" ]; then
      printf '%s\n' "$KS_JOBS" >"$KS_RUN_DIR/meanwhile.$1"
      return 0
    fi
    i=$((i + 1))
    if [ $i -lt 5 ]; then sleep 0.1; else sleep 0.5; fi
  done
}

# ks_look_busy N KIND A B
ks_look_busy() {
  ks_busy "$2" "$3" "$4"
  ks_tail "$KS_JOBS"
  ks_stop_limit "$2" "$3" "$4"
  # shellcheck disable=SC2153
  ks_say busy n "$1" looked "${KS_LOOKED# }" jobs "$KS_TAIL" blind "$KS_BLIND" stop "$KS_STOP"
}

# ks_runner_log KIND A B LOG: what the runner wrote lately, from its own log: LOG if it is named, else the service manager's.
ks_runner_log() {
  local id
  if [ "$4" != - ]; then
    # The runner may own its directory: a plain file, its end, and not for long.
    case $(stat -L -c %f -- "$4" 2>/dev/null) in 8???) ks_bounded 15 tail -c 4194304 -- "$4" ;; *) return 1 ;; esac
    return
  fi
  case $1 in
    systemd) ks_bounded 30 journalctl -q --no-pager -o cat -n 20000 -u "$2" 2>/dev/null ;;
    docker) ks_bounded 30 docker logs --tail 20000 -- "$2" 2>&1 ;;
    compose)
      id=$(ks_compose 30 "$2" ps -a -q "$3" 2>/dev/null | tail -n 1)
      [ -n "$id" ] && ks_bounded 30 docker logs --tail 20000 -- "$id" 2>&1
      ;;
    *) return 1 ;;
  esac
}

# ks_look_back N KIND A B LOG: whether the process that runs now says in its log that it has reached its forge: `yes`; `starting`
# (not yet); `no` (it says nothing of itself); `unregistered`; `unread` where there is no log that is known to be this process's.
ks_look_back() {
  local n said dir
  n=$1 said=unread dir=${KS_RUN_DIR:-}
  KS_RUN_DIR=
  ks_svc_state "$2" "$3" "$4"
  KS_RUN_DIR=$dir
  if [ "$KS_PID" != 0 ] && ks_pid "$KS_PID"; then
    said=$(ks_own_log "$2" "$5" | tr -d '\000' |
      grep -i -e 'starting runner daemon' -e 'declared\{0,1\} successfully' -e '\[poller [0-9]*\] launched' -e 'unregistered runner' -e '^keyswap$' | tail -n 50 | ks_says_back "$5")
  fi
  ks_say back n "$n" said "${said:-unread}"
}

# ks_own_log KIND LOG: a last line `keyswap` behind what the process that `ks_svc_state` saw has written, if that can be told.
ks_own_log() {
  local id
  if [ "$2" != - ]; then
    # Whose line it is the line's own time tells.
    ks_runner_log - - - "$2" && echo keyswap
    return
  fi
  case $1 in
    systemd)
      id=${KS_INV#-}
      id=${id%%.*}
      case $id in '' | *[!0-9a-f]*) return 1 ;; esac
      ks_bounded 30 journalctl -q --no-pager -o cat -n 20000 "_SYSTEMD_INVOCATION_ID=$id" 2>/dev/null && echo keyswap
      ;;
    docker | compose)
      # its id, the count of its restarts, and when it was started
      id=${KS_INV#*.}
      ks_bounded 30 docker logs --since "${id#*.}" -- "${KS_INV%%.*}" 2>&1 && echo keyswap
      ;;
    *) return 1 ;;
  esac
}

# ks_says_back LOG: what a log says last; of a file only lines that are younger than the process count.
ks_says_back() {
  local line said whole
  said=no whole=
  [ "$1" = - ] || ks_began || return 0
  while IFS= read -r line; do
    whole=
    case $line in
      keyswap) whole=1 ;;
      *[Dd]'eclare successfully'* | *[Dd]'eclared successfully'* | *'[poller '*'] launched'*)
        [ "$1" = - ] || ks_since_began "$line" || continue
        said=yes
        ;;
      *[Ss]'tarting runner daemon'*)
        [ "$1" = - ] || ks_since_began "$line" || continue
        said=starting
        ;;
      *[Uu]'nregistered runner'*)
        [ "$1" = - ] || ks_since_began "$line" || continue
        said=unregistered
        ;;
    esac
  done
  [ -z "$whole" ] || printf %s "$said"
}

# ks_began: sets KS_BEGAN to when the process KS_PID was started, in seconds of this host's clock: logs know no other.
ks_began() {
  local key value
  while read -r key value; do
    [ "$key" != btime ] || { KS_BEGAN=$((value + KS_START / 100)); return 0; }
  done </proc/stat
  return 1
}

# ks_since_began LINE: the line's `time="…"` is not before KS_BEGAN, which is known to the second.
ks_since_began() {
  local day clock zone hours at
  case $1 in *'time="'????-??-??T??:??:??*'"'*) ;; *) return 1 ;; esac
  day=${1#*time=\"}
  day=${day%%\"*} zone=${day#???????????????????}
  clock=${day#???????????}
  clock=${clock%"$zone"} day=${day%%T*}
  case $zone in .*) zone=${zone#.}; zone=${zone#"${zone%%[!0-9]*}"} ;; esac
  case $day$clock in *[!0-9:-]*) return 1 ;; esac
  at=$(date -u -d "$day $clock" +%s 2>/dev/null) || return 1
  case $zone in
    Z) ;;
    [+-][0-9][0-9]:[0-9][0-9])
      hours=${zone#?}
      hours=$(((1${hours%:*} - 100) * 3600 + (1${hours#*:} - 100) * 60))
      case $zone in +*) at=$((at - hours)) ;; *) at=$((at + hours)) ;; esac
      ;;
    *) return 1 ;;
  esac
  [ "$at" -ge $((KS_BEGAN - 1)) ]
}

# ks_look_task N KIND A B LOG REPO TASK...: which of these tasks the runner says that it took, if its log can be read. A log
# that names no task at all proves nothing: a runner that logs only warnings never names one.
ks_look_task() {
  local n kind a b log repo found read first
  n=$1 kind=$2 a=$3 b=$4 log=$5
  # the server writes the name as its owner does, whatever the playbook says
  repo=$(printf '%s' "$6" | tr '[:upper:]' '[:lower:]')
  shift 6
  found='' read=no
  # A line of our own behind the log's last one: without a first one there was no log.
  log=$(ks_runner_log "$kind" "$a" "$b" "$log" | tr -d '\000' | tr '[:upper:]' '[:lower:]' | grep -e 'task [0-9][0-9]* repo is ' | {
    IFS= read -r first && {
      printf '%s\n' "$first"
      cat
      printf '%s\n' "keyswap: $repo"
    }
  } | grep -F -e " repo is $repo " -e "keyswap: $repo")
  case $log in *"keyswap: $repo") read=yes ;; esac
  while [ $# -gt 0 ]; do
    case $1 in '' | *[!0-9]*) ks_die refused "$1 is no task" ;; esac
    case $log in *"task $1 repo is $repo "*) found="$found $1" ;; esac
    shift
  done
  ks_say task n "$n" read "$read" found "${found# }"
}
