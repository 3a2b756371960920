# shellcheck shell=dash
# env.sh - one key of an environment file, by line; every other byte stays.
#
# dotenv: `KEY=value`, `export KEY=value`; comments, blank lines and the continuation of a quoted or backslashed value
# are never taken for a key. dropin: a systemd drop-in's `Environment=` lines under [Service].
# All of it is shell, without a fork per line. Files with NUL bytes or over 256 KiB are refused by the caller.

KS_CR=$(printf '\r')

# ks_env_key LINE: sets KS_KEY to the variable that a dotenv line sets, empty if none; KS_SPAN carries a value that goes on
# in the next line.
ks_env_key() {
  local line value q
  line=$1
  KS_KEY=
  case $KS_SPAN in
    '') ;;
    b) case $line in *\\) ;; *) KS_SPAN= ;; esac; return ;;
    *) case $line in *"$KS_SPAN"*) KS_SPAN= ;; esac; return ;;
  esac
  line=${line#"${line%%[! 	]*}"}
  case $line in '#'* | ';'* | '') return ;; esac
  case $line in 'export '*) line=${line#export }; line=${line#"${line%%[! 	]*}"} ;; esac
  case $line in *=*) ;; *) return ;; esac
  KS_KEY=${line%%=*}
  KS_KEY=${KS_KEY%"${KS_KEY##*[! 	]}"}
  KS_VALUE=${line#*=}
  case $KS_KEY in *[!A-Za-z0-9_]* | '') KS_KEY= ;; esac
  case $KS_VALUE in
    \"* | \'*)
      q=${KS_VALUE%"${KS_VALUE#?}"}
      value=${KS_VALUE#?}
      case $value in *"$q"*) ;; *) KS_SPAN=$q ;; esac
      ;;
    *\\) KS_SPAN=b ;;
  esac
}

# ks_dropin_key LINE: the same for a drop-in: KS_KEY is the variable of an `Environment=` line that sets exactly one, and
# KS_MANY holds all names of a line that sets several. KS_SECTION carries the section.
ks_dropin_key() {
  local line word
  line=$1
  KS_KEY= KS_MANY=
  line=${line#"${line%%[! 	]*}"}
  case $line in
    '['*']'*) KS_SECTION=${line%%]*}; KS_SECTION=${KS_SECTION#?}; return ;;
    Environment=* | 'Environment ='*) [ "$KS_SECTION" = Service ] || return 0 ;;
    *) return ;;
  esac
  line=${line#*=}
  KS_VALUE=${line#*=}
  KS_VALUE=${KS_VALUE%[\"\']}
  # shellcheck disable=SC2086
  set -- $line
  for word; do
    word=${word#[\"\']}
    case $word in *=*) KS_MANY="$KS_MANY ${word%%=*}" ;; esac
  done
  # A quoted value with blanks is one assignment, however many words it has.
  case $KS_MANY in ' '*' '*) ;; *) KS_KEY=${KS_MANY# } KS_MANY= ;; esac
}

# ks_env_next FORMAT: reads one line from stdin and sets KS_LINE, KS_EOL, KS_END (its line end) and KS_KEY; fails at the end.
ks_env_next() {
  [ -n "$KS_END" ] || return 1
  IFS= read -r KS_LINE || KS_END=
  [ -n "$KS_LINE$KS_END" ] || return 1
  case $KS_LINE in
    *"$KS_CR") KS_EOL=$KS_CR; KS_LINE=${KS_LINE%"$KS_CR"} ;;
    *) KS_EOL= ;;
  esac
  if [ "$1" = dropin ]; then ks_dropin_key "$KS_LINE"; else ks_env_key "$KS_LINE"; fi
}

# ks_env_start: the state of a walk through a file.
ks_env_start() {
  KS_SPAN= KS_SECTION= KS_MANY= KS_KEY= KS_EOL= KS_LINE= KS_END=$KS_NL
}

# ks_env_add FORMAT KEY VALUE ENDED: prints the line that sets KEY, after a file whose last line had the end ENDED.
ks_env_add() {
  [ -n "$4" ] || printf '%s\n' "$KS_EOL"
  if [ "$1" = dropin ]; then
    [ "$KS_SECTION" = Service ] || printf '[Service]%s\n' "$KS_EOL"
    printf 'Environment=%s=%s%s%s' "$2" "$3" "$KS_EOL" "$4"
  else
    printf '%s=%s%s%s' "$2" "$3" "$KS_EOL" "$4"
  fi
}

