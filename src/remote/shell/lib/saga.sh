# shellcheck shell=dash
# saga.sh - prepare, act, commit. What an act needs to be taken back lies synced on the host before the first act.
#
# $K/runs/RUN/undo is data: one record a line, quoted words, in the order of the undo, the last line `end`:
#   file STEP PATH SHA UID GID MODE SIZE POST          a file that was there
#   env STEP PATH SHA UID GID MODE SIZE FORMAT KEYS POSTS   an environment file; SHA `absent` if there was none
#   command STEP LIMIT SCRIPT                          the operator's way back
#   service STEP WAS HOLD LIMIT KIND A B COMMAND       a runner; HOLD in hundredths of a second
#   remove STEP PATH POST                              a file that was not there
#   rmdir STEP DIR                                     a directory that we made
#   backup STEP ID                                     a named backup that we made
# Beside it: pre.STEP (preimages), `ready` once all of this lay here whole (`void`: it was given up before), marks of acts
# that began, spare.STEP (blocks for the undo's own marks), `owner`, `session` (who prepares), `head`, `ended` (how it was
# let go last), and `manifest`, what the run is, for an operator who has no journal of it: a line, and then `end`.
# In the destination's directory a second link to the old file, .keyswap-RUN-old.STEP, is the undo's stage: putting it
# back needs neither space nor a free inode, and brings the very file back.

# ks_note FILE TEXT: a small synced file of the run.
ks_note() {
  printf '%s\n' "$2" >"$KS_RUN_DIR/$1" && sync "$KS_RUN_DIR/$1" "$KS_RUN_DIR" || ks_die write "cannot write in $KS_RUN_DIR"
}

# ks_spare: sets a block aside for each mark that an undo may have to make: it needs no space then.
ks_spare() {
  case $1 in command | service) ;; *) return 0 ;; esac
  printf '%-20s\n' - >"$KS_RUN_DIR/spare.$2" || ks_die write "cannot write in $KS_RUN_DIR"
}

# ks_spare_note FILE STEP TEXT: ks_note for undo, where the disk may be full: writes into the block that was set aside.
ks_spare_note() {
  local at
  at=$KS_RUN_DIR/spare.$2
  [ -e "$at" ] || at=$KS_RUN_DIR/$1
  printf '%-20s\n' "$3" 1<>"$at" && sync "$at" && { [ "$at" = "$KS_RUN_DIR/$1" ] || mv "$at" "$KS_RUN_DIR/$1"; } &&
    sync "$KS_RUN_DIR" || ks_die write "cannot write in $KS_RUN_DIR"
}

# ks_each FUNCTION [WORD]...: calls FUNCTION with these words and those of each undo record.
ks_each() {
  local records call
  call=$1
  shift
  ks_quote "$@"
  call=$call$KS_QUOTED
  ks_records
  records=$KS_RECORDS
  while [ -n "$records" ]; do
    eval "$call ${records%%"$KS_NL"*}"
    records=${records#*"$KS_NL"}
  done
}

# ks_records: sets KS_RECORDS to the records of the run's undo, a line each. A request reads them once: `read` takes a byte at a
# time.
ks_records() {
  local line
  [ "${KS_RECORDS_OF:-}" != "$KS_RUN_DIR" ] || return 0
  KS_RECORDS=
  [ -e "$KS_RUN_DIR/undo" ] || ks_die missing "$KS_RUN_DIR has no undo"
  while IFS= read -r line; do
    [ "$line" != end ] || { KS_RECORDS_OF=$KS_RUN_DIR; return 0; }
    KS_RECORDS=$KS_RECORDS$line$KS_NL
  done <"$KS_RUN_DIR/undo"
  ks_die refused "$KS_RUN_DIR/undo is not whole"
}

# ks_prepare RUN LEASE OWNER UNDO MANIFEST <BOTH: so many bytes each. Keeps the preimages, arms the host, then sets the
# stages. What fails before it is armed leaves nothing behind.
ks_prepare() {
  local rc out
  rc=0
  ks_run_dir "$1"
  out=$(ks_prepare_all "$@") || rc=$?
  if [ $rc != 0 ]; then
    PH=
    ks_cas_look && [ "$RUN" = "$1" ] || [ -e "$K/runs/$1/void" ] || ks_was_here || rm -rf "$K/runs/$1"
    # Another run was faster: that is the reason, also where its work showed before its lock did.
    case $PH in armed | undo) [ "$RUN" = "$1" ] || ks_held ;; esac
  fi
  printf '%s\n' "$out"
  return $rc
}

