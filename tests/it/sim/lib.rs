//! The library that runs on a host, as the simulation has it: the same decisions as `state.sh`, `saga.sh` and `file.sh`, with
//! every change of the machine as a micro-operation.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use keyswap::remote::{Act, Acted, FailClass, Failure, FileBefore, Hold, Target, UndoRecord};
use tokio::time::sleep;

use super::fs::{Inode, parent};
use super::guard;
use super::setting::{self, K};
use super::sha::sha;
use super::world::{Ctx, Machine};

pub(super) type Done<T> = Result<T, Failure>;

/// What the guard grants a request beyond the limits of what it starts.
pub(super) const GRACE: Duration = Duration::from_secs(5);

pub(super) fn die<T>(class: FailClass, message: impl Into<String>) -> Done<T> {
    Err(Failure { class, message: message.into(), fix: None })
}

/// The name of the only file in `cas`.
#[derive(Debug, Clone)]
pub(super) struct Cas {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) phase: String,
    pub(super) run: String,
    pub(super) owner: String,
    pub(super) boot: String,
    pub(super) until: String,
}

impl Cas {
    /// What a transition relies on: a renewed lease is the same state.
    fn seen(&self) -> String {
        format!("{}.{}.{}.{}.{}", self.epoch, self.phase, self.run, self.owner, self.boot)
    }
}

