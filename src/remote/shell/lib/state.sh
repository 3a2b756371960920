# shellcheck shell=dash
# state.sh - lock, lease and fence of a host are one object: the NAME of the only file in $K/cas,
#   EPOCH.GENERATION.PHASE.RUN.OWNER.BOOT.UNTIL      (phase: idle armed undo old new dirty)
#
# Every transition renames the name that was seen to one of a higher generation, and is decided by looking afterwards: the
# new name is there = won; the old one is gone = lost; the old one is still there = the disk would not write.
# OWNER is PID-START-SESSION of whoever may act. UNTIL is uptime in hundredths of a second, in undo the session to fence.

# ks_cas_look: sets KS_CUR and its parts E G PH RUN OWN BT UN; fails when the host has no state yet.
ks_cas_look() {
  local n ifs
  n=0
  while :; do
    set +f
    set -- "$K"/cas/[0-9]*
    set -f
    KS_CUR=${1##*/}
    # A directory read while a rename is under way may show none or both.
    [ $# = 1 ] && [ "$KS_CUR" != '[0-9]*' ] && break
    [ -d "$K/cas" ] || return 1
    n=$((n + 1))
    [ $n -lt 200 ] || ks_die refused "$K/cas does not hold exactly one state"
  done
  ifs=$IFS
  IFS=.
  # shellcheck disable=SC2086
  set -- $KS_CUR
  IFS=$ifs
  E=$1 G=$2 PH=$3 RUN=$4 OWN=$5 BT=$6 UN=$7
}

# ks_cas PHASE OWNER UNTIL RUN EPOCH: 0 won, 1 lost to somebody else, 2 could not write.
ks_cas() {
  KS_NEW=$5.$((G + 1)).$1.$4.$2.$KS_BOOT.$3
  mv -f "$K/cas/$KS_CUR" "$K/cas/$KS_NEW" 2>/dev/null
  [ ! -e "$K/cas/$KS_NEW" ] || return 0
  [ ! -e "$K/cas/$KS_CUR" ] || return 2
  return 1
}

# ks_state_init: the state directory, private and ours, with the state `idle` if there is none.
ks_state_init() {
  local tmp facts
  if [ ! -d "$K/cas" ]; then
    mkdir -p "$K" 2>/dev/null || ks_die write "cannot create $K"
    chmod 700 "$K"
    ks_state_check
    ks_random
    tmp=$K/.cas.$KS_RANDOM
    mkdir "$tmp" || ks_die write "cannot write in $K"
    : >"$tmp/0.0.idle.-.-.-.0" && sync "$tmp" || ks_die write "cannot write in $K"
    mv -T "$tmp" "$K/cas" 2>/dev/null || rm -rf "$tmp"
    mkdir -p "$K/runs" "$K/backups" && sync "$K" || ks_die write "cannot write in $K"
  fi
  ks_state_check
}

# ks_state_check: nobody else may write or enter the state directory.
ks_state_check() {
  ks_get stat -c '%f %u %a' -- "$K" || ks_die missing "$K does not exist"
  [ "$KS_GOT" = "41c0 $KS_UID 700" ] || ks_die refused "$K is not a private directory of user $KS_UID (found: $KS_GOT)"
}

# ks_until LEASE: sets KS_UNTIL to now and LEASE hundredths of a second; 0 (never) where LEASE is 0.
ks_until() {
  KS_UNTIL=0
  [ "$1" != 0 ] || return 0
  ks_uptime
  KS_UNTIL=$((KS_UP + $1))
}

# ks_seen: sets KS_SEEN to what a request relies on: a renewed lease is the same state.
ks_seen() {
  KS_SEEN=$E.$PH.$RUN.$OWN.$BT
}

# ks_arm RUN LEASE SEEN: takes the host for RUN. From a settled state only, or from the same run (a new session of its controller
# takes over from the old one, which is fenced first). A guard that is at work is waited for, not taken over. Apart from that
# the host must be as this request has SEEN it: a request that hung, and goes on after the run was taken up or settled without
# it, takes nothing.
ks_arm() {
  local epoch rc waited seen guard
  waited=0 seen=$3 guard=
  ks_boot
  while :; do
    ks_cas_look || ks_die refused "$K has no state"
    ks_seen
    if [ "$KS_SEEN" != "$seen" ]; then
      case $guard.$PH in
        $((G - 1)).undo | $((G - 1)).old | $((G - 1)).dirty) seen=$KS_SEEN ;;
        *)
          [ "$RUN" = "$1" ] || ks_held
          ks_too_late
          ;;
      esac
    fi
    case $PH in
      idle | old | new) epoch=$((E + 1)) ;;
      undo)
        [ "$RUN" = "$1" ] || ks_held
        [ "$BT" != "$KS_BOOT" ] || ! ks_owner_alive || {
          guard=$G
          waited=$((waited + 1))
          [ $waited -lt 600 ] || ks_die held "the guard of this host is putting it back" run "$RUN" phase undo
          sleep 0.1
          continue
        }
        epoch=$E
        ;;
      armed | dirty)
        [ "$RUN" = "$1" ] || ks_held
        # A dirty host has no owner any more.
        [ "$BT" != "$KS_BOOT" ] || [ "$OWN" = "$KS_OWNER_SELF" ] || [ "$OWN" = - ] || ks_fence "$OWN"
        epoch=$E
        ;;
      *) ks_die refused "$K/cas holds a state of a newer keyswap: $KS_CUR" ;;
    esac
    ks_until "$2"
    ks_cas armed "$KS_OWNER_SELF" "$KS_UNTIL" "$1" "$epoch"
    rc=$?
    case $rc in
      0) break ;;
      2) ks_unwritable "cannot write in $K" ;;
    esac
  done
  sync "$K/cas" || ks_die write "cannot sync $K/cas"
}