ks_prepare_all() {
  local seen
  ks_state_init
  ks_run_dir "$1"
  # Seen before anything is left here; the rename below decides.
  ks_cas_look
  case $PH in armed | undo | dirty) [ "$RUN" = "$1" ] || ks_held ;; esac
  # What lies here then belongs to a session that holds the host, or to the way back: nothing of it is written anew.
  [ "$RUN" != "$1" ] && [ ! -e "$KS_RUN_DIR/void" ] && ! ks_was_here || ks_too_late
  ks_seen
  seen=$KS_SEEN
  mkdir -p "$KS_RUN_DIR" || ks_die write "cannot write in $K/runs"
  ks_only_here
  [ ! -e "$KS_RUN_DIR/ready" ] || { rm -f "$KS_RUN_DIR/ready" && sync "$KS_RUN_DIR"; } || ks_die write "cannot write in $KS_RUN_DIR"
  ks_copy "$4" >"$KS_RUN_DIR/undo" && ks_copy "$5" >"$KS_RUN_DIR/manifest" &&
    printf '%s\n' "$3" >"$KS_RUN_DIR/owner" || ks_die write "cannot write in $KS_RUN_DIR"
  ks_get stat -c %s -- "$KS_RUN_DIR/undo" "$KS_RUN_DIR/manifest" && [ "$KS_GOT" = "$4$KS_NL$5" ] ||
    ks_die write "the way back did not arrive whole"
  # Each of these refuses an undo that is not whole.
  KS_SUMS=
  ks_each ks_preimage
  ks_each ks_spare
  [ -e "$K/since" ] || printf '%-24s\n' '- 0' >"$K/since" || ks_die write "cannot write in $K"
  ks_ticks
  printf '%s %s\n' "$KS_BOOT" "$KS_TICKS" >"$KS_RUN_DIR/since" || ks_die write "cannot write in $KS_RUN_DIR"
  cd "$KS_RUN_DIR" || ks_die write "cannot enter $KS_RUN_DIR"
  [ -z "$KS_SUMS" ] || sha256sum -c >/dev/null 2>&1 <<KS_EOT || ks_each ks_preimage_check
