# shellcheck shell=dash
# env.sh - one key of an environment file, by line; every other byte stays.
#
# dotenv: `KEY=value`, `export KEY=value`; comments, blank lines and the continuation of a quoted or backslashed value
# are never taken for a key. dropin: a systemd drop-in's `Environment=` lines under [Service].
# All of it is shell, without a fork per line. Files with NUL bytes or over 256 KiB are refused by the caller.


# ks_bare TEXT: sets KS_BARE to TEXT without its escaped characters: a backslash that is left is the line end's.
ks_bare() {
  KS_BARE=$1
  while :; do
    case $KS_BARE in *\\?*) KS_BARE=${KS_BARE%%\\?*}${KS_BARE#*\\?} ;; *) break ;; esac
  done
}

# ks_env_rest TEXT: what follows in a line, within KS_SPAN (a quote: until it closes) or after a value's begin. Sets KS_SPAN to
# what goes on in the next line: a quote, `b` after a backslash, or nothing.
ks_env_rest() {
  KS_BARE=$1
  # Within single quotes a backslash is a character like any other.
  [ "$KS_SPAN" = "'" ] || ks_bare "$1"
  case $KS_SPAN in
    [\"\'])
      case $KS_BARE in *"$KS_SPAN"*) ks_bare "${KS_BARE#*"$KS_SPAN"}"; KS_SPAN= ;; *) return ;; esac
      ;;
  esac
  case $KS_BARE in *\\) KS_SPAN=b ;; *) KS_SPAN= ;; esac
}

# ks_env_key LINE: sets KS_KEY to the variable that a dotenv line sets, empty if none, and KS_HEAD to what stands before its name;
# KS_SPAN carries a value that goes on in the next line.
ks_env_key() {
  local line
  line=$1
  KS_KEY=
  if [ -n "$KS_SPAN" ]; then
    ks_env_rest "$line"
    return
  fi
  line=${line#"${line%%[! 	]*}"}
  case $line in '#'* | ';'* | '') return ;; esac
  case $line in 'export '* | 'export	'*) line=${line#export?}; line=${line#"${line%%[! 	]*}"} ;; esac
  case $line in *=*) ;; *) return ;; esac
  KS_HEAD=${1%"$line"}
  KS_KEY=${line%%=*}
  KS_KEY=${KS_KEY%"${KS_KEY##*[! 	]}"}
  KS_VALUE=${line#*=}
  case $KS_KEY in *[!A-Za-z0-9_]* | '') KS_KEY= ;; esac
  line=${KS_VALUE#"${KS_VALUE%%[! 	]*}"}
  case $line in
    \"* | \'*) KS_SPAN=${line%"${line#?}"}; line=${line#?} ;;
  esac
  ks_env_rest "$line"
}

# ks_dropin_key LINE: the same for a drop-in: KS_KEY is the variable of an `Environment=` line that sets exactly one, and
# KS_MANY holds all names of a line that sets several, or of a continued one. KS_SECTION carries the section, KS_SPAN that the
# line goes on, KS_CONT what it is.
ks_dropin_key() {
  local line word
  line=$1
  KS_KEY= KS_MANY=
  line=${line#"${line%%[! 	]*}"}
  case $line in '#'* | ';'*) return ;; esac
  if [ -z "$KS_SPAN" ]; then
    KS_CONT=
    case $line in
      '['*']'*) KS_SECTION=${line%%]*}; KS_SECTION=${KS_SECTION#?}; return ;;
      Environment=* | 'Environment ='*) [ "$KS_SECTION" != Service ] || KS_CONT='first'; line=${line#*=} ;;
    esac
  fi
  ks_bare "$line"
  case $KS_BARE in *\\) KS_SPAN=b ;; *) KS_SPAN= ;; esac
  [ -n "$KS_CONT" ] || return 0
  KS_VALUE=${line#*=}
  KS_VALUE=${KS_VALUE%[\"\']}
  # shellcheck disable=SC2086
  set -- $line
  for word; do
    word=${word#[\"\']}
    case $word in *=*) KS_MANY="$KS_MANY ${word%%=*}" ;; esac
  done
  # A quoted value with blanks is one assignment, however many words it has.
  case $KS_CONT$KS_MANY in 'first '*' '*) ;; first*) KS_KEY=${KS_MANY# } KS_MANY= ;; esac
  KS_CONT='more'
}

# ks_env_next FORMAT: reads one line from stdin and sets KS_LINE, KS_EOL, KS_END (its line end) and KS_KEY; fails at the end.
# KS_STYLE is the way in which the last whole line ended.
ks_env_next() {
  [ -n "$KS_END" ] || return 1
  IFS= read -r KS_LINE || KS_END=
  [ -n "$KS_LINE$KS_END" ] || return 1
  case $KS_LINE in
    *"$KS_CR") KS_EOL=$KS_CR; KS_LINE=${KS_LINE%"$KS_CR"} ;;
    *) KS_EOL= ;;
  esac
  [ -z "$KS_END" ] || KS_STYLE=$KS_EOL
  if [ "$1" = dropin ]; then ks_dropin_key "$KS_LINE"; else ks_env_key "$KS_LINE"; fi
}

# ks_env_start: the state of a walk through a file.
ks_env_start() {
  KS_SPAN= KS_CONT= KS_SECTION= KS_MANY= KS_KEY= KS_EOL= KS_STYLE= KS_LINE= KS_END=$KS_NL
}

