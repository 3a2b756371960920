//! The library that runs on a host, as the simulation has it: the same decisions as `saga.sh` and `file.sh`, with every change
//! of the machine as a micro-operation.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use keyswap::remote::{Act, Acted, FailClass, Failure, FileBefore, Hold, Target, UndoRecord};

use super::fs::{Inode, parent};
use super::guard;
use super::setting::{self, K};
use super::sha::sha;
use super::state::{cas_of, known, taken};
use super::world::{Ctx, Machine};

pub(super) type Done<T> = Result<T, Failure>;

/// What the guard grants a request beyond the limits of what it starts.
pub(super) const GRACE: Duration = Duration::from_secs(5);

pub(super) fn die<T>(class: FailClass, message: impl Into<String>) -> Done<T> {
    Err(Failure { class, message: message.into(), fix: None })
}

pub(super) fn run_dir(run: &str) -> String {
    format!("{K}/runs/{run}")
}

thread_local! {
    static UNDO: RefCell<HashMap<Vec<u8>, Rc<[UndoRecord]>>> = RefCell::default();
}

/// The undo as it lies on the host, if it is whole.
pub(super) fn undo_in(content: &[u8]) -> Option<Rc<[UndoRecord]>> {
    let text = content.strip_suffix(b"\nend\n")?;
    UNDO.with_borrow_mut(|known| {
        if let Some(records) = known.get(text) {
            return Some(Rc::clone(records));
        }
        let records: Vec<UndoRecord> = serde_json::from_slice(text).ok()?;
        let records: Rc<[UndoRecord]> = records.into();
        known.insert(text.to_vec(), Rc::clone(&records));
        Some(records)
    })
}

pub(super) fn private(content: &[u8]) -> Inode {
    Inode { content: content.to_vec(), mode: 0o600, uid: 0, gid: 0 }
}

impl Ctx {
    /// A micro-operation whose failure ends the request.
    pub(super) async fn io<R>(&self, what: &str, work: impl FnOnce(&mut Machine) -> R) -> Done<R> {
        match self.micro(what, work).await {
            Ok(answer) => Ok(answer),
            Err(()) => die(FailClass::Write, format!("failed: {what}")),
        }
    }

    pub(super) fn undo_list(&self, run: &str) -> Done<Vec<UndoRecord>> {
        let path = format!("{}/undo", run_dir(run));
        let records = self
            .look(|machine| machine.fs.get(&path).and_then(|file| undo_in(&file.content)).map(|list| list.to_vec()));
        records.map_or_else(|| die(FailClass::Missing, "there is no whole undo"), Ok)
    }

    /// A small synced file of the run.
    pub(super) async fn note(&self, run: &str, name: &str, text: &str) -> Done<()> {
        let path = format!("{}/{name}", run_dir(run));
        self.io(&format!("mark {name} written"), |machine| machine.fs.create(&path, private(text.as_bytes()))).await?;
        self.io(&format!("mark {name} synced"), |machine| {
            machine.fs.sync_file(&path);
            machine.fs.sync_dir(parent(&path));
        })
        .await
    }

    pub(super) async fn prepare(&self, hold: &Hold, undo: &[UndoRecord]) -> Done<()> {
        let run = hold.run.as_str();
        let done = self.prepare_all(hold, undo).await;
        let void = format!("{}/void", run_dir(run));
        let not_ours =
            |machine: &mut Machine| cas_of(machine).is_none_or(|cas| cas.run != run) && machine.fs.get(&void).is_none();
        if done.is_err() && self.look(not_ours) && !self.was_here(run) {
            self.look(|machine| machine.fs.remove_tree(&run_dir(run)));
            if let Some(cas) = self.look(|machine| cas_of(machine)).filter(|cas| cas.phase == "armed") {
                return taken(&cas);
            }
        }
        done
    }

    /// The run has held this host before, and acted or was settled.
    fn was_here(&self, run: &str) -> bool {
        let marks = ["head", "started.", "undone.", "restarted."];
        let names = self.look(|machine| machine.fs.list(&run_dir(run)));
        names.iter().any(|name| marks.iter().any(|mark| name.starts_with(mark)))
    }