$KS_SUMS
KS_EOT
  [ "$2" = 0 ] || ks_guard_write
  set +f
  sync ./* . .. || ks_die write "cannot sync $KS_RUN_DIR"
  set -f
  [ ! -e guard ] || mv -f guard ../../guard.sh || ks_die write "cannot write in $K"
  # Only now: whoever finds this mark finds all the rest.
  printf '1\n' >ready && sync ready . ../.. || ks_die write "cannot write in $KS_RUN_DIR"
  [ "$2" = 0 ] || ks_boot_hook
  ks_arm "$1" "$2" "$seen"
  [ "$2" = 0 ] || ks_guard_start
  ks_each ks_stage
  ks_say prepared run "$1"
}

# ks_was_here: the run has held this host before, and acted or was settled: its way back lies here, whoever had the host since.
# A preparation that was cut off before it took hold leaves none of these marks, and is done again.
ks_was_here() {
  local mark
  set +f
  for mark in "$KS_RUN_DIR/head" "$KS_RUN_DIR/ended" "$KS_RUN_DIR"/started.* "$KS_RUN_DIR"/undone.* "$KS_RUN_DIR"/restarted.*; do
    [ -e "$mark" ] || continue
    set -f
    return 0
  done
  set -f
  return 1
}

# ks_only_here: of the sessions that would prepare the run, this one alone goes on. One that was cut off and is still at it would
# write over what we leave.
ks_only_here() {
  local boot owner
  ks_boot
  boot=
  [ ! -s "$KS_RUN_DIR/session" ] || read -r boot owner <"$KS_RUN_DIR/session"
  [ "$boot" != "$KS_BOOT" ] || [ "$owner" = "$KS_OWNER_SELF" ] || ks_fence "$owner"
  printf '%s %s\n' "$KS_BOOT" "$KS_OWNER_SELF" >"$KS_RUN_DIR/session" || ks_die write "cannot write in $KS_RUN_DIR"
}

ks_preimage() {
  case $1 in
    file | env)
      [ "$4" != absent ] || return 0
      ks_split "$3"
      ks_open "$KS_NAME" && ks_meta "$5" "$6" "$7" && [ "$KS_SIZE" -le 1048576 ] || ks_die conflict "$3 has changed since it was looked at"
      ks_copy <&6 >"$KS_RUN_DIR/pre.$2" || ks_die write "cannot keep the preimage of $3 in $KS_RUN_DIR"
      # All of them are proven together.
      KS_SUMS="$KS_SUMS${KS_SUMS:+$KS_NL}$4  pre.$2"
      ;;
    remove)
      ks_split "$3"
      ! ks_lstat "$KS_NAME" || ks_die conflict "$3 has appeared since it was looked at"
      ;;
  esac
}

# ks_preimage_check: which preimage is not what it should be, and why.
ks_preimage_check() {
  case $1 in file | env) [ "$4" != absent ] || return 0 ;; *) return 0 ;; esac
  ks_hex "$KS_RUN_DIR/pre.$2" && [ "$KS_SHA" = "$4" ] && return 0
  ks_split "$3"
  ks_content "$KS_NAME"
  [ "$KS_SHA" = "$4" ] || ks_die conflict "$3 has changed since it was looked at"
  ks_die write "cannot keep the preimage of $3 in $KS_RUN_DIR"
}

ks_stage() {
  local stage ino
  case $1 in file | env) ;; *) return 0 ;; esac
  [ "$4" != absent ] || return 0
  ks_split "$3"
  stage=.keyswap-$KS_RUN-old.$2
  [ ! -e "./$stage" ] && [ ! -L "./$stage" ] || rm -f "./$stage"
  # -T: a directory, or a link to one, that was planted there is not entered.
  ino=
  ! ln -T "./$KS_NAME" "./$stage" 2>/dev/null ||
    ! ks_get stat -c '%f %d:%i' -- "./$KS_NAME" "./$stage" 2>/dev/null || ino=${KS_GOT%%"$KS_NL"*}
  if [ -n "$ino" ] && [ "$ino" = "${KS_GOT#*"$KS_NL"}" ]; then
    :
  else
    ks_lstat "$KS_NAME" || ks_die conflict "$3 has gone since it was looked at"
    # No hard links here: set the blocks aside instead.
    rm -f "./$stage"
    ks_temp ".keyswap-$KS_RUN." "$7" "$5" "$6"
    [ "$8" = 0 ] || dd if=/dev/zero bs="$8" count=1 2>/dev/null >&5 || { rm -f "$KS_TEMP"; ks_unwritable "cannot set space aside in $PWD"; }
    sync /proc/self/fd/5
    mv -fT "$KS_TEMP" "./$stage" || ks_unwritable "cannot set space aside in $PWD"
    exec 5>&-
  fi
  sync . || ks_unwritable "cannot sync $PWD"
}

# ks_stage_again: sets a stage that a preparation did not get to, while the file still is as it was.
ks_stage_again() {
  case $1 in file | env) ;; *) return 0 ;; esac
  [ "$4" != absent ] || return 0
  ks_split "$3"
  ks_content "$KS_NAME"
  [ "$KS_SHA" != "$4" ] || ks_lstat ".keyswap-$KS_RUN-old.$2" || ks_stage "$@"
}

# ks_meta UID GID MODE: the facts that ks_lstat left are these.
ks_meta() {
  [ "$KS_OWN $KS_GRP $KS_MODE" = "$1 $2 $3" ]
}

# ks_act_write STEP PATH MODE UID GID PRE POST FILTER...: the common part of place, point and restore. FILTER writes the new
# content on descriptor 5; descriptor 6 is the present file.
ks_act_write() {
  local step path mode uid gid pre post
  step=$1 path=$2 mode=$3 uid=$4 gid=$5 pre=$6 post=$7
  shift 7
  ks_split "$path"
  ks_content "$KS_NAME"
  if [ "$KS_SHA" = "$post" ] && ks_meta "$uid" "$gid" "$mode"; then
    ks_say did step "$step" how already
    return 0
  fi
  [ "$KS_SHA" = "$pre" ] || ks_die conflict "$path is neither as it was nor as it should be: somebody else changed it"
  [ "$KS_SHA" != absent ] || exec 6</dev/null
  ks_temp ".keyswap-$KS_RUN." "$mode" "$uid" "$gid"
  "$@" || { rm -f "$KS_TEMP"; ks_unwritable "cannot write the new content of $path"; }
  ks_seal "$KS_NAME" "$post"
  ks_meta "$uid" "$gid" "$mode" || ks_die conflict "$path came out with other owner or mode"
  ks_touched
  ks_say did step "$step" how changed
}

# ks_touched: files changed just now: a process that is older has not seen them. Written in place: an undo does it too.
ks_touched() {
  ks_ticks
  printf '%s %-14s\n' "$KS_BOOT" "$KS_TICKS" 1<>"$K/since" || ks_die write "cannot write in $K"
}

# ks_place STEP PATH MODE UID GID PRE POST <VALUE
ks_place() {
  ks_act_write "$@" ks_copy_in
}
ks_copy_in() { ks_copy >&5; }

# ks_restore STEP PATH MODE UID GID PRE POST BACKUP: from a named backup.
ks_restore() {
  KS_FROM=$K/backups/$8/content
  [ -r "$KS_FROM" ] || ks_die missing "the backup $8 is gone"
  ks_act_write "$1" "$2" "$3" "$4" "$5" "$6" "$7" ks_copy_from
  : >"$K/backups/$8/restored" && sync "$K/backups/$8/restored" "$K/backups/$8" || ks_die write "cannot write in $K/backups"
}
ks_copy_from() { ks_copy <"$KS_FROM" >&5; }

# ks_point STEP PATH MODE UID GID PRE POST FORMAT KEY VALUE REMOVE
ks_point() {
  KS_FORMAT=$8 KS_KEY_ARG=$9
  local dir
  dir=${2%/*}
  if [ "$8" = dropin ] && [ ! -d "$dir" ]; then
    ks_enter "${dir%/*}"
    mkdir -m 755 "./${dir##*/}" || ks_unwritable "cannot make $dir"
    sync .
  fi
  KS_VALUE_ARG=${10} KS_REMOVE_ARG=${11}
  ks_act_write "$1" "$2" "$3" "$4" "$5" "$6" "$7" ks_edit_in
}
ks_edit_in() { ks_env_edit "$KS_FORMAT" "$KS_KEY_ARG" "$KS_VALUE_ARG" "$KS_REMOVE_ARG" </proc/self/fd/6 >&5; }

