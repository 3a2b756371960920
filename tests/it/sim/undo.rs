//! The way back on a simulated machine, as `undo.sh` goes it.

use keyswap::model::StepStatus;
use keyswap::remote::{FailClass, FileBefore, UndoRecord, Undone, UndoneRecord};

use super::lib::{Done, die, is_before, meta_of, run_dir, stage_path};
use super::setting::K;
use super::sha::sha;
use super::world::Ctx;

type Word = (StepStatus, &'static str);

impl Ctx {
    /// Takes the run back and settles the host as old or dirty. The caller has proven that it holds the host.
    pub(super) async fn undo(&self, run: &str) -> Done<Undone> {
        let (mut failed, mut clean, mut records) = (0, true, Vec::new());
        let list = if self.is_void(run) { Vec::new() } else { self.undo_list(run)? };
        for record in list {
            let rank = record.rank();
            let (status, message) = if failed != 0 && failed < rank {
                clean = false;
                (StepStatus::Skipped, "something before it could not be put back".to_owned())
            } else {
                match self.undo_one(run, &record).await {
                    Ok((status, message)) => (status, message.to_owned()),
                    Err(failure) => {
                        clean = false;
                        if failed == 0 {
                            failed = rank;
                        }
                        (StepStatus::Failed, failure.message)
                    }
                }
            };
            let (kind, step) = (record.kind().to_owned(), record.step());
            records.push(UndoneRecord { kind, step, status, message, fix: None });
        }
        let cas = self.cas_look()?;
        let here = self.look(|machine| machine.boot_id());
        if (cas.run.as_str(), &cas.owner, &cas.boot) != (run, &self.me(), &here) {
            return die(FailClass::Fenced, "this session no longer holds the host");
        }
        self.release(if clean { "old" } else { "dirty" }, run).await?;
        self.guard_remove().await;
        Ok(Undone { records, clean })
    }

    async fn undo_one(&self, run: &str, record: &UndoRecord) -> Done<Word> {
        match record {
            UndoRecord::File { step, path, before, post } => {
                self.put_back(run, *step, path.as_str(), before, std::slice::from_ref(post)).await
            }
            UndoRecord::Env { step, path, before: Some(before), posts, .. } => {
                self.put_back(run, *step, path.as_str(), before, posts).await
            }
            UndoRecord::Env { path, before: None, posts, .. } => self.remove(run, path.as_str(), posts).await,
            UndoRecord::Remove { path, post, .. } => self.remove(run, path.as_str(), std::slice::from_ref(post)).await,
            UndoRecord::Command { step, .. } => self.undo_command(run, *step).await,
            UndoRecord::Service { step, was_up, healthy, .. } => self.undo_service(run, *step, *was_up, *healthy).await,
            UndoRecord::Rmdir { .. } => Ok((StepStatus::Ok, "no directory was made")),
            UndoRecord::Backup { id, .. } => {
                let dir = format!("{K}/backups/{id}");
                if self.look(|machine| machine.fs.list(&dir).is_empty()) {
                    return Ok((StepStatus::Ok, "no backup was made"));
                }
                self.io("backup removed", |machine| machine.fs.remove_tree(&dir)).await?;
                self.io("backups synced", |machine| machine.fs.sync_dir(&dir)).await?;
                Ok((StepStatus::Changed, "the backup was removed"))
            }
        }
    }

    async fn put_back(&self, run: &str, step: u32, path: &str, before: &FileBefore, posts: &[String]) -> Done<Word> {
        let dir = super::fs::parent(path);
        let now = self.look(|machine| machine.fs.get(path).cloned());
        if now.as_ref().is_some_and(|file| is_before(file, before)) {
            self.sweep(run, dir).await?;
            self.io("directory synced", |machine| machine.fs.sync_dir(dir)).await?;
            return Ok((StepStatus::Ok, "as it was"));
        }
        if let Some(file) = &now {
            let digest = sha(&file.content);
            if digest != before.sha && !posts.contains(&digest) {
                return die(FailClass::Conflict, format!("{path} is neither as it was nor as the run left it"));
            }
        }
        let stage = stage_path(run, path, step);
        let staged = self.look(|machine| machine.fs.get(&stage).is_some_and(|file| sha(&file.content) == before.sha));
        if staged {
            self.io("stage renamed into place", |machine| machine.fs.rename(&stage, path)).await?;
            self.io("directory synced", |machine| machine.fs.sync_dir(dir)).await?;
        } else {
            let pre = format!("{}/pre.{step}", run_dir(run));
            let content =
                self.look(|machine| machine.fs.get(&pre).map(|file| file.content.clone())).unwrap_or_default();
            if sha(&content) != before.sha {
                return die(FailClass::Missing, "the preimage is not whole");
            }
            self.replace(run, path, &content, (before.mode, before.uid, before.gid)).await?;
        }
        let now = self.look(|machine| machine.fs.get(path).cloned()).unwrap_or_default();
        if sha(&now.content) != before.sha {
            return die(FailClass::Write, format!("{path} could not be put back"));
        }
        if meta_of(&now) != (before.mode, before.uid, before.gid) {
            self.io("owner and mode put back", |machine| {
                machine.fs.set_meta(path, before.mode, before.uid, before.gid);
                machine.fs.sync_file(path);
            })
            .await?;
        }
        self.sweep(run, dir).await?;
        self.io("directory synced", |machine| machine.fs.sync_dir(dir)).await?;
        self.touched().await?;
        Ok((StepStatus::Changed, "put back"))
    }

    async fn remove(&self, run: &str, path: &str, posts: &[String]) -> Done<Word> {
        let dir = super::fs::parent(path);
        let Some(now) = self.look(|machine| machine.fs.get(path).cloned()) else {
            self.sweep(run, dir).await?;
            self.io("directory synced", |machine| machine.fs.sync_dir(dir)).await?;
            return Ok((StepStatus::Ok, "absent, as it was"));
        };
        if !posts.contains(&sha(&now.content)) {
            return die(FailClass::Conflict, format!("{path} was not made by this run: it stays"));
        }
        self.io("new path removed", |machine| machine.fs.unlink(path)).await?;
        self.sweep(run, dir).await?;
        self.io("directory synced", |machine| machine.fs.sync_dir(dir)).await?;
        Ok((StepStatus::Changed, "removed"))
    }

    async fn undo_command(&self, run: &str, step: u32) -> Done<Word> {
        let mark = |name: &str| format!("{}/{name}.{step}", run_dir(run));
        let (started, undone) = self
            .look(|machine| (machine.fs.get(&mark("started")).is_some(), machine.fs.get(&mark("undone")).is_some()));
        if !started || undone {
            return Ok((StepStatus::Ok, "nothing to take back"));
        }
        if self.micro("undo command run", |machine| machine.commands.1 += 1).await.is_err() {
            return die(FailClass::Command, "the undo command exits with status 1");
        }
        self.note(run, &format!("undone.{step}"), "1").await?;
        Ok((StepStatus::Changed, "the undo command was run"))
    }

    async fn undo_service(&self, run: &str, step: u32, was_up: bool, healthy: std::time::Duration) -> Done<Word> {
        if !was_up {
            if self.runner().is_none() {
                return Ok((StepStatus::Ok, "the runner is stopped, as it was"));
            }
            let _ = self.svc_do(false).await;
            if self.runner().is_some() {
                return die(FailClass::Service, "the runner could not be stopped again");
            }
            return Ok((StepStatus::Changed, "the runner is stopped again"));
        }
        let here = self.look(|machine| machine.boot_id());
        // A process that started after the first change may hold the new credential, whoever started it.
        let since = match self.mark(run, "since") {
            Some((boot, since)) if boot == here => since,
            _ => 0,
        };
        let runner = self.runner();
        // One that is older than the first change has never seen the new files, whatever was tried with it.
        if runner.as_ref().is_some_and(|runner| runner.start < since) {
            return Ok((StepStatus::Ok, "the runner was not restarted and is up"));
        }
        let name = format!("restarted.{step}");
        if let Some((boot, since)) = self.mark(run, &name)
            && boot == here
            && runner.is_some_and(|runner| runner.start >= since)
        {
            return Ok((StepStatus::Ok, "the runner runs on the old files"));
        }
        let since = self.ticks();
        self.note(run, &name, &format!("{here} {since}")).await?;
        if self.svc_do(true).await.is_err() {
            return die(FailClass::Service, "the restart on the old files failed");
        }
        match self.steady(healthy).await {
            Ok(runner) if runner.start >= since => Ok((StepStatus::Changed, "restarted on the old files")),
            Ok(_) => die(FailClass::Service, "the process is older than the old files"),
            Err(why) => die(FailClass::Service, format!("after the restart on the old files {why}")),
        }
    }
}
