# shellcheck shell=dash
# look.sh - reading only: what a host is, and how the things stand that a run would change.

# ks_hello: what this host is and what it has.
ks_hello() {
  local tool have missing phase machine sh os guard by busy head
  ks_boot
  have= missing=
  # The programs are what is asked for; in this request nobody stands in for them.
  # shellcheck disable=SC2086
  [ -z "$KS_HANDS" ] || unset -f $KS_HANDS_FOR
  for tool in sha256sum stat mktemp sync mv dd timeout readlink chown chmod cat tail tr ln df od id rm mkdir rmdir ls date \
    sleep grep; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
  done
  for tool in systemctl docker podman docker-compose setsid systemd-run lsattr chcon setfattr crond cron mkfifo setfacl perl find head sort cut getent; do
    command -v "$tool" >/dev/null 2>&1 && have="$have $tool"
  done
  for tool in "${HOME:-/root}/.docker" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker; do
    [ ! -x "$tool/cli-plugins/docker-compose" ] || { have="$have compose"; break; }
  done
  [ ! -d /run/systemd/system ] || have="$have systemd"
  machine=-
  # shellcheck disable=SC2015
  [ -r "${KS_MACHINE_FILE:-/etc/machine-id}" ] && read -r machine <"${KS_MACHINE_FILE:-/etc/machine-id}" || :
  sh='sh'
  [ -z "${BASH_VERSION:-}" ] || sh=bash
  os=
  while IFS= read -r phase; do
    case $phase in PRETTY_NAME=*) os=${phase#*=}; os=${os#\"}; os=${os%\"} ;; esac
  done </etc/os-release 2>/dev/null
  phase=none RUN=- E=0
  [ ! -d "$K/cas" ] || { ks_state_check; ks_cas_look && phase=$PH; }
  by=-
  [ ! -r "$K/runs/$RUN/owner" ] || read -r by <"$K/runs/$RUN/owner"
  head=
  [ ! -r "$K/runs/$RUN/head" ] || read -r head <"$K/runs/$RUN/head"
  guard=no
  [ ! -e "$K/runs/$RUN/guard.log" ] || guard=yes
  busy=no
  [ "$phase" != armed ] || [ "$BT" != "$KS_BOOT" ] || ! ks_owner_alive || busy=yes
  ks_uptime
  # shellcheck disable=SC2153
  ks_say hello login_uid "${SUDO_UID:-$KS_UID}" uid "$KS_UID" gid "$KS_GID" login "${SUDO_USER:-${DOAS_USER:-$(id -un)}}" shell "$sh" os "$os" machine "$machine" \
    boot "$KS_BOOT" uptime "$KS_UP" state "$K" phase "$phase" run "$RUN" epoch "$E" by_guard "$guard" by "$by" busy "$busy" head "$head" \
    missing "${missing# }" have "${have# }"
}

# ks_recorded RUN: what this host keeps of its runs, a line each: of all of them (`-`), or of one, with its manifest.
ks_recorded() {
  local want dir held ended head manifest
  want=$1
  [ -d "$K/runs" ] || return 0
  ks_state_check
  set +f
  set -- "$K"/runs/*
  set -f
  for dir in "$@"; do
    [ "$want" = - ] || [ "$want" = "${dir##*/}" ] || continue
    [ -d "$dir" ] || continue
    held=no ended='' head='' manifest=''
    [ ! -e "$dir/ready" ] || held=yes
    [ ! -r "$dir/ended" ] || read -r ended <"$dir/ended"
    [ ! -r "$dir/head" ] || read -r head <"$dir/head"
    [ "$want" = - ] || [ ! -r "$dir/manifest" ] || IFS= read -r manifest <"$dir/manifest"
    ks_say recorded run "${dir##*/}" held "$held" ended "$ended" head "$head" manifest "$manifest"
  done
}

