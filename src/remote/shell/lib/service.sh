# shellcheck shell=dash
# service.sh - runners under their service managers, and what their processes really hold.
#
# A runner is named by KIND and two words: systemd UNIT -, docker CONTAINER -, compose FILE SERVICE,
# command CHECK PIDFILE (either may be `-`).

# ks_svc_state KIND A B: sets KS_ACTIVE (yes, no, missing), KS_PID (0 when it cannot be told), KS_INV (changes with every
# start) and KS_DETAIL.
ks_svc_state() {
  local line id ifs
  KS_ACTIVE=no KS_PID=0 KS_INV=- KS_DETAIL=
  case $1 in
    systemd)
      # No here-document: older bash makes a file for it, and a full disk would look like a runner that is down.
      line=$(ks_bounded 15 systemctl show -p LoadState -p ActiveState -p SubState -p MainPID -p InvocationID -p NRestarts -- "$2" 2>&1 || echo LoadState=not-found)
      ifs=$IFS IFS=$KS_NL
      # shellcheck disable=SC2086
      set -- $line
      IFS=$ifs
      for line; do
        case $line in
          LoadState=*) KS_DETAIL="$KS_DETAIL ${line#*=}"; [ "${line#*=}" != not-found ] || KS_ACTIVE=missing ;;
          ActiveState=active | ActiveState=reloading | ActiveState=activating) [ $KS_ACTIVE = missing ] || KS_ACTIVE=yes; KS_DETAIL="$KS_DETAIL ${line#*=}" ;;
          ActiveState=*) KS_DETAIL="$KS_DETAIL ${line#*=}" ;;
          SubState=*) KS_DETAIL="$KS_DETAIL/${line#*=}"; [ "${line#*=}" != auto-restart ] || KS_ACTIVE=loop ;;
          MainPID=*) KS_PID=${line#*=} ;;
          InvocationID=*) KS_INV=$KS_INV${line#*=} ;;
          NRestarts=*) KS_INV=$KS_INV.${line#*=} ;;
        esac
      done
      ;;
    docker | compose)
      id=$2
      if [ "$1" = compose ]; then
        id=$(ks_compose 30 "$2" ps -a -q "$3" 2>/dev/null | tail -n 1)
        if [ -z "$id" ]; then
          ks_compose 30 "$2" config --services 2>/dev/null | grep -qxF -- "$3" || { KS_ACTIVE=missing; KS_DETAIL="no service $3 in $2"; }
          return 0
        fi
      fi
      line=$(ks_bounded 30 docker inspect -f '{{.State.Running}} {{.State.Restarting}} {{.State.Pid}} {{.Id}} {{.RestartCount}} {{.State.StartedAt}}' -- "$id" 2>&1) || {
        KS_ACTIVE=missing
        KS_DETAIL=$line
        return 0
      }
      # shellcheck disable=SC2086
      set -- $line
      [ "$1" != true ] || KS_ACTIVE=yes
      [ "$2" != true ] || KS_ACTIVE=loop
      KS_PID=$3 KS_INV=$4.$5.$6
      KS_DETAIL="running=$1 restarts=$5"
      ;;
    command)
      if [ "$3" != - ]; then
        ks_pid_in "$3"
        line=$KS_LINE
        if case $line in '' | *[!0-9]*) false ;; esac && ks_pid "$line" && [ "$KS_STATE" != Z ]; then
          KS_PID=$line KS_INV=$line-$KS_START KS_ACTIVE=yes
        fi
        KS_DETAIL="pid ${KS_PID}"
      else
        KS_ACTIVE=unknown
      fi
      if [ "$2" != - ] && [ $KS_ACTIVE != no ] && [ -n "$KS_RUN_DIR" ]; then
        ks_user 30 "$KS_RUN_DIR" "$2"
        if [ "$KS_RC" = 0 ]; then
          KS_ACTIVE=yes
        else
          KS_ACTIVE=no
          ks_tail "$KS_OUT"
          KS_DETAIL="the check exits $KS_RC${KS_TAIL:+: $KS_TAIL}"
        fi
      fi
      ;;
  esac
  KS_DETAIL=${KS_DETAIL# }
}

