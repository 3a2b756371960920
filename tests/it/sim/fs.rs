//! Files of a simulated machine: what a process sees, and what a loss of power would leave.
//!
//! An inode's content and facts last once the file was synced, a name once its directory was. Links are names of one inode.

use std::collections::BTreeMap;

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
        self.lasting_names.retain(|name, _| parent(name) != dir);
        let here = self.names.iter().filter(|(name, _)| parent(name) == dir);
        self.lasting_names.extend(here.map(|(name, ino)| (name.clone(), *ino)));
    }

    /// Plain names in a directory.
    pub(super) fn list(&self, dir: &str) -> Vec<String> {
        let here = self.names.keys().filter(|name| parent(name) == dir);
        here.filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect()
    }

    /// Plain names in a directory as they would be after a loss of power.
    pub(super) fn lasting_list(&self, dir: &str) -> Vec<String> {
        let here = self.lasting_names.keys().filter(|name| parent(name) == dir);
        here.filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect()
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

/// The directory of a path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
