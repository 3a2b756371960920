//! What surrounds a run on a host: room for its way back, and who else could read what is kept there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::saga::Saga;
use crate::remote::shell::quote::words;
use crate::remote::{Answer, Op, UndoRecord};

/// The limit for the look.
const LIMIT: Duration = Duration::from_secs(20);
/// What a file takes at least.
const BLOCK: u64 = 4096;

/// Says of directories (of the nearest one that is there) what is free, and of processes whose they are and which
/// engine's sockets they see.
const LOOK: &str = r#"
free=%a; [ "$(id -u)" != 0 ] || free=%f
room() {
  n=0
  for d in "$@"; do
    while [ ! -d "$d" ]; do d=${d%/*}; d=${d:-/}; done
    echo "d:$n:$(stat -f -c "$free:%S:%d:%c:%i" "$d")"
    n=$((n + 1))
  done
}
runner() {
  u='' g='' gs='' socks='' here=no
  while read -r k v r; do
    case $k in Uid:) u=$v ;; Gid:) g=$v ;; Groups:) gs="$v $r" ;; esac
  done <"/proc/$1/status" || return 0
  [ "$(stat -L -c %d.%i "/proc/$1/root/")" != "$(stat -L -c %d.%i /)" ] || here=yes
  for s in run/docker.sock var/run/docker.sock run/podman/podman.sock; do
    f=/proc/$1/root/$s
    [ -L "/proc/$1/root/var/run" ] && [ "$s" = var/run/docker.sock ] && continue
    [ ! -S "$f" ] || socks="$socks,$(stat -L -c %u.%g.%a "$f")"
  done
  for x in $gs; do g=$g.$x; done
  echo "r:$u:$g:$here:${socks#,}"
}
"#;

/// Room that is needed in a directory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Need {
    bytes: u64,
    inodes: u64,
}

/// What the host said of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Free {
    bytes: u64,
    /// `None`: the file system counts none.
    inodes: Option<u64>,
    id: String,
}

impl Saga {
    /// Looks whether there is room for the new files and the way back, and whether jobs could read the state directory.
    /// Gives back a word of warning; a host that cannot be looked at in this way gives none.
    ///
    /// # Errors
    /// When there is too little room.
    pub async fn look_around(&mut self) -> Result<Option<String>, String> {
        if !self.changes() {
            return Ok(None);
        }
        let needs = needs(&self.facts.state_dir, &self.plan.undo);
        let room: Vec<String> = std::iter::once("room".to_owned()).chain(needs.keys().cloned()).collect();
        let runners = self.runners.iter().map(|pid| format!("\nrunner {pid}"));
        let script = format!("{LOOK}\n{}{}", words(&room), runners.collect::<String>());
        let Ok(Answer::Acted(said)) = self.call(&Op::Peek { hold: None, script, limit: LIMIT }, None).await else {
            return Ok(None);
        };
        enough(&needs, &said.output)?;
        Ok(said.output.split_whitespace().find_map(|word| reader(word, self.facts.uid)))
    }
}

/// The least that a run needs: a temporary file beside each destination, the old content and a backup where it keeps its
/// state.
fn needs(state_dir: &str, undo: &[UndoRecord]) -> BTreeMap<String, Need> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    let mut add = |dir: &str, bytes: u64| {
        let need = needs.entry(dir.to_owned()).or_default();
        need.bytes += bytes.div_ceil(BLOCK).max(1) * BLOCK;
        need.inodes += 1;
    };
    for record in undo {
        let (path, before) = match record {
            UndoRecord::File { path, before, .. } => (path, Some(before.size)),
            UndoRecord::Env { path, before, .. } => (path, before.as_ref().map(|before| before.size)),
            UndoRecord::Remove { path, .. } => (path, None),
            _ => continue,
        };
        add(path.parent(), before.unwrap_or(0));
        if let Some(size) = before {
            add(state_dir, size);
        }
    }
    needs
}

/// Whether what is free is enough. Directories of one file system share it.
fn enough(needs: &BTreeMap<String, Need>, said: &str) -> Result<(), String> {
    let mut systems: BTreeMap<(String, u64), (Free, Need, Vec<&str>)> = BTreeMap::new();
    for (at, (dir, need)) in needs.iter().enumerate() {
        let prefix = format!("d:{at}:");
        let Some(free) = said.split_whitespace().find_map(|word| word.strip_prefix(&prefix)).and_then(free) else {
            continue;
        };
        let system = systems.entry((free.id.clone(), free.bytes)).or_insert((free, Need::default(), Vec::new()));
        system.1.bytes += need.bytes;
        system.1.inodes += need.inodes;
        system.2.push(dir);
    }
    for (free, need, dirs) in systems.values() {
        let dirs = dirs.join(" and ");
        if free.bytes < need.bytes {
            let (needed, there) = (need.bytes / 1024, free.bytes / 1024);
            return Err(format!("too little room in {dirs}: at least {needed} KiB are needed, {there} KiB are free"));
        }
        if let Some(there) = free.inodes.filter(|there| *there < need.inodes) {
            return Err(format!("too few inodes in {dirs}: at least {} are needed, {there} are free", need.inodes));
        }
    }
    Ok(())
}

/// `BLOCKS:SIZE:INODES:OF:ID`
fn free(text: &str) -> Option<Free> {
    let mut parts = text.split(':');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (blocks, size, inodes, of) = (number()?, number()?, number()?, number()?);
    let id = parts.next()?.to_owned();
    Some(Free { bytes: blocks.saturating_mul(size), inodes: (of > 0).then_some(inodes), id })
}

/// Why jobs of a runner could read what only keyswap's user should: `r:UID:GID.GID…:HERE:UID.GID.MODE,…`
fn reader(word: &str, keyswap: u32) -> Option<String> {
    let mut parts = word.strip_prefix("r:")?.split(':');
    let uid: u32 = parts.next()?.parse().ok()?;
    let groups: Vec<u32> = parts.next()?.split('.').filter_map(|gid| gid.parse().ok()).collect();
    let here = parts.next()? == "yes";
    if here && uid == keyswap {
        return Some(format!("the runner works as the user that keeps the state there (uid {uid})"));
    }
    let opens = |socket: &str| {
        let mut parts = socket.split('.');
        let (owner, group) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let opens = uid == 0
            || (uid == owner && mode & 0o200 != 0)
            || (groups.contains(&group) && mode & 0o020 != 0)
            || mode & 0o002 != 0;
        opens.then_some(())
    };
    parts.next()?.split(',').find_map(opens)?;
    Some("the runner can speak to the container engine, which can mount every directory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_by_file_system() {
        let need = |bytes| Need { bytes, inodes: 2 };
        let needs = BTreeMap::from([("/a".to_owned(), need(8192)), ("/b".to_owned(), need(4096))]);
        assert_eq!(enough(&needs, "d:0:3:4096:9:99:x d:1:3:4096:9:99:x"), Ok(()));
        let apart = enough(&needs, "d:0:2:4096:9:99:x d:1:1:4096:9:99:y");
        assert_eq!(apart, Ok(()));
        let shared = enough(&needs, "d:0:2:4096:9:99:x d:1:2:4096:9:99:x").unwrap_err();
        assert_eq!(shared, "too little room in /a and /b: at least 12 KiB are needed, 8 KiB are free");
        let inodes = enough(&needs, "d:0:99:4096:1:99:x d:1:98:4096:2:99:y").unwrap_err();
        assert_eq!(inodes, "too few inodes in /a: at least 2 are needed, 1 are free");
        // A file system without a number of inodes, and one that was not told of.
        assert_eq!(enough(&needs, "d:0:99:4096:0:0:x"), Ok(()));
    }

    #[test]
    fn who_can_read_the_state_is_told() {
        let told = |word: &str| reader(word, 0).is_some();
        assert!(told("r:0:0:yes:"), "the same user, on the host itself");
        assert!(!told("r:0:0:no:"), "root of a container");
        assert!(!told("r:1000:1000:yes:0.999.660"), "not in the socket's group");
        assert!(told("r:1000:1000.999:yes:0.999.660"), "in the socket's group");
        assert!(told("r:1000:1000:no:0.999.666"), "a socket for all");
        assert!(told("r:0:0:no:0.999.660"), "root of a container with the socket");
        assert!(!told("d:0:1:2") && !told("r:x"), "another word");
    }
}
