# shellcheck shell=dash
# loop.sh - the privileged shell: answers framed requests until its input ends. The last piece: it starts what KS_MODE says.
#
# In:  `R ID BODYLEN DATALEN` and a line of BODYLEN bytes, then DATALEN bytes for the body's standard input.
# Out: `A NONCE ID STATUS LEN` and a line end, then LEN bytes: what was printed, without line ends at its end.
# Descriptor 3 carries requests in, 4 answers out; nothing that a request starts ever sees them. The hands take the data of a
# request from 3 where there are hands.
# The library and its variables (K, the state directory; KS_UID; NONCE) are set before.

# ks_who: sets KS_UID and KS_GID, without a program.
ks_who() {
  local key real effective rest
  # shellcheck disable=SC2034
  while read -r key real effective rest; do
    case $key in
      Uid:) KS_UID=$effective ;;
      Gid:) KS_GID=$effective; return 0 ;;
    esac
  done </proc/self/status
}

# ks_init: which process and which user we are, and where the state lies.
ks_init() {
  ks_who
  [ -n "$K" ] || {
    if [ "$KS_UID" = 0 ]; then K=/var/lib/keyswap; else K=${HOME:-/nonexistent}/.local/state/keyswap; fi
  }
  ks_self
  KS_OWNER_PID=$KS_SELF
}

# ks_loop: one request after the other.
ks_loop() {
  ks_owner "$KS_OWNER_PID"
  printf 'H %s %s\n' "$NONCE" "$KS_OWNER_SELF" >&4
  while IFS=' ' read -r KS_R KS_ID KS_BL KS_DL <&3; do
    [ "$KS_R" = R ] || exit 2
    IFS= read -r KS_BODY <&3 || exit 3
    [ ${#KS_BODY} = "$KS_BL" ] || exit 3
    # All bytes are read before one is passed on, so that a body that does not want them cannot make us lose our place.
    KS_TAKEN=2
    if [ "$KS_DL" -gt 0 ] && [ -n "$KS_HANDS" ]; then
      KS_TAKEN=0
      ks_hand take "$KS_DL" || KS_TAKEN=$?
      # They broke off: how many bytes they read is not known.
      case $KS_TAKEN$KS_LOST in 0 | 2) ;; *) exit 3 ;; esac
    fi
    if [ $KS_TAKEN = 0 ]; then
      KS_REPLY=$(exec <"/proc/$KS_HANDS/fd/$KS_SAID" 2>&1 3<&- 4>&-; ks_hand drop; eval "$KS_BODY")
    elif [ "$KS_DL" -gt 0 ]; then
      KS_REPLY=$(dd bs="$KS_DL" count=1 iflag=fullblock <&3 2>/dev/null | { exec 2>&1 3<&- 4>&-; eval "$KS_BODY"; })
    else
      # Closed for good: what is only redirected the shell keeps a copy of, and whoever it forks keeps it too.
      KS_REPLY=$(exec </dev/null 2>&1 3<&- 4>&-; eval "$KS_BODY")
    fi
    printf 'A %s %s %s %s\n%s' "$NONCE" "$KS_ID" $? "${#KS_REPLY}" "$KS_REPLY" >&4 || exit 4
  done
}

ks_init
cd /
# A controller that is gone must not end us in the middle of an act.
[ "${KS_MODE:-loop}" = guard ] || trap '' PIPE HUP
case ${KS_MODE:-loop} in
  guard) ks_owner "$KS_OWNER_PID"; ks_watch ;;
  *) ks_with_hands ks_loop ;;
esac
