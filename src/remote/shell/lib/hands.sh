# shellcheck shell=dash
# hands.sh - one process that does what else a program is started for, many times in each request.
#
# Where the host has Perl, `hands.pl` runs beside the shell and these functions bear the programs' names; everywhere else
# the programs do it. What the hands cannot do the program is asked for, too: it says then what is wrong.
#
# We ask on descriptor 8, and are answered on 9, one at a time: of two that asked at once each could take the other's answer.
# Nobody else may have them: who could write to 8 would act as we do. Whoever starts a program that is not one of the plain
# tools closes both.

KS_HANDS=
KS_HANDS_FOR='stat sync mv ln rm mkdir chmod chown readlink ls lsattr sha256sum'
KS_ID=0

# ks_hands_run: becomes the hands; what they say goes to standard output. They keep descriptor 3, on which requests come in, for
# the data of a request.
ks_hands_run() {
  exec perl - "$K" "$KS_UMASK" 4>&- 2>/dev/null <<KS_EOT
$KS_HANDS_PL
KS_EOT
}

# ks_with_hands FUNCTION [WORD]...: with hands where there is a Perl. KS_PLAIN does without, as a host without one does.
ks_with_hands() {
  if [ -n "${KS_PLAIN:-}" ] || ! command -v perl >/dev/null 2>&1; then
    "$@"
  else
    ks_hands_run | { ks_hands_take; "$@"; }
  fi
}

# ks_hands_take: takes the hands, whose words are our standard input. Without them all goes on as well.
ks_hands_take() {
  local word pid fd name
  exec 9<&0 </dev/null
  IFS=' ' read -r word pid fd <&9 || return 0
  [ "$word" = hands ] && { command exec 8>"/proc/$pid/fd/$fd"; } 2>/dev/null || return 0
  KS_HANDS=$pid
  # They see that we are gone only after they were asked once.
  ks_hand drop || { KS_HANDS=; return 0; }
  for name in $KS_HANDS_FOR; do
    eval "$name() { ks_tool $name \"\$@\"; }"
  done
}

# ks_hand NAME [WORD]...: 0 done, 1 it failed or is not there, both with KS_SAID set to what they say; 2 they cannot. KS_LOST is
# set where they were asked, and whether they did it is not known: they are gone.
ks_hand() {
  local who status more line word
  KS_SAID='' KS_LOST=''
  ks_self
  who=$KS_SELF-$KS_ID
  # Standard input is the answer's while it is read: the hands find the asker's own as descriptor 7.
  {
    { printf '%s\0' "$who" "$#" "$@" >&8; } 2>/dev/null || return 2
    KS_LOST=1
    # An answer to somebody who died before it came is passed over.
    line=
    until [ "$line" = "$who" ]; do
      IFS=' ' read -r line status more KS_SAID <&9 || return 2
      # It stands between two dots: `read` drops the blanks at an end.
      KS_SAID=${KS_SAID#.} KS_SAID=${KS_SAID%.}
      while [ "$more" -gt 0 ]; do
        IFS= read -r word <&9 || return 2
        KS_SAID=$KS_SAID$KS_NL$word
        more=$((more - 1))
      done
    done
  } 7<&0
  KS_LOST=
  return "$status"
}

# ks_tool NAME [WORD]...: in the place of a program of that name.
ks_tool() {
  local status
  status=0
  ks_hand "$@" || status=$?
  if [ $status = 2 ]; then
    command "$@"
    return
  fi
  [ -z "$KS_SAID" ] || printf '%s\n' "$KS_SAID"
  return $status
}

# ks_copy [BYTES]: standard input, or so many bytes of it, into the new file that standard output is.
ks_copy() {
  local status
  if [ -n "$KS_HANDS" ]; then
    status=0
    ks_hand copy "$@" || status=$?
    [ $status = 2 ] || return $status
  fi
  if [ $# = 0 ]; then cat; else dd bs="$1" count=1 iflag=fullblock 2>/dev/null; fi
}

# ks_get NAME [WORD]...: sets KS_GOT to what a program says, without a process where the hands say it.
ks_get() {
  local status
  if [ -n "$KS_HANDS" ]; then
    status=0
    ks_hand "$@" || status=$?
    KS_GOT=$KS_SAID
    [ $status = 2 ] || return $status
  fi
  KS_GOT=$(command "$@")
}
