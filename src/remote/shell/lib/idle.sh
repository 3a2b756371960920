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
  ! command -v docker >/dev/null 2>&1 || ks_busy_containers "$@"
}

# ks_processes: sets KS_TABLE to `PID PARENT NAME` of every process that lives, a line each. Names are made harmless.
ks_processes() {
  local f line pid name state parent
  KS_TABLE=
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
  local pid parent name tree named daemons grown
  ks_processes
  tree=" $1 " grown=yes
  while [ $grown = yes ]; do
    grown=no
    while read -r pid parent name; do
      case $tree in *" $pid "*) continue ;; esac
      case $tree in *" $parent "*) tree="$tree$pid " grown=yes ;; esac
    done <<KS_EOT
$KS_TABLE
KS_EOT
  done
  named=' '
  while read -r pid parent name; do
    case $tree in *" $pid "*) ;; *) continue ;; esac
    # the kernel keeps 15 characters of a name
    case $name in
      forgejo-runner | act_runner | gitea-runner | gitlab-runner | Runner.Listener) named="$named$pid " ;;
    esac
  done <<KS_EOT
$KS_TABLE
KS_EOT
  # What a daemon has forked bears its name until it becomes another program: that is a job.
  daemons=' '
  while read -r pid parent name; do
    case $named in *" $parent "*) continue ;; esac
    case $named in *" $pid "*) daemons="$daemons$pid " ;; esac
  done <<KS_EOT
$KS_TABLE
KS_EOT
  [ "$daemons" != ' ' ] || return 0
  KS_LOOKED="$KS_LOOKED processes"
  while read -r pid parent name; do
    case $daemons in *" $pid "*) continue ;; esac
    case $daemons in *" $parent "*) KS_JOBS="$KS_JOBS process:$pid($name)" ;; esac
  done <<KS_EOT
$KS_TABLE
KS_EOT
}

# ks_task_containers DOCKER ARGS...: the names of task containers in an engine, as words.
ks_task_containers() {
  local list name
  list=$(ks_bounded 15 "$@" ps --filter name=-ACTIONS-TASK- --format '{{.Names}}' 2>/dev/null) || return 1
  KS_LOOKED="$KS_LOOKED containers"
  while IFS= read -r name; do
    case $name in '' | *[!A-Za-z0-9_.-]*) continue ;; esac
    KS_JOBS="$KS_JOBS container:$name"
  done <<KS_EOT
$list
KS_EOT
}

# ks_busy_containers KIND A B
ks_busy_containers() {
  local id what
  case $1 in docker | compose) ;; *) ks_task_containers docker || :; return 0 ;; esac
  ks_task_containers docker || KS_BLIND="the docker engine does not answer"
  [ "$1" = compose ] || return 0
  # The engine for jobs may be one of the project's own containers. It listens where its command says: on its socket or a port.
  for id in $(ks_compose 30 "$2" ps -q 2>/dev/null); do
    case $id in *[!0-9a-f]*) continue ;; esac
    what=$(ks_bounded 15 docker inspect -f '{{.Path}} {{join .Args " "}}' -- "$id" 2>/dev/null) || continue
    case $what in *dockerd*) ;; *) continue ;; esac
    ks_task_containers docker exec "$id" docker || ks_task_containers docker exec "$id" docker -H tcp://127.0.0.1:2375 ||
      KS_BLIND="the engine in container ${id%"${id#????????????}"} does not answer"
  done
}

# ks_look_busy N KIND A B
ks_look_busy() {
  ks_busy "$2" "$3" "$4"
  ks_tail "$KS_JOBS"
  # shellcheck disable=SC2153
  ks_say busy n "$1" looked "${KS_LOOKED# }" jobs "$KS_TAIL" blind "$KS_BLIND"
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

# ks_look_task N KIND A B LOG REPO TASK...: which of these tasks the runner says that it took, if its log can be read.
ks_look_task() {
  local n kind a b log repo found read first
  n=$1 kind=$2 a=$3 b=$4 log=$5 repo=$6
  shift 6
  found='' read=no
  # A line of our own behind the log's last one: without a first one there was no log.
  log=$(ks_runner_log "$kind" "$a" "$b" "$log" | tr -d '\000' | {
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