# ks_env_add FORMAT LINES ENDED: prints LINES, joined by line ends, after a file whose last line had the end ENDED. A drop-in
# may have the section [Service] as often as it likes.
ks_env_add() {
  if [ -z "$3" ]; then
    if [ -n "$KS_EOL" ]; then printf '\n'; else printf '%s\n' "$KS_STYLE"; fi
  fi
  [ "$1" != dropin ] || [ "$KS_SECTION" = Service ] || printf '[Service]%s\n' "$KS_STYLE"
  if [ -n "$3" ]; then printf '%s%s\n' "$2" "$KS_STYLE"; else printf '%s' "$2"; fi
}

# ks_env_credential VALUE: adds to KS_CREDENTIALS the fingerprint of a value that may be a credential itself: one long word, and
# no path. Of anything else a digest would tell too much.
ks_env_credential() {
  local value
  value=${1#[\"\']}
  value=${value%[\"\']}
  case $value in /* | *[!A-Za-z0-9_.~+/=-]*) return 0 ;; esac
  [ ${#value} -ge 16 ] || return 0
  ks_digest "$value"
  KS_CREDENTIALS="$KS_CREDENTIALS $KS_DIGEST"
}

# ks_env_look FORMAT KEY REMOVE <FILE: sets KS_COUNT (lines that set KEY), KS_OLD (the value of the last one), KS_GONE (lines
# that set a key of REMOVE), KS_CREDENTIALS (fingerprints of what they were set to), KS_BAD (why the file cannot be edited by
# line; empty if it can) and KS_BYTES (how many were read).
ks_env_look() {
  local key
  KS_COUNT=0 KS_OLD='' KS_GONE=0 KS_BAD='' KS_BYTES=0 KS_CREDENTIALS=''
  ks_env_start
  while ks_env_next "$1"; do
    KS_BYTES=$((KS_BYTES + ${#KS_LINE} + ${#KS_EOL} + ${#KS_END}))
    for key in $2 $3; do
      case " $KS_MANY " in *" $key "*) KS_BAD="one line sets $key together with other variables" ;; esac
      [ "$KS_KEY" = "$key" ] && [ -n "$KS_SPAN" ] && KS_BAD="the value of $key goes over several lines"
    done
    [ -n "$KS_KEY" ] || continue
    if [ "$KS_KEY" = "$2" ]; then
      KS_COUNT=$((KS_COUNT + 1))
      KS_OLD=$KS_VALUE
      ks_env_credential "$KS_VALUE"
    else
      case " $3 " in *" $KS_KEY "*) KS_GONE=$((KS_GONE + 1)); ks_env_credential "$KS_VALUE" ;; esac
    fi
  done
  [ -z "$KS_SPAN" ] || KS_BAD="a quoted value does not end"
}

# ks_env_holds FINGERPRINTS FORMAT <FILE: an environment file that sets a variable to one of these credentials.
ks_env_holds() {
  ks_env_start
  while ks_env_next "$2"; do
    [ -n "$KS_KEY" ] || continue
    KS_CREDENTIALS=
    ks_env_credential "$KS_VALUE"
    [ -n "$KS_CREDENTIALS" ] || continue
    case " $1 " in *"$KS_CREDENTIALS "*) return 0 ;; esac
  done
  return 1
}

# ks_env_edit FORMAT KEY VALUE REMOVE: the file on stdin, edited, on stdout. The first line that sets KEY is replaced in its
# place, further ones go, a missing one is added at the end; keys of REMOVE (blank-separated) go.
ks_env_edit() {
  local done_ ended line
  done_= ended=$KS_NL
  line=$2=$3
  [ "$1" != dropin ] || line=Environment=$line
  ks_env_start
  while ks_env_next "$1"; do
    if [ -n "$KS_KEY" ] && [ "$KS_KEY" = "$2" ]; then
      [ -z "$done_" ] || continue
      done_=1
      KS_LINE=$line
      [ "$1" = dropin ] || KS_LINE=$KS_HEAD$line
    elif [ -n "$KS_KEY" ]; then
      case " $4 " in *" $KS_KEY "*) continue ;; esac
    fi
    printf '%s%s%s' "$KS_LINE" "$KS_EOL" "$KS_END"
    ended=$KS_END
  done
  [ -n "$done_" ] || ks_env_add "$1" "$line" "$ended"
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

# ks_env_lines FORMAT KEY <FILE: the lines that set KEY, as they are, but for the end of the last one.
ks_env_lines() {
  local sep
  sep=
  ks_env_start
  while ks_env_next "$1"; do
    [ "$KS_KEY" = "$2" ] || continue
    printf '%s%s' "$sep" "$KS_LINE"
    sep=$KS_EOL$KS_NL
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
  local lines done_ ended
  lines=
  [ "$2" = absent ] || lines=$(ks_env_lines "$1" "$3" <"$2")
  done_= ended=$KS_NL
  [ -n "$lines" ] || done_=1
  ks_env_start
  while ks_env_next "$1"; do
    if [ "$KS_KEY" = "$3" ]; then
      [ -z "$done_" ] || continue
      done_=1
      KS_LINE=$lines
    fi
    printf '%s%s%s' "$KS_LINE" "$KS_EOL" "$KS_END"
    ended=$KS_END
  done
  [ -n "$done_" ] || ks_env_add "$1" "$lines" "$ended"
}
