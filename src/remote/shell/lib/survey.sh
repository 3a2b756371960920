# shellcheck shell=dash
# survey.sh - what a host holds now, for an audit, and the removal of copies that nobody needs any more.
#
# Looking changes nothing and needs no hold. No token leaves its host: fingerprints do, and of a token that is a JWT the
# middle part, which says whose it is and when it ends; without its signature it opens nothing.

# ks_age FILE: sets KS_AGE to the seconds since the file was written.
ks_age() {
  local at
  KS_AGE=
  at=$(stat -L -c %Y -- "$1" 2>/dev/null) || return 0
  KS_AGE=$(($(date +%s) - at))
}

# ks_claims: sets KS_CLAIMS to the claims of the token on descriptor 6, as they are encoded; empty if it is none.
ks_claims() {
  local line
  KS_CLAIMS=
  [ "$KS_SIZE" -le 16384 ] || return 0
  line=
  IFS= read -r line </proc/self/fd/6 2>/dev/null || [ -n "$line" ] || return 0
  line=${line%"$KS_CR"}
  case $line in *[!A-Za-z0-9_.-]* | *.*.*.*) return 0 ;; eyJ*.eyJ*.?*) ;; *) return 0 ;; esac
  line=${line#*.}
  line=${line%%.*}
  [ ${#line} -gt 8192 ] || KS_CLAIMS=$line
}

# ks_plain VALUE: sets KS_PLAIN to a value that may be shown: a plain path.
ks_plain() {
  KS_PLAIN=$1
  case $1 in
    /*[!A-Za-z0-9_@%+=:,./-]*) KS_PLAIN='(not shown)' ;;
    /* | '') ;;
    *) KS_PLAIN='(not shown)' ;;
  esac
}

# ks_see PATH: enters PATH's directory and gathers what a file is, without asking whether it could be replaced.
ks_see() {
  ks_split "$1"
  KS_SIZE=0 KS_OWN='' KS_GRP='' KS_MODE='' KS_FP=absent KS_AGE='' KS_CLAIMS=''
  ks_content "$KS_NAME"
  KS_AT=${KS_HERE%/}/$KS_NAME
  [ "$KS_SHA" != absent ] || return 0
  ks_fp
}

# ks_survey_file N PATH
ks_survey_file() {
  ks_see "$2"
  if [ "$KS_SHA" != absent ]; then
    ks_age /proc/self/fd/6
    ks_claims
  fi
  ks_say file n "$1" path "$KS_AT" sha "$KS_SHA" fp "$KS_FP" size "$KS_SIZE" uid "$KS_OWN" gid "$KS_GRP" mode "$KS_MODE" \
    age "$KS_AGE" claims "$KS_CLAIMS"
}

# ks_survey_env N PATH FORMAT KEY OUTRANKING: where the pointer leads, and which keys would outrank it.
ks_survey_env() {
  local key found value
  ks_see "$2"
  if [ "$KS_SHA" = absent ]; then
    ks_say env n "$1" path "$KS_AT" there no
    return 0
  fi
  [ "$KS_SIZE" -le 262144 ] || ks_die refused "$KS_AT is too large for an environment file"
  found=
  for key in $5; do
    ks_env_look "$3" "$key" '' </proc/self/fd/6
    [ "$KS_COUNT" = 0 ] || found="$found $key"
  done
  value=
  if [ "$4" != - ]; then
    ks_env_look "$3" "$4" '' </proc/self/fd/6
    ks_plain "$KS_OLD"
    value=$KS_PLAIN
  fi
  ks_say env n "$1" path "$KS_AT" there yes value "$value" outrank "${found# }"
  [ "${value#/}" != "$value" ] || return 0
  (
    ks_see "$value"
    [ "$KS_SHA" = absent ] || ks_claims
    ks_say target n "$1" path "$KS_AT" fp "$KS_FP" claims "$KS_CLAIMS"
  ) 2>/dev/null | grep '^target' || :
}

# ks_survey_service N KIND A B KEY OUTRANKING: the process, and what it has.
ks_survey_service() {
  local key found stale age value sha uid
  KS_RUN_DIR=
  ks_svc_state "$2" "$3" "$4"
  KS_START=0
  [ "$KS_PID" = 0 ] || ks_pid "$KS_PID" || KS_START=0
  stale=no age='' value='' found='' sha='' uid=''
  if [ "$KS_START" != 0 ]; then
    ! ks_stale "$KS_START" || stale=yes
    ks_ticks
    age=$(((KS_TICKS - KS_START) / 100))
    ! ks_credentials "$KS_PID" || uid=$KS_USER
    for key in $6; do
      ! ks_proc_env "$KS_PID" "$key" || found="$found $key"
    done
    if [ "$5" != - ] && ks_proc_env "$KS_PID" "$5"; then
      ks_plain "$KS_VALUE"
      value=$KS_PLAIN
      # shellcheck disable=SC2154
      [ "${value#/}" = "$value" ] || ! ks_proc_file "$KS_PID" "$value" || sha=$KS_SHA
    fi
  fi
  ks_tail "$KS_DETAIL"
  ks_say service n "$1" active "$KS_ACTIVE" pid "$KS_PID" age "$age" uid "$uid" stale "$stale" value "$value" sha "$sha" \
    outrank "${found# }" detail "$KS_TAIL"
}

# ks_survey_state N: who settled this host last, and the copies that keyswap keeps here.
ks_survey_state() {
  local d path sha fp env
  [ -d "$K/cas" ] || { ks_say state n "$1" phase none run -; return 0; }
  ks_state_check
  ks_cas_look || ks_die refused "$K has no state"
  ks_say state n "$1" phase "$PH" run "$RUN" dir "$K" real "$(readlink -f -- "$K")"
  set +f
  for d in "$K"/backups/*/; do
    set -f
    d=${d%/}
    [ -r "$d/meta" ] || continue
    { IFS= read -r path && IFS= read -r sha && IFS= read -r fp; } <"$d/meta"
    ks_age "$d/content"
    ks_say copy n "$1" kind backup at "$d" of "$path" fp "$fp" age "$KS_AGE"
  done
  set +f
  for d in "$K"/runs/*/pre.*; do
    set -f
    [ -f "$d" ] || continue
    env=no
    ! grep -q "^'*env'* '*${d##*.}'* " "${d%/*}/undo" 2>/dev/null || env=yes
    (ks_see "$d" && ks_age "$d" && ks_say copy n "$1" kind preimage at "$d" fp "$KS_FP" age "$KS_AGE" env "$env")
  done
  set -f
}

# ks_survey_known N: what the runs on this host were about, the oldest first.
ks_survey_known() {
  local d
  KS_N=$1
  [ ! -d "$K/cas" ] || { ks_state_check; ks_cas_look || ks_die refused "$K has no state"; }
  set +f
  for d in "$K"/runs/*/; do
    set -f
    d=${d%/}
    [ -e "$d/ready" ] && [ -r "$d/undo" ] || continue
    ks_run_dir "${d##*/}"
    ks_ended
    ks_each ks_known
  done
  set -f
}

# ks_ended: sets KS_ENDED to how the run let this host go: by the state's name where it names the run, else by the note of it.
ks_ended() {
  KS_ENDED=
  if [ "$RUN" = "$KS_RUN" ]; then
    KS_ENDED=$PH
  elif [ -r "$KS_RUN_DIR/ended" ]; then
    IFS= read -r KS_ENDED <"$KS_RUN_DIR/ended" || :
  fi
}

ks_known() {
  case $1 in
    file) ks_say known n "$KS_N" run "$KS_RUN" ended "$KS_ENDED" kind file path "$3" post "$9" ;;
    remove) ks_say known n "$KS_N" run "$KS_RUN" ended "$KS_ENDED" kind file path "$3" post "$4" ;;
    env) ks_say known n "$KS_N" run "$KS_RUN" ended "$KS_ENDED" kind env path "$3" format "$9" keys "${10}" ;;
    service) ks_say known n "$KS_N" run "$KS_RUN" ended "$KS_ENDED" kind service how "$6" a "$7" b "$8" was "$3" ;;
  esac
}