# ks_backup STEP PATH SHA FP ID: keeps a copy that outlives the run.
ks_backup() {
  local dir
  dir=$K/backups/$5
  if [ -r "$dir/meta" ]; then
    ks_say did step "$1" how already
    return 0
  fi
  mkdir -p "$dir" || ks_die write "cannot write in $K/backups"
  KS_FOUND=
  ks_each ks_backup_of "$2" "$3"
  if [ -z "$KS_FOUND" ] || ! ln -fT "$KS_RUN_DIR/pre.$KS_FOUND" "$dir/content" 2>/dev/null; then
    ks_split "$2"
    ks_content "$KS_NAME"
    [ "$KS_SHA" = "$3" ] || ks_die conflict "$2 has changed since it was looked at"
    ks_copy <&6 >"$dir/content" || ks_die write "cannot write in $K/backups"
    ks_hex "$dir/content" && [ "$KS_SHA" = "$3" ] || ks_die write "the backup in $dir is not whole"
  fi
  printf '%s\n%s\n%s\n%s %s %s\n' "$2" "$3" "$4" "$KS_OWN" "$KS_GRP" "$KS_MODE" >"$dir/meta.new" &&
    sync "$dir/content" "$dir/meta.new" && mv -f "$dir/meta.new" "$dir/meta" && sync "$dir" "$K/backups" ||
    ks_die write "cannot write in $K/backups"
  ks_say did step "$1" how changed
}