# ks_fence_tree PID: ends a process and all that descends from it.
ks_fence_tree() {
  local p d kids
  p=$1 kids=
  kill -STOP "$p" 2>/dev/null || return 0
  set +f
  for d in /proc/[0-9]*; do
    set -f
    ks_pid "${d##*/}" && [ "$KS_PARENT" = "$p" ] && kids="$kids ${d##*/}"
  done
  set -f
  for d in $kids; do ks_fence_tree "$d"; done
  kill -9 "$p" 2>/dev/null
  while ks_pid "$p" && [ "$KS_STATE" != Z ] && [ "$KS_STATE" != X ]; do sleep 0.02; done
}

# ks_fence_sudo PID SESSION: sudo stops itself when its command is stopped, and would hold the connection open for ever: it
# is woken until it has seen that its command is gone.
ks_fence_sudo() {
  local n parent
  n=0
  while [ "$2" != 0 ] && ks_pid "$1" && [ "$KS_SID" = "$2" ] && [ $n -lt 100 ]; do
    case $KS_STATE in Z | X) ;; *) return 0 ;; esac
    parent=$KS_PARENT
    ks_pid "$parent" && [ "$KS_SID" = "$2" ] || return 0
    kill -CONT "$parent" 2>/dev/null
    n=$((n + 1))
    sleep 0.02
  done
}