    async fn prepare_all(&self, hold: &Hold, undo: &[UndoRecord]) -> Done<()> {
        let run = hold.run.as_str();
        let dir = run_dir(run);
        self.state_init().await?;
        let cas = self.cas_look()?;
        if matches!(cas.phase.as_str(), "armed" | "undo" | "dirty") && cas.run != run {
            return taken(&cas);
        }
        let has = |name: &str| self.look(|machine| machine.fs.get(&format!("{dir}/{name}")).is_some());
        if cas.run == run || has("void") || self.was_here(run) {
            return known(&cas);
        }
        self.only_here(run).await?;
        if has("ready") {
            self.io("mark ready removed", |machine| {
                machine.fs.unlink(&format!("{dir}/ready"));
                machine.fs.sync_dir(&dir);
            })
            .await?;
        }
        let text = [serde_json::to_vec(undo).unwrap(), b"\nend\n".to_vec()].concat();
        self.io("undo written", |machine| machine.fs.create(&format!("{dir}/undo"), private(&text))).await?;
        for record in undo {
            self.preimage(&dir, record).await?;
        }
        let ticks = self.look(|machine| format!("{} {}", machine.boot_id(), machine.ticks()));
        self.io("start mark written", |machine| machine.fs.create(&format!("{dir}/since"), private(ticks.as_bytes())))
            .await?;
        self.io("undo and preimages synced", |machine| {
            for name in machine.fs.list(&dir) {
                machine.fs.sync_file(&format!("{dir}/{name}"));
            }
            machine.fs.sync_dir(&dir);
        })
        .await?;
        self.note(run, "ready", "1").await?;
        if hold.guard.is_some() {
            self.guard_install().await?;
        }
        self.arm(hold, GRACE, cas.seen()).await?;
        self.guard_start(hold).await?;
        for record in undo {
            self.stage(run, record, false).await?;
        }
        Ok(())
    }

    /// The watcher is started at boot.
    pub(super) async fn guard_install(&self) -> Done<()> {
        self.io("guard installed", |machine| {
            machine.fs.create(setting::HOOK, private(b"guard"));
            machine.fs.sync_file(setting::HOOK);
            machine.fs.sync_dir(parent(setting::HOOK));
        })
        .await
    }

    pub(super) async fn guard_start(&self, hold: &Hold) -> Done<()> {
        if hold.guard.is_some() && !self.look(|machine| machine.watcher.is_some_and(|pid| machine.alive(pid))) {
            self.io("guard started", |_| ()).await?;
            guard::start(&self.world, self.m);
        }
        Ok(())
    }

    async fn preimage(&self, dir: &str, record: &UndoRecord) -> Done<()> {
        match record {
            UndoRecord::File { step, path, before, .. } | UndoRecord::Env { step, path, before: Some(before), .. } => {
                let file = self.look(|machine| machine.fs.get(path.as_str()).cloned());
                if !file.as_ref().is_some_and(|file| is_before(file, before)) {
                    return die(FailClass::Conflict, format!("{path} has changed since it was looked at"));
                }
                let content = file.map(|file| file.content).unwrap_or_default();
                let pre = format!("{dir}/pre.{step}");
                self.io(&format!("preimage {step} written"), |machine| machine.fs.create(&pre, private(&content))).await
            }
            UndoRecord::Remove { path, .. } if self.look(|machine| machine.fs.get(path.as_str()).is_some()) => {
                die(FailClass::Conflict, format!("{path} has appeared since it was looked at"))
            }
            _ => Ok(()),
        }
    }

    /// Sets a record's stage. `again`: only where a preparation did not get to it and the file still is as it was.
    pub(super) async fn stage(&self, run: &str, record: &UndoRecord, again: bool) -> Done<()> {
        let (UndoRecord::File { step, path, before, .. } | UndoRecord::Env { step, path, before: Some(before), .. }) =
            record
        else {
            return Ok(());
        };
        let stage = stage_path(run, path.as_str(), *step);
        let wanted = self.look(|machine| {
            machine.fs.get(&stage).is_none()
                && machine.fs.get(path.as_str()).is_some_and(|file| sha(&file.content) == before.sha)
        });
        if again && !wanted {
            return Ok(());
        }
        self.io(&format!("stage {step} linked"), |machine| machine.fs.link(path.as_str(), &stage)).await?;
        self.io(&format!("stage {step} synced"), |machine| machine.fs.sync_dir(path.parent())).await
    }

