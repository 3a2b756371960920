# shellcheck shell=dash
# file.sh - files in directories that others may write.
#
# The rule: enter the directory, prove where we are, then use plain names (`./name`) only, and hold what was opened by
# descriptor. A name is never trusted twice. Descriptor 5 is a file being written, 6 one being read.

# ks_trusted UID: owned by somebody whose links we follow: root, or ourselves where we are not root.
ks_trusted() {
  [ "$1" = 0 ] || [ "$1" = "$KS_UID" ]
}

# ks_real PATH: sets KS_REAL to PATH with links resolved. A link is followed only if a trusted user owns it and its
# directory, and nobody else can write that directory; anything else could be swapped under us.
ks_real() {
  local rest cur comp tgt n facts
  rest=${1#/}
  cur=
  n=0
  while [ -n "$rest" ]; do
    comp=${rest%%/*}
    case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
    case $comp in
      '' | .) continue ;;
      ..) cur=${cur%/*}; continue ;;
    esac
    if [ -L "$cur/$comp" ]; then
      n=$((n + 1))
      [ $n -le 16 ] || ks_die refused "too many links in $1"
      facts=$(stat -c '%u' -- "$cur/$comp") && ks_trusted "$facts" ||
        ks_die refused "$cur/$comp is a link that root does not own; keyswap does not follow it"
      facts=$(stat -c '%u %a' -- "${cur:-/}") && ks_trusted "${facts%% *}" ||
        ks_die refused "$cur/$comp is a link in a directory that root does not own; keyswap does not follow it"
      case ${facts##* } in
        *[2367]? | *[2367]) ks_die refused "$cur/$comp is a link in a directory that others can write; keyswap does not follow it" ;;
      esac
      tgt=$(readlink -- "$cur/$comp") || ks_die refused "cannot read the link $cur/$comp"
      case $tgt in
        /*) cur=; rest=${tgt#/}${rest:+/$rest} ;;
        *) rest=$tgt${rest:+/$rest} ;;
      esac
    else
      cur=$cur/$comp
    fi
  done
  KS_REAL=${cur:-/}
}

# ks_enter DIR: the working directory becomes DIR, proven by the kernel's own name for it.
ks_enter() {
  local here
  # shellcheck disable=SC2164
  cd / && cd -P "$1" 2>/dev/null || {
    [ -d "$1" ] && ks_die refused "cannot enter $1"
    ks_die missing "directory $1 does not exist"
  }
  here=$(readlink /proc/self/cwd) || ks_die refused "cannot tell where $1 is"
  [ "$here" = "$1" ] && return 0
  ks_real "$1"
  [ "$here" = "$KS_REAL" ] || ks_die refused "$1 led to $here: a name on the way was changed, or is not to be trusted"
}

# ks_lstat NAME: facts of ./NAME itself; fails when there is nothing.
# Sets KS_TYPE (f file, l link, d directory, o other), KS_SIZE KS_OWN KS_GRP KS_MODE KS_LINKS KS_INO.
ks_lstat() {
  local facts
  facts=$(stat -c '%f %s %u %g %a %h %d:%i' -- "./$1" 2>/dev/null) || return 1
  # shellcheck disable=SC2086
  set -- $facts
  case $1 in 8???) KS_TYPE=f ;; a???) KS_TYPE=l ;; 4???) KS_TYPE=d ;; *) KS_TYPE=o ;; esac
  KS_SIZE=$2 KS_OWN=$3 KS_GRP=$4 KS_MODE=$5 KS_LINKS=$6 KS_INO=$7
}

# ks_hold NAME: has a helper open the file ./NAME, because opening a pipe that somebody planted there would never end. What the
# helper got cannot change any more: KS_HELD names it by descriptor, KS_HELD_FACTS are its type and inode. ks_drop lets go.
ks_hold() {
  local i
  # A grandchild: no shell of ours has a word to say when it is killed. `exec` first, or it would wait with our pipe in hand.
  KS_HOLDER=$( (exec >/dev/null 2>&1; exec sleep 10 8<"./$1") & echo $!)
  KS_HELD=/proc/$KS_HOLDER/fd/8
  i=0
  until [ -e "$KS_HELD" ]; do
    i=$((i + 1))
    [ $i -lt 1000 ] || sleep 0.05
    [ $i -lt 1040 ] && [ -e "/proc/$KS_HOLDER" ] || { ks_drop; return 1; }
  done
  KS_HELD_FACTS=$(stat -L -c '%f %d:%i' -- "$KS_HELD") || { ks_drop; return 1; }
}

ks_drop() { kill -9 "$KS_HOLDER" 2>/dev/null; :; }

# ks_open NAME: opens the regular file ./NAME on descriptor 6 and proves that it is the file that the name showed.
ks_open() {
  ks_lstat "$1" || return 1
  [ "$KS_TYPE" = f ] || ks_die refused "$PWD/$1 is not a regular file"
  ks_hold "$1" || ks_die refused "cannot open $PWD/$1"
  case $KS_HELD_FACTS in
    8???" $KS_INO") ;;
    *) ks_drop; ks_die refused "$PWD/$1 was exchanged while it was opened" ;;
  esac
  command exec 6<"$KS_HELD" || { ks_drop; ks_die refused "cannot open $PWD/$1"; }
  ks_drop
}

# ks_split PATH: enters the real directory of PATH and sets KS_NAME to the plain name in it. A link at the end is
# followed only as ks_real allows it.
ks_split() {
  local dir name path
  path=$1
  dir=${path%/*}
  name=${path##*/}
  ks_enter "${dir:-/}"
  if [ -L "./$name" ]; then
    ks_real "$path"
    path=$KS_REAL
    dir=${path%/*}
    name=${path##*/}
    ks_enter "${dir:-/}"
    [ ! -L "./$name" ] || ks_die refused "$path is a link"
  fi
  KS_NAME=$name
}

# ks_mountpoint DIR/NAME: succeeds when a file system (or a single file) is mounted exactly there.
ks_mountpoint() {
  local id parent dev root point rest
  # shellcheck disable=SC2034
  while read -r id parent dev root point rest; do
    [ "$point" = "$1" ] && return 0
  done </proc/self/mountinfo
  return 1
}

# ks_blocked: why the working directory cannot be written, and the command that would change it.
# Sets KS_WHY and KS_FIX, both empty when nothing was found.
ks_blocked() {
  local id parent dev root point opts rest best here attrs
  KS_WHY= KS_FIX= best=
  here=$(readlink /proc/self/cwd)
  # shellcheck disable=SC2034
  while read -r id parent dev root point opts rest; do
    case $here/ in
      "${point%/}"/*) [ ${#point} -ge ${#best} ] && { best=$point; attrs=$opts; } ;;
    esac
  done </proc/self/mountinfo
  case ,$attrs, in
    *,ro,*) KS_WHY="$best is mounted read-only"; KS_FIX="mount -o remount,rw $best"; return ;;
  esac
  attrs=$(lsattr -d . 2>/dev/null) && case ${attrs%% *} in
    *i*) KS_WHY="$here is immutable"; KS_FIX="chattr -i $here"; return ;;
    *a*) KS_WHY="$here is append-only"; KS_FIX="chattr -a $here"; return ;;
  esac
  if [ -n "${1:-}" ]; then
    attrs=$(lsattr -d "./$1" 2>/dev/null) && case ${attrs%% *} in
      *i*) KS_WHY="$here/$1 is immutable"; KS_FIX="chattr -i $here/$1"; return ;;
      *a*) KS_WHY="$here/$1 is append-only"; KS_FIX="chattr -a $here/$1"; return ;;
    esac
  fi
  attrs=$(df -P . 2>/dev/null | tail -n 1)
  # shellcheck disable=SC2086
  set -- $attrs
  [ "${4:-1}" != 0 ] || { KS_WHY="no space left on ${6:-$here}"; return; }
  attrs=$(df -P -i . 2>/dev/null | tail -n 1)
  # shellcheck disable=SC2086
  set -- $attrs
  # Some file systems have no number of inodes: they show 0 of 0.
  [ "${2:-0} ${4:-1}" = "0 0" ] || [ "${4:-1}" != 0 ] || KS_WHY="no inodes left on ${6:-$here}"
}

# ks_unwritable WHAT [NAME]: the request failed because something could not be written; says why as far as it can be told.
ks_unwritable() {
  ks_blocked "${2:-}"
  ks_die write "$1${KS_WHY:+: $KS_WHY}" fix "$KS_FIX"
}

# ks_temp PREFIX MODE UID GID: creates a file beside the destination with its final mode and owner before its first byte;
# descriptor 5 is open on it and KS_TEMP is its name. `mktemp` makes it, because a default ACL would open a file that a
# redirection made.
ks_temp() {
  local facts here
  KS_TEMP=$(mktemp "./$1XXXXXX" 2>/dev/null) || ks_unwritable "cannot create a file in $PWD"
  # Never opened for writing by its name: a link that was put in its place would make or open a file elsewhere.
  ks_hold "${KS_TEMP#./}" || ks_die refused "cannot open the new file in $PWD"
  case $KS_HELD_FACTS in
    8180' '*) command exec 5<>"$KS_HELD" || { ks_drop; ks_die refused "cannot open the new file in $PWD"; } ;;
    *) ks_drop; ks_die refused "the new file in $PWD was exchanged while it was made" ;;
  esac
  ks_drop
  facts=$(stat -L -c '%f %s %u %h %d:%i' /proc/self/fd/5)
  KS_TEMP_INO=${facts##* }
  # The kernel's own name for it: an empty file of ours that lies elsewhere is not the one that was just made here.
  [ "${facts% *}" = "8180 0 $KS_UID 1" ] && here=$(readlink /proc/self/cwd) &&
    [ "$(readlink /proc/self/fd/5)" = "${here%/}/${KS_TEMP#./}" ] ||
    ks_die refused "the new file in $PWD was exchanged while it was made"
  if [ "$3:$4" != "$KS_UID:$KS_GID" ]; then
    chown "$3:$4" /proc/self/fd/5 2>/dev/null || {
      rm -f "$KS_TEMP"
      ks_die refused "cannot give a file to $3:$4 in $PWD"
    }
  fi
  [ "$2" = 600 ] || chmod "$2" /proc/self/fd/5 || ks_unwritable "cannot set the mode in $PWD"
}

# ks_seal NAME SHA: the file on descriptor 5 must hold SHA; it is synced and renamed to NAME, and the name is read back.
ks_seal() {
  ks_hex /proc/self/fd/5 || KS_SHA=unreadable
  if [ "$KS_SHA" != "$2" ]; then
    rm -f "$KS_TEMP"
    ks_unwritable "the new content of $PWD/$1 did not arrive whole"
  fi
  sync /proc/self/fd/5 || { rm -f "$KS_TEMP"; ks_unwritable "cannot sync the new content of $PWD/$1"; }
  mv -fT "$KS_TEMP" "./$1" 2>/dev/null || { rm -f "$KS_TEMP"; ks_unwritable "cannot rename into $PWD/$1" "$1"; }
  sync . || ks_unwritable "cannot sync $PWD"
  exec 5>&-
  ks_lstat "$1" && [ "$KS_INO" = "$KS_TEMP_INO" ] || ks_die conflict "$PWD/$1 was exchanged while it was placed"
}

# ks_sweep PREFIX: removes our own temporary files from the working directory.
ks_sweep() {
  local f
  set +f
  for f in ./"$1"*; do
    set -f
    [ -e "$f" ] || [ -L "$f" ] || continue
    rm -f "$f" || return 1
  done
  set -f
}

# ks_content NAME: sets KS_SHA of ./NAME, or to `absent`; leaves KS_MODE, KS_OWN and so on of it.
ks_content() {
  if ks_open "$1"; then
    # No credential and no env file is that large: a file that was blown up must not fill the state directory.
    [ "$KS_SIZE" -le 1048576 ] || ks_die refused "$PWD/$1 is larger than 1 MiB"
    ks_hex /proc/self/fd/6 || ks_die refused "cannot read $PWD/$1"
    return 0
  fi
  KS_SHA=absent
}
