//! Files of a simulated machine: what a process sees, and what a loss of power would leave.
//!
//! An inode's content and facts last once the file was synced, a name once its directory was. Links are names of one inode.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Inode {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Fs {
    names: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    lasting_names: BTreeMap<String, u64>,
    lasting: BTreeMap<u64, Inode>,
    next: u64,
    /// Counts changes.
    pub(super) version: u64,
}

/// What a loss of power leaves of names that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Neither names nor content that were not synced.
    All,
    /// The names had reached the disk already, the content had not.
    Content,
}

impl Fs {
    /// A new file under a name that may exist; not synced.
    pub(super) fn create(&mut self, path: &str, file: Inode) {
        self.version += 1;
        self.next += 1;
        self.inodes.insert(self.next, file);
        self.names.insert(path.to_owned(), self.next);
    }

    /// A file that was there and lay on the disk before anything began.
    pub(super) fn given(&mut self, path: &str, file: Inode) {
        self.create(path, file);
        self.sync_file(path);
        self.sync_dir(parent(path));
    }

    pub(super) fn get(&self, path: &str) -> Option<&Inode> {
        self.names.get(path).and_then(|ino| self.inodes.get(ino))
    }

    /// The file as it would be after a loss of power.
    pub(super) fn lasting(&self, path: &str) -> Option<&Inode> {
        self.lasting_names.get(path).and_then(|ino| self.lasting.get(ino))
    }

    pub(super) fn write(&mut self, path: &str, content: &[u8]) {
        self.version += 1;
        if let Some(inode) = self.names.get(path).and_then(|ino| self.inodes.get_mut(ino)) {
            inode.content = content.to_vec();
        }
    }

    pub(super) fn set_meta(&mut self, path: &str, mode: u32, uid: u32, gid: u32) {
        self.version += 1;
        if let Some(inode) = self.names.get(path).and_then(|ino| self.inodes.get_mut(ino)) {
            (inode.mode, inode.uid, inode.gid) = (mode, uid, gid);
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        self.version += 1;
        match self.names.remove(from) {
            Some(ino) => {
                self.names.insert(to.to_owned(), ino);
                true
            }
            None => false,
        }
    }

    pub(super) fn link(&mut self, from: &str, to: &str) {
        self.version += 1;
        if let Some(ino) = self.names.get(from).copied() {
            self.names.insert(to.to_owned(), ino);
        }
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.version += 1;
        self.names.remove(path);
    }

    pub(super) fn sync_file(&mut self, path: &str) {
        self.version += 1;
        if let Some(ino) = self.names.get(path)
            && let Some(inode) = self.inodes.get(ino)
        {
            self.lasting.insert(*ino, inode.clone());
        }
    }

    /// The names in a directory last, as they are.
    pub(super) fn sync_dir(&mut self, dir: &str) {
        self.version += 1;
        let before: Vec<String> = below(&self.lasting_names, dir).map(|(name, _)| name.clone()).collect();
        for name in before {
            self.lasting_names.remove(&name);
        }
        self.lasting_names.extend(below(&self.names, dir).map(|(name, ino)| (name.clone(), *ino)));
    }

    /// Plain names in a directory.
    pub(super) fn list(&self, dir: &str) -> Vec<String> {
        below(&self.names, dir).map(|(name, _)| plain(name).to_owned()).collect()
    }

    /// The first plain name in a directory.
    pub(super) fn first<'a>(&'a self, dir: &'a str) -> Option<&'a str> {
        below(&self.names, dir).next().map(|(name, _)| plain(name))
    }

    /// The first plain name in a directory as it would be after a loss of power.
    pub(super) fn lasting_first<'a>(&'a self, dir: &'a str) -> Option<&'a str> {
        below(&self.lasting_names, dir).next().map(|(name, _)| plain(name))
    }

    /// What a loss of power would take away or bring back.
    pub(super) fn unsynced(&self) -> Vec<&str> {
        let names: BTreeSet<&String> = self.names.keys().chain(self.lasting_names.keys()).collect();
        names.into_iter().filter(|name| self.get(name) != self.lasting(name)).map(String::as_str).collect()
    }

    /// Everything under a directory goes.
    pub(super) fn remove_tree(&mut self, dir: &str) {
        self.version += 1;
        let below = format!("{dir}/");
        self.names.retain(|name, _| !name.starts_with(&below));
    }

    /// Orderly: everything reaches the disk.
    pub(super) fn flush(&mut self) {
        self.lasting_names = self.names.clone();
        self.lasting = self.inodes.clone();
    }

    /// The power was lost.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.version += 1;
        if loss == Loss::All {
            self.names = self.lasting_names.clone();
        }
        self.inodes =
            self.names.values().map(|ino| (*ino, self.lasting.get(ino).cloned().unwrap_or_default())).collect();
        self.flush();
    }
}

/// What lies in a directory itself.
fn below<'a, 'd: 'a>(names: &'a BTreeMap<String, u64>, dir: &'d str) -> impl Iterator<Item = (&'a String, &'a u64)> {
    // What sorts between a directory and what is in it has the same beginning.
    let from = names.range::<str, _>((Bound::Excluded(dir), Bound::Unbounded));
    from.take_while(move |(name, _)| name.starts_with(dir)).filter(move |(name, _)| parent(name) == dir)
}

fn plain(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The directory of a path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