    /// A new file under its name: temporary beside it, synced, renamed, the directory synced.
    pub(super) async fn replace(&self, run: &str, path: &str, content: &[u8], meta: (u32, u32, u32)) -> Done<()> {
        let temp = format!("{}/.keyswap-{run}.temp", parent(path));
        let (mode, uid, gid) = meta;
        self.io("new file made", |machine| {
            machine.fs.create(&temp, Inode { content: Vec::new(), mode, uid, gid });
        })
        .await?;
        let sealed = async {
            self.io("new content written", |machine| machine.fs.write(&temp, content)).await?;
            self.io("new content synced", |machine| machine.fs.sync_file(&temp)).await?;
            self.io("renamed into place", |machine| machine.fs.rename(&temp, path)).await
        };
        if let Err(failure) = sealed.await {
            self.look(|machine| machine.fs.unlink(&temp));
            return Err(failure);
        }
        self.io("directory synced", |machine| machine.fs.sync_dir(parent(path))).await
    }

    /// Files changed just now: an older process has not seen them.
    pub(super) async fn touched(&self) -> Done<()> {
        let text = self.look(|machine| format!("{} {}", machine.boot_id(), machine.ticks()));
        self.io("change marked", |machine| machine.fs.create(&format!("{K}/since"), private(text.as_bytes()))).await
    }

    async fn write_target(&self, run: &str, target: &Target, content: &[u8]) -> Done<Acted> {
        let path = target.path.as_str();
        let now = self.look(|machine| machine.fs.get(path).cloned());
        let digest = now.as_ref().map(|file| sha(&file.content));
        let meta = (target.mode, target.uid, target.gid);
        if digest.as_ref() == Some(&target.post) && now.as_ref().is_some_and(|file| meta_of(file) == meta) {
            return Ok(Acted { already: true, ..Acted::default() });
        }
        if digest != target.pre {
            return die(FailClass::Conflict, format!("{path} is neither as it was nor as it should be"));
        }
        if sha(content) != target.post {
            return die(FailClass::Write, "the new content did not arrive whole");
        }
        self.replace(run, path, content, meta).await?;
        self.touched().await?;
        Ok(Acted::default())
    }

    pub(super) async fn act(&self, run: &str, step: u32, act: &Act, data: Option<&[u8]>) -> Done<Acted> {
        match act {
            Act::Place(target) => self.write_target(run, target, data.unwrap_or_default()).await,
            Act::Restore { target, backup } => {
                let from = format!("{K}/backups/{backup}/content");
                let Some(file) = self.look(|machine| machine.fs.get(&from).cloned()) else {
                    return die(FailClass::Missing, "the backup is gone");
                };
                let acted = self.write_target(run, target, &file.content).await?;
                let mark = format!("{K}/backups/{backup}/restored");
                let _ = self.micro("backup marked", |machine| machine.fs.create(&mark, private(b""))).await;
                Ok(acted)
            }
            Act::Point { target, edit, .. } => {
                let now = self.look(|machine| machine.fs.get(target.path.as_str()).cloned()).unwrap_or_default();
                let content = setting::edited(&now.content, &edit.key, &edit.value, &edit.remove);
                self.write_target(run, target, &content).await
            }
            Act::Backup { path, sha: wanted, id, .. } => self.backup(path.as_str(), wanted, id).await,
            Act::Restart { was_up, healthy, pointer, .. } => {
                self.restart(run, step, *was_up, *healthy, pointer.as_ref()).await
            }
            Act::Command { .. } => self.command(run, step).await,
        }
    }

