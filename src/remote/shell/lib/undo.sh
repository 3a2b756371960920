# shellcheck shell=dash
# undo.sh - the way back, from data alone: the same code for the controller's rollback and for the host's own guard.
#
# Records come in the order content, pointer, command, runner, new paths, backup. A record looks first: as it was = nothing to do;
# as we left it = put back; anything else = somebody else's work, which is not destroyed. Once a kind has failed, the later
# kinds, which build on it, are skipped. All of it may run twice.

KS_FIRED=

# ks_undo RUN: takes the run back and settles the host as old or dirty. The caller has proven that it holds the host.
ks_undo() {
  KS_FAILED=0 KS_DIRTY=
  ks_void || ks_each ks_undo_one
  ks_cas_look
  [ "$RUN.$OWN.$BT" = "$1.$KS_OWNER_SELF.$KS_BOOT" ] || ks_die fenced "this session no longer holds the host" run "$RUN" phase "$PH"
  if [ -z "$KS_DIRTY" ]; then ks_release old "$1"; else ks_release dirty "$1"; fi
  # A guard that could not finish tries again, also after a reboot.
  [ -n "$KS_DIRTY" ] && [ -n "$KS_FIRED" ] || ks_guard_remove
  ks_say settled phase "${KS_DIRTY:-old}" run "$1"
}

ks_undo_one() {
  local rank out line
  case $1 in
    file) rank=1 ;;
    env) rank=2 ;;
    command) rank=3 ;;
    service) rank=4 ;;
    remove | rmdir) rank=5 ;;
    backup) rank=6 ;;
    *) ks_die refused "an undo record of a newer keyswap: $1" ;;
  esac
  if [ "$KS_FAILED" != 0 ] && [ "$KS_FAILED" -lt $rank ]; then
    KS_DIRTY=dirty
    ks_say undone kind "$1" step "$2" status skipped message "something before it could not be put back"
    return 0
  fi
  if out=$(ks_undo_"$1" "$@" 2>&1); then
    line=${out##*"$KS_NL"}
    ks_say undone kind "$1" step "$2" status "${line%% *}" message "${line#* }"
    return 0
  fi
  KS_DIRTY=dirty
  [ "$KS_FAILED" != 0 ] || KS_FAILED=$rank
  line=${out##*"${KS_NL}fail$KS_TAB"}
  line=${line#"fail$KS_TAB"}
  line=${line%%"$KS_NL"*}
  case $line in
    class=*) ;;
    *) ks_tail "$out"; line="class=broken${KS_TAB}message=$KS_TAIL" ;;
  esac
  printf 'undone\tkind=%s\tstep=%s\tstatus=failed\t%s\n' "$1" "$2" "$line"
}

# file STEP PATH SHA UID GID MODE SIZE POST
ks_undo_file() {
  ks_put_back "$2" "$3" "$4" "$5" "$6" "$7" "$9"
}

# ks_tidy STEP: removes what a record left beside its file: new files that never got their name, its stage, and the file of
# somebody who mended it by hand. The stages of other records in the same directory are still needed. Synced: a second name of
# the old credential must not come back with the power.
ks_tidy() {
  ks_sweep ".keyswap-$KS_RUN." && ks_clear "./.keyswap-$KS_RUN-old.$1" "./.keyswap-$KS_RUN-mend.$1" || ks_unwritable "cannot clean up in $PWD"
  sync . || ks_unwritable "cannot sync $PWD"
}

# ks_put_back STEP PATH SHA UID GID MODE POSTS: the preimage comes back if the file is as it was or as we left it.
ks_put_back() {
  ks_split "$2"
  ks_content "$KS_NAME"
  if [ "$KS_SHA" = "$3" ] && ks_meta "$4" "$5" "$6"; then
    ks_tidy "$1"
    echo "ok $2 is as it was"
    return 0
  fi
  case " $3 $7 absent " in
    *" $KS_SHA "*) ;;
    *) ks_die conflict "$2 is neither as it was nor as the run left it: somebody else changed it" ;;
  esac
  ks_put_stage "$1" "$3" || ks_put_copy "$1" "$3" "$4" "$5" "$6"
  ks_content "$KS_NAME"
  [ "$KS_SHA" = "$3" ] || ks_unwritable "$2 could not be put back" "$KS_NAME"
  # Only the mode or the owner was another.
  ks_meta "$4" "$5" "$6" || { chown "$4:$5" /proc/self/fd/6 && chmod "$6" /proc/self/fd/6 && sync .; } || ks_unwritable "owner and mode of $2 could not be put back"
  ks_tidy "$1"
  ks_touched
  echo "changed $2 put back"
}

