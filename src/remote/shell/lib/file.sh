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

# ks_enter DIR: the working directory becomes DIR, proven by the kernel's own name for it, which KS_HERE then is.
ks_enter() {
  # shellcheck disable=SC2164
  cd / && cd -P "$1" 2>/dev/null || {
    [ -d "$1" ] && ks_die refused "cannot enter $1"
    ks_die missing "directory $1 does not exist"
  }
  # After `cd -P` dash and ash have asked the kernel; bash has put the name together by itself.
  KS_HERE=$PWD
  [ -z "${BASH_VERSION:-}" ] || KS_HERE=$(readlink /proc/self/cwd) || KS_HERE=
  case $KS_HERE in /*) ;; *) ks_die refused "cannot tell where $1 is" ;; esac
  [ "$KS_HERE" = "$1" ] && return 0
  ks_real "$1"
  [ "$KS_HERE" = "$KS_REAL" ] || ks_die refused "$1 led to $KS_HERE: a name on the way was changed, or is not to be trusted"
}

# What is asked of a file: type and mode, size, owner, group, mode, hard links, device and inode.
KS_FACTS='%f %s %u %g %a %h %d:%i'

# ks_facts_of FACTS: sets KS_TYPE (f file, l link, d directory, o other), KS_SIZE KS_OWN KS_GRP KS_MODE KS_LINKS KS_INO.
ks_facts_of() {
  # shellcheck disable=SC2086
  set -- $1
  case $1 in 8???) KS_TYPE=f ;; a???) KS_TYPE=l ;; 4???) KS_TYPE=d ;; *) KS_TYPE=o ;; esac
  KS_SIZE=$2 KS_OWN=$3 KS_GRP=$4 KS_MODE=$5 KS_LINKS=$6 KS_INO=$7
}

# ks_lstat NAME: facts of ./NAME itself; fails when there is nothing.
ks_lstat() {
  ks_get stat -c "$KS_FACTS" -- "./$1" 2>/dev/null || return 1
  ks_facts_of "$KS_GOT"
}

# ks_fstat FD: sets KS_FD_FACTS to the facts of a descriptor.
ks_fstat() {
  ks_get stat -L -c "$KS_FACTS" -- "/proc/self/fd/$1" || return 1
  KS_FD_FACTS=$KS_GOT
}

# ks_alone FACTS: a directory with these facts is ours alone: nobody else can change a name in it.
ks_alone() {
  # shellcheck disable=SC2086
  set -- $1
  ks_trusted "$3" || return 1
  # What an access list grants shows in the group's bits.
  case $5 in *[2367]? | *[2367]) return 1 ;; esac
}

# ks_hold NAME: has a helper open the file ./NAME, because opening a pipe that somebody planted there would never end. What the
# helper got cannot change any more: KS_HELD names it by descriptor. ks_drop lets go.
ks_hold() {
  local i
  KS_HOLDER=
  if [ -n "$KS_HANDS" ]; then
    # They do not wait for whom a pipe would wait for.
    ks_hand hold "./$1" || return 1
    KS_HELD=/proc/$KS_HANDS/fd/$KS_SAID
    return 0
  fi
  # A grandchild: no shell of ours has a word to say when it is killed. `exec` first, or it would wait with our pipe in hand.
  KS_HOLDER=$( (exec >/dev/null 2>&1 8>&- 9<&-; exec sleep 10 8<"./$1") & echo $!)
  KS_HELD=/proc/$KS_HOLDER/fd/8
  i=0
  until [ -e "$KS_HELD" ]; do
    i=$((i + 1))
    [ $i -lt 1000 ] || sleep 0.05
    [ $i -lt 1040 ] && [ -e "/proc/$KS_HOLDER" ] || { ks_drop; return 1; }
  done
}

ks_drop() {
  if [ -n "$KS_HOLDER" ]; then kill -9 "$KS_HOLDER" 2>/dev/null; else ks_hand drop; fi
  :
}

# ks_open NAME: opens the regular file ./NAME on descriptor 6 and proves that it is the file that the name showed; fails when
# there is nothing. In a directory that is ours alone the name cannot change under us. The hands say at once what it holds: KS_SUM
# is its SHA-256 and KS_PRINT its fingerprint, both empty where they do not.
ks_open() {
  local dir
  KS_SUM='' KS_PRINT=''
  if [ -n "$KS_HANDS" ]; then
    dir=0
    ks_hand content "$KS_FACTS" "./$1" || dir=$?
    [ $dir != 1 ] || return 1
    if [ $dir = 0 ]; then
      dir=$KS_SAID
      command exec 6<"/proc/$KS_HANDS/fd/${dir%% *}" || ks_die refused "cannot open $PWD/$1"
      ks_hand drop
      dir=${dir#* }
      KS_SUM=${dir%% *} dir=${dir#* }
      KS_PRINT=${dir%% *}
      ks_facts_of "${dir#* }"
      [ "$KS_SUM" != - ] || KS_SUM='' KS_PRINT=''
      return 0
    fi
  fi
  # One look at the directory and at the name.
  ks_get stat -c "$KS_FACTS" -- . "./$1" 2>/dev/null || {
    [ -n "$KS_GOT" ] || ks_die refused "cannot look at $PWD"
    return 1
  }
  dir=$KS_GOT
  ks_facts_of "${dir#*"$KS_NL"}"
  dir=${dir%%"$KS_NL"*}
  [ "$KS_TYPE" = f ] || ks_die refused "$PWD/$1 is not a regular file"
  if ks_alone "$dir"; then
    command exec 6<"./$1" || ks_die refused "cannot open $PWD/$1"
    return 0
  fi
  ks_hold "$1" || ks_die refused "cannot open $PWD/$1"
  # A regular file is opened without waiting, and what the helper holds stays what it is.
  [ -f "$KS_HELD" ] || { ks_drop; ks_die refused "$PWD/$1 was exchanged while it was opened"; }
  command exec 6<"$KS_HELD" || { ks_drop; ks_die refused "cannot open $PWD/$1"; }
  ks_drop
  ks_fstat 6 && [ "${KS_FD_FACTS##* }" = "$KS_INO" ] || ks_die refused "$PWD/$1 was exchanged while it was opened"
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
  if [ -n "$KS_HANDS" ]; then
    ks_hand mounted "$1"
    return
  fi
  # shellcheck disable=SC2034
  while read -r id parent dev root point rest; do
    [ "$point" = "$1" ] && return 0
  done </proc/self/mountinfo
  return 1
}

# ks_blocked [NAME]: why the working directory, or ./NAME, cannot be written, and the command that would change it.
# Sets KS_WHY and KS_FIX, both empty when nothing was found, KS_FLAGS, the attributes of ./NAME, and KS_FREE, what is free for us
# on that file system as words for an answer; empty where nobody can say.
ks_blocked() {
  local id parent dev root point opts rest best here attrs
  KS_WHY='' KS_FIX='' KS_FLAGS='' KS_FREE='' best='' attrs=''
  here=$PWD
  [ -z "${BASH_VERSION:-}" ] || here=$(readlink /proc/self/cwd)
  if [ -n "$KS_HANDS" ] && ks_hand mount "$here"; then
    attrs=${KS_SAID%% *} best=${KS_SAID#* }
  else
    # shellcheck disable=SC2034
    while read -r id parent dev root point opts rest; do
      case $here/ in
        "${point%/}"/*) [ ${#point} -ge ${#best} ] && { best=$point; attrs=$opts; } ;;
      esac
    done </proc/self/mountinfo
  fi
  case ,$attrs, in
    *,ro,*) KS_WHY="$best is mounted read-only"; KS_FIX="mount -o remount,rw $best"; return ;;
  esac
  # Where there is no such program, or no such attributes on this file system, nothing is said.
  # shellcheck disable=SC2086
  ks_get lsattr -d . ${1:+"./$1"} 2>/dev/null
  attrs=$KS_GOT
  rest=${attrs#*"$KS_NL"}
  case $attrs in *"$KS_NL"*) KS_FLAGS=${rest%% *} ;; esac
  case ${attrs%% *} in
    *i*) KS_WHY="$here is immutable"; KS_FIX="chattr -i $here"; return ;;
    *a*) KS_WHY="$here is append-only"; KS_FIX="chattr -a $here"; return ;;
  esac
  case $KS_FLAGS in
    *i*) KS_WHY="$here/$1 is immutable"; KS_FIX="chattr -i $here/$1"; return ;;
    *a*) KS_WHY="$here/$1 is append-only"; KS_FIX="chattr -a $here/$1"; return ;;
  esac
  ks_get stat -f -c '%a %d %c %f %S %i' . 2>/dev/null || return 0
  # shellcheck disable=SC2086
  set -- $KS_GOT
  rest=$1
  [ "$KS_UID" != 0 ] || rest=$4
  KS_FREE="blocks $rest block $5 inodes $2 of $3 system $6"
  [ "$1" != 0 ] || { KS_WHY="no space left on $best"; return; }
  # Some file systems have no number of inodes: they show 0 of 0.
  [ "$2" != 0 ] || [ "$3" = 0 ] || KS_WHY="no inodes left on $best"
}

# ks_unwritable WHAT [NAME]: the request failed because something could not be written; says why as far as it can be told.
ks_unwritable() {
  ks_blocked "${2:-}"
  ks_die write "$1${KS_WHY:+: $KS_WHY}" fix "$KS_FIX"
}

# ks_temp PREFIX MODE UID GID: creates a file beside the destination with its final mode and owner before its first byte;
# descriptor 5 is open on it and KS_TEMP is its name. The shell makes it (`set -C`: O_EXCL, which follows no link) under a
# name that nobody can guess, and so cannot plant. A default access list opens what a shell makes: then `mktemp` makes it.
ks_temp() {
  local facts
  ks_random
  KS_TEMP=./$1$KS_RANDOM
  set -C
  command exec 5>"$KS_TEMP" || { set +C; ks_unwritable "cannot create a file in $PWD"; }
  set +C
  ks_fstat 5 || ks_die refused "cannot look at the new file in $PWD"
  facts=$KS_FD_FACTS
  case $facts in
    '8180 0 '*) ;;
    8???' 0 '*) rm -f "$KS_TEMP"; ks_temp_closed "$1"; ks_no_acl "$2"; facts=$KS_FD_FACTS ;;
    *) ks_die refused "the new file in $PWD was exchanged while it was made" ;;
  esac
  KS_TEMP_INO=${facts##* }
  # shellcheck disable=SC2086
  set -- "$2" "$3:$4" $facts
  if [ "$2" != "$5:$6" ]; then
    chown "$2" /proc/self/fd/5 2>/dev/null || {
      rm -f "$KS_TEMP"
      ks_die refused "cannot give a file to $2 in $PWD"
    }
  fi
  [ "$1" = 600 ] || chmod "$1" /proc/self/fd/5 || ks_unwritable "cannot set the mode in $PWD"
}

# ks_no_acl MODE: takes from the new file what it inherited from its directory's default access list: with any mode but 600 the list
# would let others in, and a file that has one cannot be replaced the next time.
ks_no_acl() {
  [ -n "$KS_HANDS" ] && ks_hand bare /proc/self/fd/5 && return 0
  # All at once: at no time is it open to its group.
  ! setfacl -b -m g::-,o::- /proc/self/fd/5 2>/dev/null || return 0
  [ "$1" = 600 ] || {
    rm -f "$KS_TEMP"
    ks_die refused "$PWD has a default access list, which would open the new file to others" fix "setfacl -k $PWD"
  }
}

# ks_temp_closed PREFIX: the new file by `mktemp`, which gives it to nobody else, whatever the directory's access list says.
ks_temp_closed() {
  local here
  KS_TEMP=$(mktemp "./$1XXXXXX" 2>/dev/null) || ks_unwritable "cannot create a file in $PWD"
  # Never opened for writing by its name: a link that was put in its place would make or open a file elsewhere.
  ks_hold "${KS_TEMP#./}" || ks_die refused "cannot open the new file in $PWD"
  [ -f "$KS_HELD" ] || { ks_drop; ks_die refused "the new file in $PWD was exchanged while it was made"; }
  command exec 5<>"$KS_HELD" || { ks_drop; ks_die refused "cannot open the new file in $PWD"; }
  ks_drop
  ks_fstat 5
  # The kernel's own name for it: an empty file of ours that lies elsewhere is not the one that was just made here.
  case $KS_FD_FACTS in
    "8180 0 $KS_UID "*' 600 1 '*)
      here=$(readlink /proc/self/cwd) && [ "$(readlink /proc/self/fd/5)" = "${here%/}/${KS_TEMP#./}" ] && return 0
      ;;
  esac
  ks_die refused "the new file in $PWD was exchanged while it was made"
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
  set +f
  set -- ./"$1"*
  set -f
  ks_clear "$@"
}

# ks_clear NAME...: removes files of ours, and passes over what cannot be one: a directory that somebody has put there must keep
# nobody from committing or going back.
ks_clear() {
  local name
  for name; do
    [ -e "$name" ] || [ -L "$name" ] || continue
    [ -d "$name" ] && [ ! -L "$name" ] || rm -f -- "$name" || return 1
  done
}

# ks_sum: sets KS_SHA to the SHA-256 of the file that ks_open has opened. Fails where it cannot be read, or is larger than any
# credential and env file (1 MiB): one that was blown up must not fill the state directory.
ks_sum() {
  [ "$KS_SIZE" -le 1048576 ] || return 1
  KS_SHA=$KS_SUM
  [ -n "$KS_SHA" ] || ks_hex /proc/self/fd/6
}

# ks_content NAME: sets KS_SHA of ./NAME, or to `absent`; leaves KS_MODE, KS_OWN and so on of it.
ks_content() {
  if ks_open "$1"; then
    ks_sum && return 0
    [ "$KS_SIZE" -le 1048576 ] || ks_die refused "$PWD/$1 is larger than 1 MiB"
    ks_die refused "cannot read $PWD/$1"
  fi
  KS_SHA=absent
}