# ks_owner_alive: the shell that may act by the host's state, which was just looked at, still runs.
ks_owner_alive() {
  local start
  start=${OWN#*-}
  ks_alive "${OWN%%-*}" "${start%-*}"
}

# ks_takeover RUN LEASE WANT OWNER: a new session of the run's controller holds the host from here on. WANT `held`: only if nobody
# has settled it meanwhile; `any`: a settled host is taken up again, to be put back.
ks_takeover() {
  local seen
  ks_cas_look || {
    [ "$3" = any ] || ks_die fenced "this host has no state any more"
    ks_state_init
    ks_cas_look
  }
  ks_seen
  seen=$KS_SEEN
  ks_run_dir "$1"
  [ ! -e "$KS_RUN_DIR/retired" ] || ks_die refused "run $1 was retired: the old credential is gone"
  case $3.$PH in
    held.*)
      [ "$PH.$RUN" = "armed.$1" ] && ! ks_void ||
        ks_die fenced "this host was settled meanwhile (now: $PH, run $RUN)" run "$RUN" phase "$PH"
      ;;
    any.armed | any.undo | any.dirty) [ "$RUN" = "$1" ] || ks_held ;;
  esac
  if [ ! -e "$KS_RUN_DIR/ready" ]; then
    # The run never got as far as to hold this host. Said before it is taken, so that whoever comes upon it knows that there
    # is nothing to undo; a preparation that is still on its way is ended, or finds the mark or another state and gives up.
    mkdir -p "$KS_RUN_DIR" || ks_die write "cannot write in $K/runs"
    ks_only_here
    ks_note void 1
    sync "$K/runs" || ks_die write "cannot write in $K/runs"
  elif [ "$2" != 0 ]; then
    # A host that was settled has no start at boot any more.
    ks_guard_install
  fi
  ks_arm "$1" "$2" "$seen"
  # Who is told to others; a full disk is no reason not to go back.
  printf '%s\n' "$4" >"$KS_RUN_DIR/owner" 2>/dev/null || :
  ! ks_void || return 0
  [ "$2" = 0 ] || ks_guard_start
  [ "$3" = any ] || ks_each ks_stage_again
}

# ks_void: the run was given up before its way back lay here whole: it never held this host, and did nothing here.
ks_void() {
  [ -e "$KS_RUN_DIR/void" ] && [ ! -e "$KS_RUN_DIR/ready" ]
}

# ks_too_late: refuses a request of the run that comes too late.
ks_too_late() {
  ks_die fenced "run $KS_RUN was taken up or settled here meanwhile (now: $PH)" run "$RUN" phase "$PH"
}

# ks_held: refuses because another run holds the host.
ks_held() {
  local by
  by=unknown
  [ ! -r "$K/runs/$RUN/owner" ] || read -r by <"$K/runs/$RUN/owner"
  ks_die held "run $RUN holds this host ($PH, by $by)" run "$RUN" phase "$PH" by "$by"
}

# ks_run_dir RUN: sets KS_RUN and KS_RUN_DIR: what the run keeps in the state directory, and, by name, beside its files.
ks_run_dir() {
  # shellcheck disable=SC2034
  KS_RUN=$1 KS_RUN_DIR=$K/runs/$1
}

# ks_own RUN HEAD LEASE: this session still holds the host for RUN, or the request is refused; with a guard, the lease is
# renewed by the same rename. HEAD, the head of the controller's journal, is left beside the run.
ks_own() {
  local left
  ks_boot
  ks_cas_look || ks_die fenced "this host has no state any more"
  [ "$PH.$RUN.$OWN.$BT" = "armed.$1.$KS_OWNER_SELF.$KS_BOOT" ] ||
    ks_die fenced "this session no longer holds the host (now: $PH, run $RUN)" run "$RUN" phase "$PH"
  ks_run_dir "$1"
  ks_uptime
  left=$((UN - KS_UP))
  # A lease that lasts for as long as this request needs it, and for little longer, stays as it is; so a renewal grants a
  # little more than was asked.
  if [ "$3" != 0 ] && { [ $left -lt "$3" ] || [ $left -gt $(($3 + $3 / 16)) ]; }; then
    ks_until $(($3 + $3 / 16))
    ks_cas armed "$KS_OWNER_SELF" "$KS_UNTIL" "$1" "$E"
    case $? in
      0) ;;
      1) ks_die fenced "this session no longer holds the host" run "$1" phase unknown ;;
      *) ks_unwritable "cannot write in $K" ;;
    esac
    ks_cas_look
  fi
  [ -z "$2" ] || printf '%s\n' "$2" >"$KS_RUN_DIR/head" 2>/dev/null || :
}

