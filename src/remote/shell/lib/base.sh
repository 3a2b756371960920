# shellcheck shell=dash
# base.sh - words, answers and bounded commands for the library that runs on a target.
#
# Every function is called inside the subshell of one request, so `exit` ends that request and nothing else.
# An answer is a line: a tag, then TAB-separated key=value fields. `local` is used because dash, bash and
# busybox ash all have it.

LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unset ENV BASH_ENV CDPATH HISTFILE GLOBIGNORE PERL5LIB PERLLIB PERL5OPT PERL5DB PERL_UNICODE PERLIO PERL_USE_UNSAFE_INC
IFS=' 	
'
KS_NL='
'
KS_TAB='	'
# What an operator's command starts has the umask that it would have had without us.
KS_UMASK=
while [ "$KS_UMASK" != Umask: ] && read -r KS_UMASK KS_LINE; do :; done </proc/self/status
[ "$KS_UMASK" != Umask: ] || KS_UMASK=$KS_LINE
case $KS_UMASK in '' | *[!0-7]*) KS_UMASK=022 ;; esac
umask 077
set -f
ulimit -c 0 2>/dev/null

# ks_say TAG [KEY VALUE]...: one line of the answer.
ks_say() {
  local line
  line=$1
  shift
  while [ $# -ge 2 ]; do
    case $2 in
      *"$KS_NL"* | *"$KS_TAB"*) line="$line$KS_TAB$1=(unprintable)" ;;
      *) line="$line$KS_TAB$1=$2" ;;
    esac
    shift 2
  done
  printf '%s\n' "$line"
}

# ks_die CLASS MESSAGE [KEY VALUE]...: the request failed. The classes are those of remote::FailClass.
ks_die() {
  local class message
  class=$1
  message=$2
  shift 2
  ks_say fail class "$class" message "$message" "$@"
  exit 1
}