# ks_backup_of PATH SHA RECORD...: sets KS_FOUND to the step whose preimage is that very content of PATH, which was proven and
# synced when the host was prepared; and KS_OWN, KS_GRP, KS_MODE.
ks_backup_of() {
  [ "$3.$5.$6" = "file.$1.$2" ] || return 0
  KS_FOUND=$4 KS_OWN=$7 KS_GRP=$8 KS_MODE=$9
}

# ks_restart STEP WAS HOLD LIMIT KIND A B COMMAND KEY VALUE SHA DRAIN GONE [KEY VALUE SHA]...: restarts the runner and looks at
# its process: what it has, and that it has none of the variables GONE. What was stopped stays stopped. Twice is once: a process that is younger than our first attempt is the new one. DRAIN `yes`: a
# runner that works on a job is not touched.
ks_restart() {
  local step was hold limit kind a b command key value sha boot since fresh meanwhile
  step=$1 was=$2 hold=$3 limit=$4 kind=$5 a=$6 b=$7 command=$8 key=$9
  value=${10} sha=${11}
  if [ "$was" = no ]; then
    ks_svc_state "$kind" "$a" "$b"
    [ "$KS_ACTIVE" = no ] || ks_die conflict "the runner was stopped and is up now: somebody else started it"
    ks_say did step "$step" how stopped
    return 0
  fi
  fresh= boot=
  ks_boot
  # Times of another boot cannot be compared with those of this one: then it is restarted once more.
  [ ! -s "$KS_RUN_DIR/started.$step" ] || read -r boot since <"$KS_RUN_DIR/started.$step"
  if [ "$boot" = "$KS_BOOT" ]; then
    ks_svc_state "$kind" "$a" "$b"
    [ "$KS_ACTIVE" = yes ] && [ "$KS_PID" != 0 ] && ks_pid "$KS_PID" && [ "$KS_START" -ge "$since" ] && fresh=1
  fi
  if [ -z "$fresh" ] && [ "${12}" = yes ]; then
    ks_busy "$kind" "$a" "$b"
    ks_tail "$KS_JOBS"
    [ -z "$KS_TAIL" ] || ks_die busy "the runner works on $KS_TAIL"
  fi
  if [ "$boot" != "$KS_BOOT" ]; then
    ks_ticks
    since=$KS_TICKS
    ks_note "started.$step" "$KS_BOOT $since"
  fi
  if [ -z "$fresh" ]; then
    # A job may still begin before the order arrives: nobody waits for it then, but it is told.
    rm -f "$KS_RUN_DIR/meanwhile.$step" "$KS_RUN_DIR/ended.$step"
    # Of a program that is not known as a runner nothing could be told. It has hands of its own: ours serve one at a time.
    case "${12} $KS_LOOKED " in
      'yes '*' processes '*)
        ks_with_hands ks_jobs_meanwhile "$step" "$KS_PID" "$limit" </dev/null >/dev/null 2>&1 5>&- 6>&- 7>&- 8>&- 9<&- &
        ;;
    esac
    ks_svc_do restart "$limit" "$kind" "$a" "$b" "$command"
    printf '' 2>/dev/null >"$KS_RUN_DIR/ended.$step" || :
    if [ "$KS_RC" != 0 ]; then
      ks_tail "$KS_OUT"
      if [ "$KS_RC" = 124 ] || [ "$KS_RC" = 137 ]; then
        ks_die service "the restart did not end within $limit s${KS_TAIL:+: $KS_TAIL}"
      fi
      ks_die service "the restart failed with status $KS_RC${KS_TAIL:+: $KS_TAIL}"
    fi
  fi
  ks_svc_steady "$hold" "$since" "$kind" "$a" "$b" || ks_die service "after the restart $KS_WHY"
  meanwhile=
  [ ! -s "$KS_RUN_DIR/meanwhile.$step" ] || read -r meanwhile <"$KS_RUN_DIR/meanwhile.$step"
  if [ "$KS_PID" = 0 ]; then
    ks_say did step "$step" how changed process unchecked cut "$meanwhile"
    return 0
  fi
  ks_proc_check "$KS_PID" "$KS_START" "$since" "$key" "$value" "$sha" || ks_die service "$KS_WHY"
  for key in ${13}; do
    ! ks_proc_env "$KS_PID" "$key" || ks_die service "$key is still in the environment of process $KS_PID"
  done
  shift 13
  while [ $# -ge 3 ]; do
    ks_proc_check "$KS_PID" "$KS_START" "$since" "$1" "$2" "$3" || ks_die service "$KS_WHY"
    shift 3
  done
  ks_say did step "$step" how changed process "$KS_PID-$KS_START" cut "$meanwhile"
}