# ks_release PHASE RUN: the host is settled: new, old or dirty.
ks_release() {
  ks_cas "$1" - 0 "$2" "$E"
  case $? in
    0) sync "$K/cas" || ks_die write "cannot sync $K/cas" ;;
    1) ks_die fenced "somebody else settled this host first" ;;
    *) ks_unwritable "cannot write in $K" ;;
  esac
  # The state's name says it, until the next run takes the host; later only this does.
  printf '%s\n' "$1" >"$KS_RUN_DIR/ended" 2>/dev/null || :
}

# ks_unlock RUN BY REASON: takes away the lock of a run that nobody will settle; of one whose controller may still be at work
# only where it is named. What was done is written down first, in $K/unlocks. Nothing is put back: the host is `idle` with
# the run's name, and its undo stays.
ks_unlock() {
  local when
  [ -d "$K/cas" ] || ks_die refused "no run holds this host"
  ks_state_check
  ks_boot
  ks_cas_look || ks_die refused "no run holds this host"
  case $PH in
    armed | undo | dirty) ;;
    *) ks_die refused "no run holds this host (it is $PH)" ;;
  esac
  [ "$1" = - ] || [ "$1" = "$RUN" ] || ks_die refused "another run holds this host: $RUN" run "$RUN" phase "$PH"
  if [ "$BT" = "$KS_BOOT" ]; then
    [ "$PH" != undo ] || ! ks_owner_alive ||
      ks_die held "the guard of this host is putting run $RUN back: wait for it" run "$RUN" phase "$PH"
    if [ "$PH" = armed ] && [ "$1" = - ]; then
      ks_uptime
      ! ks_owner_alive ||
        ks_die held "the controller of run $RUN is connected; to take its lock all the same, name the run: --run $RUN" run "$RUN" phase "$PH"
      [ "$UN" != 0 ] ||
        ks_die held "run $RUN has no guard, so that nobody knows whether it goes on; to take its lock, name the run: --run $RUN" run "$RUN" phase "$PH"
      [ $((UN - KS_UP)) -le 0 ] ||
        ks_die held "the lease of run $RUN is alive for $(((UN - KS_UP) / 100)) s more; then this host puts itself back. To take its lock all the same, name the run: --run $RUN" run "$RUN" phase "$PH"
    fi
  fi
  when=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  printf '%s run=%s phase=%s by=%s reason=%s\n' "$when" "$RUN" "$PH" "$2" "$3" >>"$K/unlocks" && sync "$K/unlocks" "$K" ||
    ks_die write "cannot write in $K"
  # Another epoch: a session that held the host is refused from here on, whatever it still sends.
  ks_cas idle - 0 "$RUN" $((E + 1))
  case $? in
    0) ;;
    1) ks_die held "the host has gone on meanwhile: look again" run "$RUN" phase "$PH" ;;
    *) ks_unwritable "cannot write in $K" ;;
  esac
  sync "$K/cas" || ks_die write "cannot sync $K/cas"
  [ "$OWN" = - ] || [ "$BT" != "$KS_BOOT" ] || ks_fence "$OWN"
  ks_guard_remove
  ks_say unlocked run "$RUN"
}

# ks_fence OWNER: the shell of that owner, what it started, and the session it had to itself are gone when this returns,
# stopped processes included.
ks_fence() {
  local session from d p left
  session=${1##*-}
  from=${1#*-}
  from=${from%-*}
  p=${1%%-*}
  # Stopped first: what cannot run cannot fork.
  ! ks_alive "$p" "$from" || ks_fence_tree "$p"
  ks_fence_sudo "$p" "$session"
  [ "$session" != 0 ] && [ "$session" != "${KS_OWNER_SELF##*-}" ] || return 0
  while :; do
    left=
    set +f
    for d in /proc/[0-9]*; do
      set -f
      p=${d##*/}
      ks_pid "$p" || continue
      [ "$KS_SID" = "$session" ] && [ "$KS_START" -ge "$from" ] || continue
      case $KS_STATE in Z | X) continue ;; esac
      kill -9 "$p" 2>/dev/null
      left=1
    done
    set -f
    [ -n "$left" ] || return 0
    sleep 0.02
  done
}