# ks_uptime: sets KS_UP to the host's uptime in hundredths of a second. No fork, no wall clock.
ks_uptime() {
  local up rest
  # shellcheck disable=SC2034
  read -r up rest </proc/uptime
  KS_UP=${up%.*}${up#*.}
  while :; do case $KS_UP in 0?*) KS_UP=${KS_UP#0} ;; *) break ;; esac done
}

# ks_boot: sets KS_BOOT to the start of the boot id.
ks_boot() {
  read -r KS_BOOT <"${KS_BOOT_FILE:-/proc/sys/kernel/random/boot_id}"
  KS_BOOT=${KS_BOOT%%-*}
}

# ks_pid PID: sets KS_STATE, KS_PARENT, KS_SID and KS_START (in clock ticks since boot) of a process; fails when there is none.
ks_pid() {
  local line
  case $1 in '' | *[!0-9]*) return 1 ;; esac
  if [ -n "$KS_HANDS" ]; then
    line=0
    ks_hand process "$1" || line=$?
    if [ $line != 2 ]; then
      # shellcheck disable=SC2086,SC2153
      set -- $KS_SAID
      KS_STATE=${1:-} KS_PARENT=${2:-} KS_SID=${3:-} KS_START=${4:-}
      return $line
    fi
  fi
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  line=${line##*) }
  # shellcheck disable=SC2086
  set -- $line
  [ $# -ge 20 ] || return 1
  KS_STATE=$1
  KS_PARENT=$2
  KS_SID=$4
  shift 19
  KS_START=$1
}

# ks_alive PID START: the very process still runs.
ks_alive() {
  ks_pid "$1" && [ "$KS_START" = "$2" ] && [ "$KS_STATE" != Z ] && [ "$KS_STATE" != X ]
}

# ks_self: sets KS_SELF to this shell's process; `read` would take every byte of what the kernel tells of it.
ks_self() {
  set +f
  for KS_SELF in /proc/self/task/*; do :; done
  set -f
  KS_SELF=${KS_SELF##*/}
}

# ks_owner PID: sets KS_OWNER_SELF to PID-START-SESSION of a shell of ours. SESSION is 0 unless the session was made for us, as
# sshd does: its leader is this shell or the sudo or login shell above it.
ks_owner() {
  local pid start sid above
  pid=$1 sid=0
  ks_pid "$pid"
  start=$KS_START
  for above in 1 2 3; do
    [ "$KS_SID" != "$pid" ] || { sid=$pid; break; }
    pid=$KS_PARENT
    ks_pid "$pid" || break
  done
  KS_OWNER_SELF=$1-$start-$sid
}

# ks_ticks: sets KS_TICKS to now, in the unit of process start times. A fresh process is asked instead of
# /proc/uptime, because containers may show an uptime of their own; a substitution is one, and no program is started.
ks_ticks() {
  local line
  if [ -n "$KS_HANDS" ] && ks_hand ticks; then
    KS_TICKS=$KS_SAID
    return 0
  fi
  line=$(read -r line </proc/self/stat && printf '%s' "$line")
  line=${line##*) }
  # shellcheck disable=SC2086
  set -- $line
  shift 19
  KS_TICKS=$1
}

# ks_random: sets KS_RANDOM to a word that nobody can guess, from the kernel and without a program.
ks_random() {
  read -r KS_RANDOM </proc/sys/kernel/random/uuid || ks_die refused "/proc/sys/kernel/random/uuid cannot be read"
}

# ks_hex FILE: sets KS_SHA to the file's SHA-256. FILE is opened as given: use /proc/self/fd/N for a checked one.
ks_hex() {
  ks_get sha256sum <"$1" 2>/dev/null || return 1
  KS_SHA=${KS_GOT%% *}
  [ ${#KS_SHA} = 64 ]
}

# ks_digest TEXT: sets KS_DIGEST to the SHA-256 of a text.
ks_digest() {
  if [ -n "$KS_HANDS" ] && ks_hand digest "$1"; then
    KS_DIGEST=$KS_SAID
    return 0
  fi
  KS_DIGEST=$(printf %s "$1" | sha256sum)
  KS_DIGEST=${KS_DIGEST%% *}
}

# ks_tail TEXT: sets KS_TAIL to the last 800 bytes, on one line.
ks_tail() {
  KS_TAIL=$1
  while [ ${#KS_TAIL} -gt 4096 ]; do KS_TAIL=${KS_TAIL#????????????????????????????????????????????????????????????????}; done
  while [ ${#KS_TAIL} -gt 800 ]; do KS_TAIL=${KS_TAIL#????????}; done
  set -f
  # shellcheck disable=SC2086
  set -- $KS_TAIL
  KS_TAIL=$*
}

# ks_bounded SECONDS COMMAND...: runs a program of the system under a time limit; TERM, then KILL 5 s later.
ks_bounded() {
  local limit
  limit=$1
  shift
  timeout -k 5 "$limit" "$@" </dev/null 5>&- 6>&- 7>&- 8>&- 9<&-
}

# ks_timed SECONDS SCRIPT: an operator's command line under a time limit, with nothing of ours.
ks_timed() {
  (umask "$KS_UMASK"; trap - PIPE HUP; exec timeout -k 5 "$1" sh -c "$2")
}

# ks_user SECONDS DIR SCRIPT [KIB]: runs an operator's command line. Its output goes through a fifo in DIR to a reader that
# keeps the first KIB (8) KiB and drains the rest, so that neither much output nor a daemon that keeps it open can block us.
# It reads byte by byte: a larger block would wait in its memory for a daemon to fill it.
# Where DIR is full the command runs all the same, since an undo needs it: only its output is lost.
# The descriptors that we work with stay ours: a daemon would keep them for its life. So do our umask and the signals that we
# do not heed. The hands do all this by themselves.
# Sets KS_RC (124: time limit) and KS_OUT.
ks_user() {
  local base most i reader line
  if [ -n "$KS_HANDS" ] && [ $# -lt 4 ]; then
    if ks_hand run "$1" "$3"; then
      KS_RC=${KS_SAID%%"$KS_NL"*} KS_OUT=
      case $KS_SAID in *"$KS_NL"*) KS_OUT=${KS_SAID#*"$KS_NL"} ;; esac
      return 0
    fi
    # It is never started a second time.
    [ -z "$KS_LOST" ] || ks_die command "how the command ended is not known: what ran it is gone"
  fi
  ks_random
  base=$2/u.$KS_RANDOM
  most=$((${4:-8} * 1024))
  KS_OUT=
  mkfifo "$base.f" 2>/dev/null || {
    KS_RC=0
    ks_timed "$1" "$3" </dev/null >/dev/null 2>&1 5>&- 6>&- 7>&- 8>&- 9<&- || KS_RC=$?
    return 0
  }
  # shellcheck disable=SC2094 # only whether the fifo still is there
  {
    dd bs=1 count=$most of="$base.o" 2>/dev/null
    ! IFS= read -r line || cat >/dev/null
    # Nobody waits for it any more where the fifo is gone.
    [ ! -e "$base.f" ] || : >"$base.end"
  } <"$base.f" >/dev/null 2>&1 8>&- 9<&- &
  reader=$!
  ks_timed "$1" "$3" </dev/null >"$base.f" 2>&1 5>&- 6>&- 7>&- 8>&- 9<&-
  KS_RC=$?
  i=0
  # The reader sees the end at once; whoever holds the output open beyond it is not waited for.
  while [ ! -e "$base.end" ] && [ $i -lt 330 ]; do
    i=$((i + 1))
    [ $i -le 300 ] || sleep 0.01
  done
  [ -e "$base.end" ] && wait "$reader"
  if [ -n "${4:-}" ]; then
    [ ! -s "$base.o" ] || KS_OUT=$(tr -d '\000' <"$base.o")
  elif [ -s "$base.o" ]; then
    # No program is started for a few bytes; the shell drops zeros by itself.
    while IFS= read -r line || [ -n "$line" ]; do KS_OUT=$KS_OUT$line$KS_NL; done <"$base.o"
    KS_OUT=${KS_OUT%"$KS_NL"}
  fi
  rm -f "$base.f" "$base.o" "$base.end"
}