# ks_command STEP LIMIT SCRIPT: an operator's command. Started alone is unknown: it is never run a second time.
ks_command() {
  if [ -e "$KS_RUN_DIR/started.$1" ]; then
    [ -e "$KS_RUN_DIR/finished.$1" ] || ks_die command "it was started before, and how it ended is not known"
    ks_say did step "$1" how already
    return 0
  fi
  ks_note "started.$1" 1
  ks_user "$2" "$KS_RUN_DIR" "$3"
  ks_tail "$KS_OUT"
  [ "$KS_RC" != 124 ] || ks_die command "it did not end within $2 s${KS_TAIL:+: $KS_TAIL}"
  [ "$KS_RC" = 0 ] || ks_die command "it exits with status $KS_RC${KS_TAIL:+: $KS_TAIL}"
  ks_note "finished.$1" 1
  ks_say did step "$1" how changed output "$KS_TAIL"
}

# ks_peek LIMIT SCRIPT: a command that changes nothing.
ks_peek() {
  local dir
  # The run's own directory, where the host is held.
  dir=
  [ -n "${KS_RUN_DIR:-}" ] || { dir=$(mktemp -d) && KS_RUN_DIR=$dir; } || ks_die write "cannot make a temporary directory"
  ks_user "$1" "$KS_RUN_DIR" "$2"
  [ -z "$dir" ] || rm -rf "$dir"
  ks_tail "$KS_OUT"
  [ "$KS_RC" != 124 ] || ks_die timeout "it did not end within $1 s${KS_TAIL:+: $KS_TAIL}"
  [ "$KS_RC" = 0 ] || ks_die command "it exits with status $KS_RC${KS_TAIL:+: $KS_TAIL}"
  ks_say did how ok output "$KS_TAIL"
}