# ks_survey_search N DIR PREFIXES: files below DIR, on its file system, that hold a credential whose fingerprint begins so: as
# their whole content, or as a token among other words. Names are told as the kernel knows them, without links.
ks_survey_search() {
  local rc said here cut
  ks_enter "$2"
  here=$(readlink /proc/self/cwd)
  rc=0
  # A copy may have other line ends than the original: they do not count. What cannot be read is told, and so is what find
  # itself says; that a file came and went is no fault.
  # shellcheck disable=SC2016
  said=$(ks_bounded 240 find . -xdev -type f -size -1025k -exec sh -c '
    n=$1 want=$2 here=${3%/} cr=$(printf "\r")
    shift 3
    match() {
      h=$(printf %s "$1" | sha256sum)
      h=${h%% *}
      for p in $want; do
        case $h in
          "$p"*)
            at=$here/${2#./}
            case $at in *[![:print:]]*) at="(unprintable)" ;; esac
            printf "found\tn=%s\tpath=%s\tfp=%s\n" "$n" "$at" "$h"
            return
            ;;
        esac
      done
    }
    for f; do
      [ -r "$f" ] || { [ ! -e "$f" ] || echo missed; continue; }
      v=$(head -c 32769 "$f" 2>/dev/null | tr -d "\000")
      [ ${#v} -gt 32768 ] || match "${v%"$cr"}" "$f"
      grep -q eyJ "$f" 2>/dev/null || continue
      for w in $(tr -cs "A-Za-z0-9_.-" "\n" <"$f" | grep "^eyJ.*[.].*[.]." | sort -u | head -n 64); do
        [ "$w" = "$v" ] || match "$w" "$f"
      done
    done
  ' sh "$1" "$3" "$here" {} + 2>&1) || rc=$?
  printf '%s\n' "$said" | grep '^found' | sort -u
  # Only a search that saw everything is whole.
  case $rc in 0 | 1) cut='' ;; *) cut=missed ;; esac
  if printf '%s\n' "$said" "$cut" | grep -v '^found' | grep -v 'No such file or directory$' | grep -q .; then
    ks_say searched n "$1" whole no
  else
    ks_say searched n "$1" whole yes
  fi
}