pub(super) fn cas_of(machine: &Machine) -> Option<Cas> {
    let names = machine.fs.list(&format!("{K}/cas"));
    let name = names.first()?;
    let parts: Vec<&str> = name.split('.').collect();
    let [epoch, generation, phase, run, owner, boot, until] = parts.as_slice() else { return None };
    Some(Cas {
        name: name.clone(),
        epoch: epoch.parse().ok()?,
        generation: generation.parse().ok()?,
        phase: (*phase).to_owned(),
        run: (*run).to_owned(),
        owner: (*owner).to_owned(),
        boot: (*boot).to_owned(),
        until: (*until).to_owned(),
    })
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

pub(super) fn owner_pid(owner: &str) -> u64 {
    owner.parse().unwrap_or(0)
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

    pub(super) fn me(&self) -> String {
        self.pid.to_string()
    }

    pub(super) fn cas_look(&self) -> Done<Cas> {
        match self.look(|machine| cas_of(machine)) {
            Some(cas) => Ok(cas),
            None => die(FailClass::Fenced, "this host has no state"),
        }
    }

    /// 0 won, 1 lost to somebody else, 2 could not write: decided by looking afterwards.
    pub(super) async fn cas(&self, cur: &Cas, phase: &str, owner: &str, until: &str, run: &str, epoch: u64) -> u8 {
        let boot = self.look(|machine| machine.boot_id());
        let new = format!("{epoch}.{}.{phase}.{run}.{owner}.{boot}.{until}", cur.generation + 1);
        let (from, to) = (format!("{K}/cas/{}", cur.name), format!("{K}/cas/{new}"));
        let _ = self.micro(&format!("state becomes {phase}"), |machine| machine.fs.rename(&from, &to)).await;
        self.look(|machine| match (machine.fs.get(&to).is_some(), machine.fs.get(&from).is_some()) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        })
    }

    pub(super) async fn state_synced(&self) -> Done<()> {
        self.io("state synced", |machine| machine.fs.sync_dir(&format!("{K}/cas"))).await
    }

    fn until(&self, hold: &Hold, limit: Duration) -> String {
        let Some(guard) = hold.guard else { return "0".to_owned() };
        let lease = u64::try_from((guard + limit).as_millis() / 10).unwrap_or(u64::MAX);
        (self.look(|machine| machine.ticks()) + lease).to_string()
    }

    /// Takes the host for a run: from a settled state, or from the run itself.
    pub(super) async fn arm(&self, hold: &Hold, limit: Duration, mut seen: Option<String>) -> Done<()> {
        let run = hold.run.as_str();
        let mut waited = 0;
        loop {
            let cas = self.cas_look()?;
            let here = self.look(|machine| machine.boot_id());
            if *seen.get_or_insert_with(|| cas.seen()) != cas.seen() {
                return die(
                    FailClass::Fenced,
                    format!("this host was taken or settled meanwhile (now: {})", cas.phase),
                );
            }
            let epoch = match cas.phase.as_str() {
                "idle" | "old" | "new" => cas.epoch + 1,
                "undo" => {
                    if cas.run != run {
                        return die(FailClass::Held, format!("run {} holds this host", cas.run));
                    }
                    let busy = self.look(|machine| machine.alive(owner_pid(&cas.owner)));
                    if cas.boot == here && busy {
                        waited += 1;
                        if waited >= 600 {
                            return die(FailClass::Held, "the guard of this host is putting it back");
                        }
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    cas.epoch
                }
                _ => {
                    if cas.run != run {
                        return die(FailClass::Held, format!("run {} holds this host", cas.run));
                    }
                    if cas.boot == here && cas.owner != self.me() {
                        self.fence(&cas.owner).await?;
                    }
                    cas.epoch
                }
            };
            let until = self.until(hold, limit);
            match self.cas(&cas, "armed", &self.me(), &until, run, epoch).await {
                0 => break,
                1 => {}
                _ => return die(FailClass::Write, "cannot write the state"),
            }
        }
        self.state_synced().await
    }

    /// Whoever that was is gone when this returns.
    pub(super) async fn fence(&self, owner: &str) -> Done<()> {
        let pid = owner_pid(owner);
        self.io("old session ended", |machine| machine.kill_session(pid)).await
    }

    /// This session still holds the host, or the request is refused; the lease is renewed.
    pub(super) async fn own(&self, hold: &Hold, limit: Duration) -> Done<()> {
        let cas = self.cas_look()?;
        let here = self.look(|machine| machine.boot_id());
        let ours = cas.phase == "armed" && cas.run == hold.run.as_str() && cas.owner == self.me() && cas.boot == here;
        if !ours {
            return die(FailClass::Fenced, format!("this session no longer holds the host (now: {})", cas.phase));
        }
        if hold.guard.is_some() {
            let until = self.until(hold, limit);
            match self.cas(&cas, "armed", &self.me(), &until, hold.run.as_str(), cas.epoch).await {
                0 => {}
                1 => return die(FailClass::Fenced, "this session no longer holds the host"),
                _ => return die(FailClass::Write, "cannot write the state"),
            }
        }
        if !hold.head.is_empty() {
            let path = format!("{}/head", run_dir(hold.run.as_str()));
            let _ = self.micro("head left", |machine| machine.fs.create(&path, private(hold.head.as_bytes()))).await;
        }
        Ok(())
    }

    pub(super) async fn release(&self, phase: &str, run: &str) -> Done<()> {
        let cas = self.cas_look()?;
        match self.cas(&cas, phase, "-", "0", run, cas.epoch).await {
            0 => self.state_synced().await,
            1 => die(FailClass::Fenced, "somebody else settled this host first"),
            _ => die(FailClass::Write, "cannot write the state"),
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
        if done.is_err() && self.look(|machine| cas_of(machine)).is_none_or(|cas| cas.run != run) {
            self.look(|machine| machine.fs.remove_tree(&run_dir(run)));
        }
        done
    }

    async fn prepare_all(&self, hold: &Hold, undo: &[UndoRecord]) -> Done<()> {
        let run = hold.run.as_str();
        let dir = run_dir(run);
        if self.look(|machine| cas_of(machine)).is_none() {
            self.io("state made", |machine| {
                // A directory that is there already is not replaced.
                if cas_of(machine).is_none() {
                    machine.fs.create(&format!("{K}/cas/0.0.idle.-.-.-.0"), private(b""));
                }
            })
            .await?;
            self.state_synced().await?;
        }
        let cas = self.cas_look()?;
        if cas.run == run {
            return die(FailClass::Held, "the run has begun here already");
        }
        let seen = cas.seen();
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
        if hold.guard.is_some() {
            self.io("guard installed", |machine| {
                machine.fs.create(setting::HOOK, private(b"guard"));
                machine.fs.sync_file(setting::HOOK);
                machine.fs.sync_dir(parent(setting::HOOK));
            })
            .await?;
        }
        self.arm(hold, GRACE, Some(seen)).await?;
        self.guard_start(hold).await?;
        for record in undo {
            self.stage(run, record).await?;
        }
        Ok(())
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

    async fn stage(&self, run: &str, record: &UndoRecord) -> Done<()> {
        let (UndoRecord::File { step, path, .. } | UndoRecord::Env { step, path, before: Some(_), .. }) = record else {
            return Ok(());
        };
        let stage = stage_path(run, path.as_str(), *step);
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