# ks_fp: sets KS_FP to the fingerprint of the content that is open on descriptor 6: without one trailing line end.
ks_fp() {
  local line last lines bytes
  KS_FP=$KS_PRINT
  [ -z "$KS_FP" ] || return 0
  # A token is one short line: it needs no program to be looked at.
  if [ "$KS_SIZE" -le 4096 ]; then
    lines=0 bytes=0 last=
    while IFS= read -r line; do
      lines=$((lines + 1)) bytes=$((bytes + ${#line} + 1)) last=$line
    done </proc/self/fd/6
    # Zeros are dropped by the shell: the long way tells.
    if [ $((bytes + ${#line})) = "$KS_SIZE" ]; then
      case $lines.$line in
        1.) ks_digest "${last%"$KS_CR"}"; KS_FP=$KS_DIGEST; return ;;
        *.?*) KS_FP=$KS_SHA; return ;;
      esac
    fi
  fi
  bytes=0
  case $(tail -c 2 /proc/self/fd/6 | od -An -tx1) in
    *0d?0a) bytes=2 ;;
    *0a) bytes=1 ;;
  esac
  KS_FP=$KS_SHA
  if [ $bytes != 0 ]; then
    KS_FP=$(dd if=/proc/self/fd/6 bs=$((KS_SIZE - bytes)) count=1 iflag=fullblock 2>/dev/null | sha256sum)
    KS_FP=${KS_FP%% *}
  fi
}

# ks_ids OWNER GROUP: sets KS_WANT_UID and KS_WANT_GID; `-` means: unchanged, else ours.
ks_ids() {
  local name pass gid rest
  case $1 in
    -) KS_WANT_UID=${KS_OWN:-$KS_UID} ;;
    *[!0-9]*) KS_WANT_UID=$(id -u -- "$1" 2>/dev/null) || ks_die refused "there is no user $1 on this host" ;;
    *) KS_WANT_UID=$1 ;;
  esac
  case $2 in
    -) KS_WANT_GID=${KS_GRP:-$KS_GID} ;;
    *[!0-9]*)
      KS_WANT_GID=
      # shellcheck disable=SC2034
      while IFS=: read -r name pass gid rest; do
        [ "$name" != "$2" ] || KS_WANT_GID=$gid
      done </etc/group
      [ -n "$KS_WANT_GID" ] || KS_WANT_GID=$(getent group "$2" 2>/dev/null | cut -d: -f3)
      [ -n "$KS_WANT_GID" ] || ks_die refused "there is no group $2 on this host"
      ;;
    *) KS_WANT_GID=$2 ;;
  esac
}

# ks_facts PATH: enters PATH's directory and gathers KS_SHA, KS_FP, KS_OWN and so on; KS_SHA is `absent` when there is no file.
ks_facts() {
  ks_split "$1"
  KS_SIZE=0 KS_OWN='' KS_GRP='' KS_MODE='' KS_LINKS=0 KS_FP=absent
  ks_content "$KS_NAME"
  KS_AT=${KS_HERE%/}/$KS_NAME
  if [ "$KS_SHA" = absent ]; then
    ks_room
    return 0
  fi
  [ "$KS_LINKS" = 1 ] || ks_die refused "$KS_AT has $KS_LINKS hard links: a rename would part them"
  ! ks_mountpoint "$KS_AT" || ks_die refused "$KS_AT is mounted by itself: it cannot be replaced by a rename"
  ks_get ls -ldn -- "./$KS_NAME"
  case ${KS_GOT%% *} in *+) ks_die refused "$KS_AT has an access control list, which a replacement would lose" ;; esac
  ks_room "$KS_NAME"
}

# ks_room [NAME]: the working directory can take a new file of a few kilobytes, and NAME can be replaced by it.
ks_room() {
  ks_blocked "${1:-}"
  case $KS_FLAGS in *i*) ks_die refused "$KS_AT is immutable (chattr -i $KS_AT)" ;; esac
  [ -z "$KS_WHY" ] || ks_die refused "cannot write in $PWD: $KS_WHY" fix "$KS_FIX"
  [ "$KS_UID" = 0 ] || [ -w . ] || ks_die refused "user $KS_UID cannot write in $PWD, which belongs to user $(stat -c '%u' .)"
}

# ks_look_file N PATH OWNER GROUP
ks_look_file() {
  ks_facts "$2"
  [ "$KS_SHA" = absent ] || ks_fp
  ks_ids "$3" "$4"
  if [ "$KS_UID" != 0 ] && [ "$KS_WANT_UID" != "$KS_UID" ]; then
    ks_die refused "only root can give $KS_AT to user $KS_WANT_UID; set become"
  fi
  KS_CLAIMS=
  [ "$KS_SHA" = absent ] || ks_claims
  # shellcheck disable=SC2086
  ks_say file n "$1" claims "$KS_CLAIMS" path "$KS_AT" sha "$KS_SHA" fp "$KS_FP" size "$KS_SIZE" uid "$KS_OWN" gid "$KS_GRP" mode "$KS_MODE" \
    want_uid "$KS_WANT_UID" want_gid "$KS_WANT_GID" $KS_FREE
}