# ks_copies RUN VERB FINGERPRINTS [PATH]...: the copies of old credentials that keyswap keeps here, and the files at PATH, if
# they hold one. VERB `look` names them. `seal` says, by a rename of the state that only one can win, that there is no way back
# from RUN any more. `remove` takes them away, and with them what else the run and those before it would need to be taken
# back. Asked again it goes on where it was.
ks_copies() {
  local run verb fps d path sha fp
  run=$1 verb=$2 fps=$3
  shift 3
  [ -d "$K/cas" ] || ks_die missing "no run has been here"
  ks_state_check
  ks_cas_look || ks_die refused "$K has no state"
  ks_run_dir "$run"
  case $PH in
    # `old`: a later run was taken back, to what this one brought. What the files hold is the caller's to know.
    new | old | idle) ;;
    *) ks_held ;;
  esac
  ks_ended
  [ ! -e "$KS_RUN_DIR/ready" ] || [ "$KS_ENDED" = new ] ||
    ks_die refused "run $run did not end new on this host (${KS_ENDED:-not known})" run "$RUN" phase "$PH"
  [ "$verb" = look ] || ks_copies_seal
  [ "$verb" != seal ] || { ks_say copies run "$run"; return 0; }
  set +f
  for d in "$K"/backups/*/; do
    set -f
    d=${d%/}
    [ -r "$d/meta" ] || continue
    { IFS= read -r path && IFS= read -r sha && IFS= read -r fp; } <"$d/meta"
    case " $fps " in *" $fp "*) ;; *) ks_backup_holds "$d/content" "$fps" || continue ;; esac
    if [ "$verb" = remove ]; then
      # The name first, so that half of it is never taken for a backup.
      rm -f "$d/meta" && rm -rf "$d" && sync "$K/backups" || ks_unwritable "$d could not be removed"
    fi
    ks_say copy kind backup at "$d" of "$path" fp "$fp"
  done
  set +f
  for d in "$K"/runs/*/; do
    set -f
    d=${d%/}
    # What a later run needs is not touched.
    ! ks_earlier "$d" || ks_copies_of "$d" "$verb"
  done
  set -f
  for path; do
    ks_see "$path"
    [ "$KS_SHA" != absent ] || continue
    case " $fps " in *" $KS_FP "*) ;; *) continue ;; esac
    if [ "$verb" = remove ]; then
      rm -f "./$KS_NAME" && sync . || ks_unwritable "$path could not be removed" "$KS_NAME"
      ! ks_lstat "$KS_NAME" || ks_die conflict "$path is there again"
    fi
    ks_say copy kind superseded at "$KS_AT" of "$KS_AT" fp "$KS_FP"
  done
  ks_say copies run "$run"
}