# ks_pid_in FILE: sets KS_LINE to the first line of a file. The runner may own its directory: then it is read under a time limit.
ks_pid_in() {
  local dir
  KS_LINE=
  # Whose the directory is does not change within a request.
  [ "${KS_PID_FILE:-}" = "$1" ] || {
    KS_PID_FILE=$1 KS_PID_ALONE=
    dir=${1%/*}
    ks_get stat -L -c "$KS_FACTS" -- "${dir:-/}" 2>/dev/null && ks_alone "$KS_GOT" && KS_PID_ALONE=1
  }
  if [ -n "$KS_PID_ALONE" ]; then
    [ -f "$1" ] && [ -r "$1" ] && read -r KS_LINE <"$1" || :
  elif [ -n "$KS_HANDS" ] && ks_hand line "$1"; then
    KS_LINE=$KS_SAID
  else
    KS_LINE=$(ks_bounded 5 dd if="$1" bs=64 count=1 2>/dev/null | { read -r dir && printf %s "$dir"; })
  fi
}

# ks_compose SECONDS FILE ARGS...: docker compose, the plugin or the older program.
ks_compose() {
  local limit file
  limit=$1 file=$2
  shift 2
  if [ -z "${KS_COMPOSE:-}" ]; then
    if docker compose version >/dev/null 2>&1; then KS_COMPOSE=plugin; else KS_COMPOSE=program; fi
  fi
  # compose reads .env beside the file and names the project after the directory
  cd "${file%/*}" || return 1
  if [ "$KS_COMPOSE" = plugin ]; then
    ks_bounded "$limit" docker compose -f "$file" "$@"
  else
    ks_bounded "$limit" docker-compose -f "$file" "$@"
  fi
}

# ks_svc_do VERB LIMIT KIND A B COMMAND: start, restart or stop. Sets KS_RC and KS_OUT.
ks_svc_do() {
  local verb limit
  verb=$1 limit=$2
  shift 2
  KS_OUT= KS_RC=0
  case $1 in
    systemd)
      # The daemon goes on with a job whose client was killed: the state is looked at afterwards in any case.
      KS_OUT=$( {
        ks_bounded 60 systemctl daemon-reload &&
          { [ "$verb" = stop ] || ks_bounded 15 systemctl reset-failed -- "$2" 2>/dev/null || :; } &&
          ks_bounded "$limit" systemctl "$verb" -- "$2"
      } 2>&1) || KS_RC=$?
      ;;
    docker) KS_OUT=$(ks_bounded "$limit" docker "$verb" -t "$(ks_grace "$limit")" -- "$2" 2>&1) || KS_RC=$? ;;
    compose)
      if [ "$verb" = stop ]; then
        KS_OUT=$(ks_compose "$limit" "$2" stop -t "$(ks_grace "$limit")" "$3" 2>&1) || KS_RC=$?
      else
        KS_OUT=$(ks_compose "$limit" "$2" up -d --no-deps --force-recreate -t "$(ks_grace "$limit")" "$3" 2>&1) || KS_RC=$?
      fi
      ;;
    command)
      [ "$verb" != stop ] || { KS_RC=1; KS_OUT="no way to stop it is known"; return 0; }
      ks_user "$limit" "$KS_RUN_DIR" "$4"
      ;;
  esac
  return 0
}

# ks_grace LIMIT: the seconds that a container gets to stop: most of the limit, so that a job can end.
ks_grace() {
  if [ "$1" -gt 20 ]; then echo $(($1 - 10)); else echo 10; fi
}

# ks_svc_steady CS SINCE KIND A B: the runner is up, and its process stays the same for CS hundredths of a second. Fails with
# KS_WHY. A process from before SINCE is not the one that is waited for: it is on its way out while the new one comes.
# KS_PID, KS_START and KS_INV are left set. A check command is asked before and after.
ks_svc_steady() {
  local hold since t0 pid start inv i
  hold=$1 since=$2
  shift 2
  KS_WHY=
  i=0
  # A service manager may need a moment before it knows the new process.
  while :; do
    ks_svc_state "$1" "$2" "$3"
    case $KS_ACTIVE in
      loop) KS_WHY="it crash-loops ($KS_DETAIL)"; return 1 ;;
      yes | unknown)
        [ "$KS_PID" != 0 ] || break
        # One that stays is too old: that is the caller's to say.
        ks_pid "$KS_PID" && { [ "$KS_START" -ge "$since" ] || [ $i -ge 15 ]; } && break
        ;;
    esac
    i=$((i + 1))
    if [ $i -gt 15 ]; then
      KS_WHY="it is not up (${KS_DETAIL:-$KS_ACTIVE})"
      return 1
    fi
    sleep 0.1
  done
  pid=$KS_PID start=${KS_START:-0} inv=$KS_INV
  ks_uptime
  t0=$KS_UP
  while :; do
    ks_uptime
    [ $((KS_UP - t0)) -lt "$hold" ] || break
    if [ "$pid" != 0 ] && ! ks_alive "$pid" "$start"; then
      KS_WHY="its process ended $(((KS_UP - t0) / 100)) s after the start"
      return 1
    fi
    if [ $((hold - KS_UP + t0)) -ge 20 ]; then sleep 0.2; else sleep 0.05; fi
  done
  ks_svc_state "$1" "$2" "$3"
  case $KS_ACTIVE in yes | unknown) ;; *) KS_WHY="it did not stay up ($KS_DETAIL)"; return 1 ;; esac
  if [ "$KS_INV" != "$inv" ] || { [ "$pid" != 0 ] && ! ks_alive "$pid" "$start"; }; then
    KS_WHY="it was restarted again while it was watched: it crash-loops"
    return 1
  fi
}

# ks_proc_env PID KEY: sets KS_VALUE to the variable in the process's own environment; fails when it is not there.
ks_proc_env() {
  local line
  if [ -n "$KS_HANDS" ]; then
    line=0
    ks_hand environ "$1" "$2" || line=$?
    KS_VALUE=$KS_SAID
    [ $line = 2 ] || return $line
  fi
  KS_VALUE=$(tr '\000\n' '\n\001' <"/proc/$1/environ" 2>/dev/null | while IFS= read -r line; do
    case $line in "$2="*) printf '%s\n' "$line" ;; esac
  done)
  [ -n "$KS_VALUE" ] || return 1
  KS_VALUE=${KS_VALUE##*"$KS_NL"}
  KS_VALUE=${KS_VALUE#*=}
}

# ks_proc_file PID PATH: sets KS_SHA to what PATH holds in the process's own view.
ks_proc_file() {
  # What the process sees is its own to arrange: only a plain file is opened, and never for long.
  ks_get stat -L -c '%f' -- "/proc/$1/root$2" 2>/dev/null || return 1
  case $KS_GOT in 8???) ;; *) return 1 ;; esac
  if [ -n "$KS_HANDS" ] && ks_hand sight "/proc/$1/root$2"; then
    KS_SHA=$KS_SAID
    return 0
  fi
  KS_SHA=$(ks_bounded 10 sha256sum -- "/proc/$1/root$2" 2>/dev/null) || return 1
  KS_SHA=${KS_SHA#\\}
  KS_SHA=${KS_SHA%% *}
}

# ks_credentials PID: sets KS_USER, KS_GROUPS and KS_CAPS: what a process acts as, as words and hexadecimal digits. Empty when there
# is none.
ks_credentials() {
  local key first effective rest
  KS_USER='' KS_GROUPS='' KS_CAPS=
  if [ -n "$KS_HANDS" ]; then
    first=0
    ks_hand credentials "$1" || first=$?
    if [ $first != 2 ]; then
      KS_USER=${KS_SAID%% *} rest=${KS_SAID#* }
      KS_CAPS=${rest%% *} KS_GROUPS=${rest#* }
      return $first
    fi
  fi
  while read -r key first effective rest; do
    case $key in
      Uid:) KS_USER=$effective ;;
      Gid:) KS_GROUPS=$effective ;;
      Groups:) KS_GROUPS="$KS_GROUPS $first $effective $rest" ;;
      CapEff:) KS_CAPS=$first; return 0 ;;
    esac
  done 2>/dev/null <"/proc/$1/status"
  return 1
}

# ks_proc_check PID START SINCE KEY VALUE SHA: the running process is younger than the files, has the pointer, and can read
# the new credential where the pointer names it. KEY `-`: only its age is checked; SHA `-`: the file is not. Fails with KS_WHY.
ks_proc_check() {
  local i
  if [ "$2" -lt "$3" ]; then
    KS_WHY="process $1 is older than the new files: it was not restarted"
    return 1
  fi
  [ "$4" != - ] || return 0
  i=0
  # A process that was only just forked still shows its parent's environment.
  until ks_proc_env "$1" "$4" && [ "$KS_VALUE" = "$5" ]; do
    i=$((i + 1))
    if [ $i -gt 15 ] || ! ks_alive "$1" "$2"; then
      KS_WHY="$4 is not $5 in the environment of process $1"
      return 1
    fi
    sleep 0.1
  done
  [ "$6" != - ] || return 0
  ks_proc_file "$1" "$5" || {
    KS_WHY="process $1 does not see $5"
    return 1
  }
  if [ "$KS_SHA" != "$6" ]; then
    KS_WHY="process $1 sees other content in $5 than was placed (a file that is mounted by itself keeps its old content until the container is created anew)"
    return 1
  fi
  ks_readable "$1" "$5"
}

# ks_readable PID PATH: by owner, group and mode the process may enter the directories on the way to PATH, as it sees them, and read
# the file. Fails with KS_WHY. What they do not tell (capabilities, an access list) is not held against it.
ks_readable() {
  local pid at rest facts need mode owner group bits
  pid=$1 at=/proc/$1/root rest=${2#/}
  ks_credentials "$1" || return 0
  # One that may pass over modes: CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH.
  case $KS_CAPS in *[!0189]) return 0 ;; esac
  set -- "$at/"
  while :; do
    at=$at/${rest%%/*}
    set -- "$@" "$at"
    case $rest in */*) rest=${rest#*/} ;; *) break ;; esac
  done
  ks_get stat -L -c '%u %g %a' -- "$@" 2>/dev/null || return 0
  facts=$KS_GOT$KS_NL need=1
  for at; do
    mode=${facts%%"$KS_NL"*} facts=${facts#*"$KS_NL"}
    [ -n "$facts" ] || need=4
    owner=${mode%% *} mode=${mode#* }
    group=${mode%% *} mode=${mode#* }
    bits=000$mode
    bits=${bits#"${bits%???}"}
    if [ "$owner" = "$KS_USER" ]; then
      bits=${bits%??}
    else
      case " $KS_GROUPS " in
        *" $group "*) bits=${bits#?} bits=${bits%?} ;;
        *) bits=${bits#??} ;;
      esac
    fi
    [ $((bits / need % 2)) = 0 ] || continue
    ks_get ls -ldn -- "$at" 2>/dev/null
    case ${KS_GOT%% *} in *+) return 0 ;; esac
    at=${at#"/proc/$pid/root"}
    if [ $need = 4 ]; then need="read"; else need="enter"; fi
    KS_WHY="process $pid runs as user $KS_USER and cannot $need $at (user $owner, group $group, mode $mode)"
    return 1
  done
}