# ks_look_env N PATH FORMAT [KEY VALUE REMOVE]...: facts of the file, and its digest after each of the edits. A value comes
# home only when it is a plain path: anything else may be a secret.
ks_look_env() {
  local n format facts post edits key value remove fp
  n=$1 format=$3
  post=${2%/*}
  if [ "$format" = dropin ] && [ ! -d "$post" ]; then
    ks_enter "${post%/*}"
    ks_room
    KS_AT=$2 KS_SHA=absent KS_SIZE=0 KS_OWN='' KS_GRP='' KS_MODE=''
    facts=$post
  else
    ks_facts "$2"
    facts=-
  fi
  [ "$KS_SIZE" -le 262144 ] || ks_die refused "$KS_AT is too large for an environment file"
  shift 3
  [ "$KS_SHA" != absent ] || command exec 6</dev/null
  # shellcheck disable=SC2086
  ks_say env n "$n" path "$KS_AT" sha "$KS_SHA" size "$KS_SIZE" uid "$KS_OWN" gid "$KS_GRP" mode "$KS_MODE" mkdir "$facts" $KS_FREE
  edits=
  while [ $# -ge 3 ]; do
    key=$1 value=$2 remove=$3
    shift 3
    ks_env_look "$format" "$key" "$remove" </proc/self/fd/6
    # The shell drops zeros.
    [ "$KS_BYTES" = "$KS_SIZE" ] || ks_die refused "$KS_AT holds NUL bytes, or was changed just now"
    [ -z "$KS_BAD" ] || ks_die refused "$KS_AT cannot be edited by line: $KS_BAD"
    case $KS_OLD in
      /*[!A-Za-z0-9_@%+=:,./-]*) KS_OLD='(not shown)' ;;
      /* | '') ;;
      *) KS_OLD='(not shown)' ;;
    esac
    fp=
    case $KS_OLD in /*) fp=$(ks_see "$KS_OLD" 2>/dev/null && printf %s "$KS_FP") || fp= ;; esac
    ks_quote "$key" "$value" "$remove"
    edits="$edits $KS_QUOTED"
    post=$(eval "ks_env_chain $format $edits" </proc/self/fd/6; echo x)
    ks_digest "${post%x}"
    ks_say edit n "$n" key "$key" count "$KS_COUNT" old "$KS_OLD" old_fp "$fp" gone "$KS_GONE" held "${KS_CREDENTIALS# }" post "$KS_DIGEST"
  done
}

# ks_quote WORD...: sets KS_QUOTED to words for eval. Only for words without a single quote, which keys, paths and values here
# never have.
ks_quote() {
  local word
  KS_QUOTED=
  for word; do
    case $word in *\'*) ks_die refused "a quote in $word" ;; esac
    KS_QUOTED="$KS_QUOTED '$word'"
  done
}

# ks_looks CALL...: probes and surveys, which only read. A refusal does not end the others; one process serves all of them
# until one is refused.
ks_looks() {
  local all said left
  all=$#
  while [ $# -gt 0 ]; do
    said=$(
      while [ $# -gt 0 ]; do
        eval "$1" || exit
        shift
        ks_say looked left $#
      done
    ) && set --
    [ -z "$said" ] || printf '%s\n' "$said"
    [ $# -gt 0 ] || return 0
    left=$#
    case $said in *"looked${KS_TAB}left="*) left=${said##*"looked${KS_TAB}left="} left=${left%%"$KS_NL"*} ;; esac
    ks_say refused n $((all - left))
    shift $(($# - left + 1))
  done
}

# ks_stale START: files were changed after that process started, by keyswap, in this boot.
ks_stale() {
  local boot since
  [ -r "$K/since" ] && read -r boot since <"$K/since" || return 1
  ks_boot
  [ "$boot" = "$KS_BOOT" ] && [ "$1" -lt "$since" ]
}

# ks_look_service N KIND A B KEY VALUE SHA: KEY `-`: the process's environment is not looked at.
ks_look_service() {
  local stale pointed
  KS_RUN_DIR=
  if [ "$2" = command ] && [ "$3" != - ]; then
    KS_RUN_DIR=$(mktemp -d) || ks_die write "cannot make a temporary directory"
  fi
  ks_svc_state "$2" "$3" "$4"
  [ -z "$KS_RUN_DIR" ] || rm -rf "$KS_RUN_DIR"
  KS_START=0
  [ "$KS_PID" = 0 ] || ks_pid "$KS_PID" || KS_START=0
  ks_reach "$KS_PID"
  stale=no pointed=unknown
  if [ "$KS_START" != 0 ]; then
    ! ks_stale "$KS_START" || stale=yes
    if [ "$5" != - ]; then
      pointed=no
      if ks_proc_env "$KS_PID" "$5" && [ "$KS_VALUE" = "$6" ]; then
        [ "$7" = - ] || { ks_proc_file "$KS_PID" "$6" && [ "$KS_SHA" = "$7" ]; } && pointed=yes
      fi
    fi
  fi
  ks_tail "$KS_DETAIL"
  ks_say service n "$1" active "$KS_ACTIVE" pid "$KS_PID" start "$KS_START" stale "$stale" pointed "$pointed" detail "$KS_TAIL" \
    owner "$KS_USER" groups "$KS_GROUPS" here "$KS_HERE" sockets "${KS_SOCKETS# }"
}

# ks_look_backups N PATH: the named backups of PATH, oldest first; and the one that was put back last.
ks_look_backups() {
  local d at sha fp meta restored
  ks_split "$2"
  at=${KS_HERE%/}/$KS_NAME
  [ -d "$K/backups" ] || return 0
  ks_state_check
  set +f
  for d in "$K"/backups/*/; do
    set -f
    d=${d%/}
    [ -r "$d/meta" ] || continue
    meta=
    { IFS= read -r KS_LINE && IFS= read -r sha && IFS= read -r fp && IFS= read -r meta; } <"$d/meta"
    [ "$KS_LINE" = "$at" ] || continue
    restored=no
    [ ! -e "$d/restored" ] || restored=yes
    ks_say backup n "$1" id "${d##*/}" sha "$sha" fp "$fp" meta "$meta" restored "$restored"
  done
  set -f
}

# ks_look_room N: what is free on the file system of the state directory, or of the nearest directory above it that is there.
ks_look_room() {
  local dir
  dir=$K
  while [ ! -d "$dir" ]; do dir=${dir%/*} && dir=${dir:-/}; done
  cd "$dir" || ks_die refused "cannot enter $dir"
  ks_blocked
  # How full it is, is told by the numbers.
  case $KS_WHY in '' | 'no '*) ;; *) ks_die refused "cannot write in $dir: $KS_WHY" fix "$KS_FIX" ;; esac
  [ "$KS_UID" = 0 ] || [ -w . ] || ks_die refused "user $KS_UID cannot write in $dir"
  [ -n "$KS_FREE" ] || ks_die refused "it cannot be told what is free in $dir"
  # shellcheck disable=SC2086
  ks_say room n "$1" $KS_FREE
}

# ks_reach PID: sets KS_USER and KS_GROUPS, whose a process is (empty when there is none), KS_HERE, whether it sees the host's own
# files, and KS_SOCKETS, the container engines' sockets that it sees, as OWNER.GROUP.MODE.
ks_reach() {
  local here socket
  KS_USER='' KS_GROUPS='' KS_HERE=no KS_SOCKETS=''
  [ "$1" != 0 ] && ks_credentials "$1" || return 0
  ks_get stat -L -c %d.%i / && here=$KS_GOT && ks_get stat -L -c %d.%i "/proc/$1/root/" && [ "$KS_GOT" = "$here" ] && KS_HERE=yes
  for socket in run/docker.sock var/run/docker.sock run/podman/podman.sock; do
    socket=/proc/$1/root/$socket
    [ ! -S "$socket" ] || { ks_get stat -L -c %u.%g.%a -- "$socket" && KS_SOCKETS="$KS_SOCKETS $KS_GOT"; }
  done
}