# ks_backup_holds FILE FINGERPRINTS: a copy of an environment file that sets a variable to one of these.
ks_backup_holds() {
  [ -n "$2" ] && [ "$(stat -c %s "$1" 2>/dev/null || echo 999999)" -le 262144 ] || return 1
  ks_env_holds "$2" dotenv <"$1" || ks_env_holds "$2" dropin <"$1"
}

# ks_copies_seal: nobody takes this host back to before the run any more. The note comes first, for who looks at it before
# taking the host; then the state gets another epoch, so that a request which had looked before is refused.
ks_copies_seal() {
  local new
  new=
  [ ! -e "$KS_RUN_DIR/ready" ] || [ -e "$KS_RUN_DIR/retired" ] || { ks_note retired 1; new=1; }
  ks_boot
  ks_cas "$PH" - 0 "$RUN" $((E + 1))
  case $? in
    0) sync "$K/cas" || ks_die write "cannot sync $K/cas" ;;
    1)
      [ -z "$new" ] || rm -f "$KS_RUN_DIR/retired"
      ks_die held "the host has gone on meanwhile: look again" run "$RUN" phase "$PH"
      ;;
    *) ks_unwritable "cannot write in $K" ;;
  esac
}

# ks_earlier DIR: DIR is the run's own, or one of a run before it: by its name and by the host's own clock. In doubt it is not, and
# neither is any where this host had no part in the run.
ks_earlier() {
  [ "$1" != "$KS_RUN_DIR" ] || return 0
  [ -e "$KS_RUN_DIR/ready" ] && [ "${1##*/}" != "$RUN" ] || return 1
  ! [ "${1##*/}" \> "${KS_RUN_DIR##*/}" ] && ! [ "$1/undo" -nt "$KS_RUN_DIR/undo" ]
}

# ks_copies_of DIR VERB: the preimages of one run. One of an environment file may hold an old credential, too.
ks_copies_of() {
  local d
  set +f
  for d in "$1"/pre.*; do
    set -f
    [ -f "$d" ] || continue
    ks_see "$d"
    if [ "$2" = remove ]; then
      # Who would take that run back is told why it cannot be.
      [ -e "$1/retired" ] || { printf '1\n' >"$1/retired" && sync "$1/retired"; } || ks_unwritable "cannot write in $1"
      rm -f "$d" && sync "$1" || ks_unwritable "$d could not be removed"
    fi
    ks_say copy kind preimage at "$d" fp "$KS_FP"
  done
  set -f
}

# ks_reveal FINGERPRINT: the credential itself, from a backup: for the one request that shows that it is dead.
ks_reveal() {
  local d path sha fp
  ks_state_check
  set +f
  for d in "$K"/backups/*/; do
    set -f
    d=${d%/}
    [ -r "$d/meta" ] || continue
    { IFS= read -r path && IFS= read -r sha && IFS= read -r fp; } <"$d/meta"
    [ "$fp" = "$1" ] || continue
    ks_say value value "$(cat "$d/content")"
    return 0
  done
  set +f
  for d in "$K"/runs/*/pre.*; do
    set -f
    [ -f "$d" ] || continue
    ks_see "$d"
    [ "$KS_FP" = "$1" ] || continue
    ks_say value value "$(cat "$d")"
    return 0
  done
  set -f
  ks_die missing "there is no copy of it here"
}