# ks_exec LIMIT SCRIPT: an operator's ad-hoc command. How it ended is the answer, and never a failure of the request. What it
# says is kept in memory where there is such a place, so that one can look at a full disk.
ks_exec() {
  local t0 cut timeout line
  KS_RUN_DIR=$(TMPDIR=/dev/shm mktemp -d 2>/dev/null) || KS_RUN_DIR=$(mktemp -d) || ks_die write "cannot make a temporary directory"
  ks_uptime
  t0=$KS_UP
  ks_user "$1" "$KS_RUN_DIR" "$2" 65
  ks_uptime
  rm -rf "$KS_RUN_DIR"
  cut=no timeout=no
  [ ${#KS_OUT} -le 65536 ] || cut=yes
  # A program may end with these by itself.
  case $KS_RC in 124 | 137) [ $((KS_UP - t0)) -lt $(($1 * 100)) ] || timeout=yes ;; esac
  # The end of the substitution's output is where the lines end: what lacks a line end gets one.
  [ -z "$KS_OUT" ] || printf '%s\n' "$KS_OUT" | tr '\t' ' ' | while IFS= read -r line; do
    ks_say out text "$line"
  done
  ks_say ran status "$KS_RC" timeout "$timeout" cut "$cut"
}

# ks_wait LIMIT KIND WORD: until a file is there, a port of the loopback address answers, or a command exits 0.
ks_wait() {
  local t0
  ks_uptime
  t0=$KS_UP
  while :; do
    case $2 in
      path) [ ! -e "$3" ] || break ;;
      port) ks_port "$3" && break ;;
      command)
        KS_RUN_DIR=$(mktemp -d) || ks_die write "cannot make a temporary directory"
        ks_user 30 "$KS_RUN_DIR" "$3"
        rm -rf "$KS_RUN_DIR"
        [ "$KS_RC" != 0 ] || break
        ;;
    esac
    ks_uptime
    [ $((KS_UP - t0)) -lt $(($1 * 100)) ] || ks_die timeout "$2 $3 did not come within $1 s"
    sleep 0.2
  done
  ks_say did how ok
}

# ks_port PORT: somebody listens on it (on 127.0.0.1, ::1 or every address).
ks_port() {
  local hex line n addr rest
  hex=$(printf '%04X' "$1")
  # shellcheck disable=SC2034
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r n addr rest; do
    case $addr:$rest in
      0100007F:"$hex":*' 0A '* | 00000000:"$hex":*' 0A '* | 00000000000000000000000000000000:"$hex":*' 0A '* | 00000000000000000000000001000000:"$hex":*' 0A '*) echo yes ;;
    esac
  done | grep -q yes
}

# ks_commit RUN HEAD LEASE RUNNER: every file is as the run should leave it, and, with RUNNER `up`, so is the runner; then the host
# is new, and the stages go.
ks_commit() {
  ks_cas_look
  if [ "$PH.$RUN" != "new.$1" ]; then
    ks_own "$1" "$2" "$3"
    ks_each ks_check_post "$4"
    ks_release new "$1"
    ks_guard_remove
  fi
  ks_run_dir "$1"
  ks_each ks_unstage
  ks_say committed run "$1"
}

# ks_check_post RUNNER RECORD...
ks_check_post() {
  local want runner
  runner=$1
  shift
  case $1 in
    file) want=$9 ;;
    remove) want=$4 ;;
    env) want=${11##* } ;;
    service)
      # It may have ended since it was looked at: by itself, or with the session that had started it.
      [ "$3.$runner" = yes.up ] || return 0
      ks_svc_state "$6" "$7" "$8"
      case $KS_ACTIVE in yes | unknown) return 0 ;; esac
      ks_tail "$KS_DETAIL"
      ks_die service "the runner is not up any more${KS_TAIL:+ ($KS_TAIL)}"
      ;;
    *) return 0 ;;
  esac
  ks_split "$3"
  ks_content "$KS_NAME"
  [ "$KS_SHA" = "$want" ] || ks_die conflict "$3 is not as the run left it"
}

ks_unstage() {
  case $1 in file | env | remove) ;; *) return 0 ;; esac
  ks_split "$3"
  ks_sweep ".keyswap-$KS_RUN" || ks_unwritable "cannot clean up in $PWD"
  sync .
}

# ks_now RUN [PATH]...: what each credential file of the run holds, also where it could not be replaced, and each PATH.
ks_now() {
  local path
  ks_run_dir "$1"
  shift
  for path; do ks_now1 path - "$path"; done
  ks_void || [ ! -e "$KS_RUN_DIR/undo" ] || ks_each ks_now1
}

ks_now1() {
  case $1 in file | remove | path) ;; *) return 0 ;; esac
  # What cannot be read is not said.
  (
    ks_see "$3"
    ks_say now path "$3" fp "$KS_FP"
  ) || :
}