# ks_env_look FORMAT KEY REMOVE <FILE: sets KS_COUNT (lines that set KEY), KS_OLD (the value of the last one), KS_GONE (lines
# that set a key of REMOVE) and KS_BAD (why the file cannot be edited by line; empty if it can).
ks_env_look() {
  local key
  KS_COUNT=0 KS_OLD= KS_GONE=0 KS_BAD=
  ks_env_start
  while ks_env_next "$1"; do
    for key in $2 $3; do
      case " $KS_MANY " in *" $key "*) KS_BAD="one line sets $key together with other variables" ;; esac
      [ "$KS_KEY" = "$key" ] && [ -n "$KS_SPAN" ] && KS_BAD="the value of $key goes over several lines"
    done
    [ -n "$KS_KEY" ] || continue
    if [ "$KS_KEY" = "$2" ]; then
      KS_COUNT=$((KS_COUNT + 1))
      KS_OLD=$KS_VALUE
    else
      case " $3 " in *" $KS_KEY "*) KS_GONE=$((KS_GONE + 1)) ;; esac
    fi
  done
  [ -z "$KS_SPAN" ] || KS_BAD="a quoted value does not end"
}

# ks_env_edit FORMAT KEY VALUE REMOVE: the file on stdin, edited, on stdout. The first line that sets KEY is replaced in its
# place, further ones go, a missing one is added at the end; keys of REMOVE (blank-separated) go.
ks_env_edit() {
  local done_ ended
  done_= ended=$KS_NL
  ks_env_start
  while ks_env_next "$1"; do
    # A new section ends [Service]: what is missing goes before it.
    if [ "$1" = dropin ] && [ -z "$done_" ] && [ "$KS_SECTION" != Service ] && [ "${was:-}" = Service ]; then
      printf 'Environment=%s=%s%s\n' "$2" "$3" "$KS_EOL"
      done_=1
    fi
    was=$KS_SECTION
    if [ -n "$KS_KEY" ] && [ "$KS_KEY" = "$2" ]; then
      [ -z "$done_" ] || continue
      done_=1
      if [ "$1" = dropin ]; then
        KS_LINE=Environment=$2=$3
      else
        KS_LINE=${KS_LINE%%"$2"*}$2=$3
      fi
    elif [ -n "$KS_KEY" ]; then
      case " $4 " in *" $KS_KEY "*) continue ;; esac
    fi
    printf '%s%s%s' "$KS_LINE" "$KS_EOL" "$KS_END"
    ended=$KS_END
  done
  [ -n "$done_" ] || ks_env_add "$1" "$2" "$3" "$ended"
}

# ks_env_chain FORMAT [KEY VALUE REMOVE]...: several edits of one file, stdin to stdout.
ks_env_chain() {
  local format key value remove
  format=$1 key=$2 value=$3 remove=$4
  shift 4
  if [ $# = 0 ]; then
    ks_env_edit "$format" "$key" "$value" "$remove"
  else
    ks_env_edit "$format" "$key" "$value" "$remove" | ks_env_chain "$format" "$@"
  fi
}

# ks_env_lines FORMAT KEY <FILE: the lines that set KEY, as they are.
ks_env_lines() {
  ks_env_start
  while ks_env_next "$1"; do
    [ "$KS_KEY" != "$2" ] || printf '%s%s\n' "$KS_LINE" "$KS_EOL"
  done
}

# ks_env_revert FORMAT PREIMAGE KEY...: the file on stdin, with just the lines of each KEY as the preimage had them.
ks_env_revert() {
  local format pre key
  format=$1 pre=$2 key=$3
  shift 3
  if [ $# = 0 ]; then
    ks_env_revert1 "$format" "$pre" "$key"
  else
    ks_env_revert1 "$format" "$pre" "$key" | ks_env_revert "$format" "$pre" "$@"
  fi
}

ks_env_revert1() {
  local lines done_
  lines=
  [ "$2" = absent ] || lines=$(ks_env_lines "$1" "$3" <"$2")
  done_=
  ks_env_start
  while ks_env_next "$1"; do
    if [ "$KS_KEY" = "$3" ]; then
      [ -n "$lines" ] && [ -z "$done_" ] && printf '%s%s' "$lines" "$KS_END"
      done_=1
      continue
    fi
    printf '%s%s%s' "$KS_LINE" "$KS_EOL" "$KS_END"
  done
  [ -n "$done_" ] || [ -z "$lines" ] || printf '%s\n' "$lines"
}