# ks_put_stage STEP SHA: renames the stage over ./$KS_NAME if it still is the old file.
ks_put_stage() {
  local stage
  stage=.keyswap-$KS_RUN-old.$1
  ks_lstat "$stage" && [ "$KS_TYPE" = f ] || return 1
  ks_open "$stage"
  ks_sum && [ "$KS_SHA" = "$2" ] || return 1
  mv -fT "./$stage" "./$KS_NAME" 2>/dev/null || ks_unwritable "$PWD/$KS_NAME could not be put back" "$KS_NAME"
  sync .
}

# ks_put_copy STEP SHA UID GID MODE: writes the preimage: into the stage's own blocks where they were set aside, else anew, as
# where the stage has become longer: its end would stay.
ks_put_copy() {
  local pre stage size
  pre=$KS_RUN_DIR/pre.$1
  stage=.keyswap-$KS_RUN-old.$1
  ks_hex "$pre" && [ "$KS_SHA" = "$2" ] || ks_die missing "the preimage $pre is not whole"
  ks_get stat -c %s -- "$pre" || ks_die missing "the preimage $pre is gone"
  size=$KS_GOT
  # Judged is what was opened: a name may be given to another file at any time.
  if ks_lstat "$stage" && [ "$KS_TYPE" = f ] && ks_open "$stage" && [ "$KS_LINKS" = 1 ] && [ "$KS_SIZE" -le "$size" ] && ks_meta "$3" "$4" "$5"; then
    command exec 5<>/proc/self/fd/6 || ks_unwritable "cannot write in $PWD" "$stage"
    KS_TEMP=./$stage KS_TEMP_INO=$KS_INO
  else
    ks_temp ".keyswap-$KS_RUN." "$5" "$3" "$4"
  fi
  ks_copy <"$pre" >&5 || { rm -f "$KS_TEMP"; ks_unwritable "cannot write in $PWD"; }
  ks_seal "$KS_NAME" "$2"
}

# env STEP PATH SHA UID GID MODE SIZE FORMAT KEYS POSTS
ks_undo_env() {
  local step path sha format keys posts
  step=$2 path=$3 sha=$4 format=$9 keys=${10} posts=${11}
  if [ "$sha" = absent ] && [ ! -d "${path%/*}" ]; then
    echo "ok $path is absent, as it was"
    return 0
  fi
  ks_split "$path"
  ks_content "$KS_NAME"
  case " $sha $posts absent " in
    *" $KS_SHA "*)
      if [ "$sha" = absent ]; then
        ks_remove "$path" "$posts"
      else
        ks_put_back "$step" "$path" "$sha" "$5" "$6" "$7" "$posts"
      fi
      return
      ;;
  esac
  # Somebody else edited it meanwhile: only our lines go back. The shell drops zeros.
  ks_env_look "$format" - '' </proc/self/fd/6
  [ "$KS_BYTES" = "$KS_SIZE" ] || ks_die conflict "$path was changed by somebody else and holds NUL bytes: it cannot be edited by line"
  KS_PRE=$KS_RUN_DIR/pre.$step
  [ "$sha" != absent ] || KS_PRE=absent
  KS_POST=$(ks_env_reverted </proc/self/fd/6 | sha256sum)
  KS_POST=${KS_POST%% *}
  if [ "$KS_POST" = "$KS_SHA" ]; then
    ks_tidy "$step"
    echo "ok the lines of $keys in $path are as they were"
    return 0
  fi
  ks_temp ".keyswap-$KS_RUN." "$KS_MODE" "$KS_OWN" "$KS_GRP"
  ks_env_reverted </proc/self/fd/6 >&5 || { rm -f "$KS_TEMP"; ks_unwritable "cannot write in $PWD"; }
  ks_seal "$KS_NAME" "$KS_POST"
  ks_tidy "$step"
  echo "changed the lines of $keys in $path put back; the rest of it was changed by somebody else and stays"
}

ks_env_reverted() {
  # shellcheck disable=SC2086
  ks_env_revert "$format" "$KS_PRE" $keys
}

# command STEP LIMIT SCRIPT
ks_undo_command() {
  if [ ! -e "$KS_RUN_DIR/started.$2" ] || [ -e "$KS_RUN_DIR/undone.$2" ]; then
    echo "ok nothing to take back"
    return 0
  fi
  ks_user "$3" "$KS_RUN_DIR" "$4"
  ks_tail "$KS_OUT"
  [ "$KS_RC" = 0 ] || ks_die command "the undo command exits with status $KS_RC${KS_TAIL:+: $KS_TAIL}"
  ks_spare_note "undone.$2" "$2" 1
  echo "changed the undo command was run"
}