    async fn backup(&self, path: &str, wanted: &str, id: &str) -> Done<Acted> {
        let dir = format!("{K}/backups/{id}");
        if self.look(|machine| machine.fs.get(&format!("{dir}/meta")).is_some()) {
            return Ok(Acted { already: true, ..Acted::default() });
        }
        let now = self.look(|machine| machine.fs.get(path).cloned()).unwrap_or_default();
        if sha(&now.content) != wanted {
            return die(FailClass::Conflict, format!("{path} has changed since it was looked at"));
        }
        let (content, meta) = (format!("{dir}/content"), format!("{dir}/meta"));
        self.io("backup written", |machine| machine.fs.create(&content, private(&now.content))).await?;
        self.io("backup synced", |machine| machine.fs.sync_file(&content)).await?;
        self.io("backup named", |machine| {
            machine.fs.create(&meta, private(path.as_bytes()));
            machine.fs.sync_file(&meta);
        })
        .await?;
        self.io("backups synced", |machine| machine.fs.sync_dir(&dir)).await?;
        Ok(Acted::default())
    }

    async fn command(&self, run: &str, step: u32) -> Done<Acted> {
        let mark = |name: &str| format!("{}/{name}.{step}", run_dir(run));
        if self.look(|machine| machine.fs.get(&mark("started")).is_some()) {
            if self.look(|machine| machine.fs.get(&mark("finished")).is_none()) {
                return die(FailClass::Command, "it was started before, and how it ended is not known");
            }
            return Ok(Acted { already: true, ..Acted::default() });
        }
        self.note(run, &format!("started.{step}"), "1").await?;
        if self.micro("command run", |machine| machine.commands.0 += 1).await.is_err() {
            return die(FailClass::Command, "it exits with status 1");
        }
        self.note(run, &format!("finished.{step}"), "1").await?;
        Ok(Acted::default())
    }

    pub(super) async fn commit(&self, hold: &Hold) -> Done<()> {
        let run = hold.run.as_str();
        let cas = self.cas_look()?;
        if (cas.phase.as_str(), cas.run.as_str()) != ("new", run) {
            self.own(hold, GRACE).await?;
            for record in self.undo_list(run)? {
                let (path, post) = match &record {
                    UndoRecord::File { path, post, .. } | UndoRecord::Remove { path, post, .. } => (path, post),
                    UndoRecord::Env { path, posts, .. } => match posts.last() {
                        Some(post) => (path, post),
                        None => continue,
                    },
                    _ => continue,
                };
                let now = self.look(|machine| machine.fs.get(path.as_str()).map(|file| sha(&file.content)));
                if now.as_ref() != Some(post) {
                    return die(FailClass::Conflict, format!("{path} is not as the run left it"));
                }
            }
            self.release("new", run).await?;
            self.guard_remove().await;
        }
        for record in self.undo_list(run)? {
            if let UndoRecord::File { path, .. } | UndoRecord::Env { path, .. } | UndoRecord::Remove { path, .. } =
                record
            {
                self.sweep(run, path.parent()).await?;
                self.io("directory synced", |machine| machine.fs.sync_dir(path.parent())).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn guard_remove(&self) {
        let _ = self.micro("guard no longer started at boot", |machine| machine.fs.unlink(setting::HOOK)).await;
    }

    /// Our own temporary files in a directory go.
    pub(super) async fn sweep(&self, run: &str, dir: &str) -> Done<()> {
        let prefix = format!(".keyswap-{run}");
        self.io("stages removed", |machine| {
            for name in machine.fs.list(dir).into_iter().filter(|name| name.starts_with(&prefix)) {
                machine.fs.unlink(&format!("{dir}/{name}"));
            }
        })
        .await
    }
}

pub(super) fn meta_of(file: &Inode) -> (u32, u32, u32) {
    (file.mode, file.uid, file.gid)
}

pub(super) fn is_before(file: &Inode, before: &FileBefore) -> bool {
    sha(&file.content) == before.sha && meta_of(file) == (before.mode, before.uid, before.gid)
}

pub(super) fn stage_path(run: &str, path: &str, step: u32) -> String {
    format!("{}/.keyswap-{run}-old.{step}", parent(path))
}