# service STEP WAS HOLD LIMIT KIND A B COMMAND: up on the old files if it was up, stopped if it was stopped.
ks_undo_service() {
  local step was hold limit boot since young jobs
  step=$2 was=$3 hold=$4 limit=$5
  shift 5
  boot='' since=0
  [ ! -s "$KS_RUN_DIR/since" ] || read -r boot since <"$KS_RUN_DIR/since"
  # After a reboot every process is younger than the first change.
  ks_boot
  [ "$boot" = "$KS_BOOT" ] || since=0
  ks_svc_state "$1" "$2" "$3"
  if [ "$was" = no ]; then
    if [ "$KS_ACTIVE" = no ]; then
      echo "ok the runner is stopped, as it was"
      return 0
    fi
    ks_svc_do stop "$limit" "$1" "$2" "$3" "$4"
    ks_svc_state "$1" "$2" "$3"
    [ "$KS_ACTIVE" = no ] || ks_die service "the runner was stopped before and could not be stopped again"
    echo "changed the runner is stopped again, as it was"
    return 0
  fi
  # Nothing tells whether such a runner is up; one that was never restarted is as it was.
  if [ ! -e "$KS_RUN_DIR/started.$step" ] && [ "$KS_ACTIVE" = unknown ]; then
    echo "ok the runner was not restarted; whether it is up cannot be seen"
    return 0
  fi
  young=
  # A process that started after the first change may hold the new credential, whoever started it.
  [ "$KS_PID" != 0 ] && ks_pid "$KS_PID" && [ "$KS_START" -ge "$since" ] && young=1
  # A process that is older than the first change has never seen the new files, whatever was tried with it.
  if { [ ! -e "$KS_RUN_DIR/started.$step" ] || [ "$KS_PID" != 0 ]; } && [ "$KS_ACTIVE" = yes ] && [ -z "$young" ]; then
    echo "ok the runner was not restarted and is up"
    return 0
  fi
  if [ -s "$KS_RUN_DIR/restarted.$step" ]; then
    read -r boot since <"$KS_RUN_DIR/restarted.$step"
    if [ "$boot" = "$KS_BOOT" ] && [ "$KS_ACTIVE" = yes ] && [ "$KS_PID" != 0 ] && [ "$KS_START" -ge "$since" ]; then
      echo "ok the runner runs on the old files"
      return 0
    fi
  fi
  ks_ticks
  since=$KS_TICKS
  ks_spare_note "restarted.$step" "$step" "$KS_BOOT $since"
  # Nobody is waited for here; who waits is the controller. What is cut off is told.
  ks_busy "$1" "$2" "$3"
  ks_tail "$KS_JOBS"
  jobs=$KS_TAIL
  ks_svc_do restart "$limit" "$1" "$2" "$3" "$4"
  if [ "$KS_RC" != 0 ]; then
    ks_tail "$KS_OUT"
    ks_die service "the restart on the old files failed with status $KS_RC${KS_TAIL:+: $KS_TAIL}"
  fi
  ks_svc_steady "$hold" "$since" "$1" "$2" "$3" || ks_die service "after the restart on the old files $KS_WHY"
  [ "$KS_PID" = 0 ] || ks_proc_check "$KS_PID" "$KS_START" "$since" - - - || ks_die service "$KS_WHY"
  echo "changed the runner was restarted on the old files${jobs:+; jobs that ran were cut off: $jobs}"
}

# remove STEP PATH POST
ks_undo_remove() {
  ks_split "$3"
  ks_remove "$3" "$4"
}

# ks_remove PATH POSTS: in the entered directory; a file that was not there goes, if it is ours.
ks_remove() {
  ks_content "$KS_NAME"
  if [ "$KS_SHA" = absent ]; then
    ks_sweep ".keyswap-$KS_RUN." && sync . || ks_unwritable "cannot clean up in $PWD"
    echo "ok $1 is absent, as it was"
    return 0
  fi
  case " $2 " in
    *" $KS_SHA "*) ;;
    *) ks_die conflict "$1 was not made by this run: it stays" ;;
  esac
  rm -f "./$KS_NAME" 2>/dev/null || ks_unwritable "$1 could not be removed" "$KS_NAME"
  ks_sweep ".keyswap-$KS_RUN." || ks_unwritable "cannot clean up in $PWD"
  sync . || ks_unwritable "cannot sync $PWD"
  ! ks_lstat "$KS_NAME" || ks_die conflict "$1 is there again"
  echo "changed $1 removed"
}

# rmdir STEP DIR
ks_undo_rmdir() {
  [ -d "$3" ] || { echo "ok $3 is absent, as it was"; return 0; }
  ks_enter "${3%/*}"
  rmdir "./${3##*/}" 2>/dev/null || { echo "ok $3 is not empty and stays"; return 0; }
  sync .
  echo "changed $3 removed"
}

# backup STEP ID
ks_undo_backup() {
  [ -e "$K/backups/$3" ] || { echo "ok no backup was made"; return 0; }
  rm -rf "$K/backups/$3" && sync "$K/backups" || ks_die write "cannot clean up in $K/backups"
  echo "changed the backup of this run removed"
}
