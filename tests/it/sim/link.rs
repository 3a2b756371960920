//! The simulated machine behind [`Host`] and [`Connect`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use keyswap::model::{self, Fingerprint, RemotePath, RunId};
use keyswap::remote::{
    Act, Acted, Active, Answer, BackFact, BackupFact, BusyFact, CallError, Connect, EditFact, EnvFact, Fact, FailClass,
    FileBefore, FileFact, Gate, Hold, Host, HostCondition, HostFacts, Lost, NowFact, Op, Probe, ReachFact, RoomFact,
    ServiceFact, Stage, UndoRecord, Unreachable, UnreachableKind,
};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::check;
use super::fault::{Fault, Kind};
use super::fs::Inode;
use super::lib::{Done, GRACE, die, meta_of, run_dir};
use super::setting::{self, K};
use super::sha::sha;
use super::state::cas_of;
use super::world::{Ctx, HANG, World};

pub(super) struct SimConnect {
    pub(super) world: Arc<World>,
    pub(super) life: CancellationToken,
}

struct SimHost {
    world: Arc<World>,
    life: CancellationToken,
    m: usize,
    pid: u64,
}

fn lost<T>() -> Result<T, CallError> {
    Err(CallError::Lost(Lost { reason: "the connection was lost".to_owned() }))
}

/// The controller is about to ask something.
async fn about_to_ask(world: &Arc<World>, life: &CancellationToken, m: usize, op: &str) {
    if !life.is_cancelled() {
        match world.point(Kind::Request, op, "sent") {
            Some(Fault::Asleep) => sleep(HANG).await,
            Some(fault) => world.hit(m, fault),
            None => {}
        }
    }
    if life.is_cancelled() {
        std::future::pending::<()>().await;
    }
}

impl Connect for SimConnect {
    fn connect<'a>(
        &'a self,
        host: &'a model::Host,
        gate: &'a dyn Gate,
    ) -> BoxFuture<'a, Result<Box<dyn Host>, Unreachable>> {
        Box::pin(async move {
            let kept_back = |message| Unreachable { kind: UnreachableKind::Login, message, hint: None };
            gate.enter(Stage::HostKey).await.map_err(kept_back)?;
            let m: usize = host.name.as_str().trim_start_matches('h').parse().unwrap();
            about_to_ask(&self.world, &self.life, m, "connect").await;
            if !self.world.at(m, |machine| machine.reachable()) {
                sleep(Duration::from_secs(1)).await;
                let message = "no route to host".to_owned();
                return Err(Unreachable { kind: UnreachableKind::Network, message, hint: None });
            }
            gate.through();
            let pid = self.world.at(m, super::world::Machine::new_session);
            let host = SimHost { world: Arc::clone(&self.world), life: self.life.clone(), m, pid };
            Ok(Box::new(host) as Box<dyn Host>)
        })
    }
}

impl Host for SimHost {
    fn call<'a>(&'a mut self, op: &'a Op, data: Option<&'a [u8]>) -> BoxFuture<'a, Result<Answer, CallError>> {
        Box::pin(async move {
            let name = name_of(op);
            about_to_ask(&self.world, &self.life, self.m, &name).await;
            check::intent(&self.world, self.m, op);
            check::content(&self.world, op, data);
            let pid = self.pid;
            let Some(cut) = self.world.at(self.m, |machine| {
                let usable = machine.alive(pid) && machine.reachable();
                let session = machine.sessions.get_mut(&pid).filter(|session| usable && !session.cut.is_cancelled())?;
                session.busy = true;
                Some(session.cut.clone())
            }) else {
                return lost();
            };
            let life = Some(self.world.lock().injector.life);
            let ctx = Ctx { world: Arc::clone(&self.world), m: self.m, pid, op: name, life };
            let (op, data) = (op.clone(), data.map(<[u8]>::to_vec));
            let (sender, answer) = oneshot::channel();
            let task = tokio::spawn(serve(ctx, op, data, sender)).abort_handle();
            self.world.at(self.m, |machine| {
                if let Some(session) = machine.sessions.get_mut(&pid) {
                    session.task = Some(task);
                }
            });
            tokio::select! {
                biased;
                () = self.life.cancelled() => std::future::pending().await,
                () = cut.cancelled() => lost(),
                answer = answer => match answer {
                    Ok(answer) => answer.map_err(CallError::Failed),
                    Err(_) => lost(),
                },
            }
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.world.at(self.m, |machine| machine.kill_session(self.pid)) })
    }
}

/// The host's shell works on one request.
async fn serve(ctx: Ctx, op: Op, data: Option<Vec<u8>>, sender: oneshot::Sender<Done<Answer>>) {
    let answer = exec(&ctx, &op, data.as_deref()).await;
    if let Some(fault) = ctx.point(Kind::Reply, "reply") {
        Ctx::strike(&ctx.world, ctx.m, fault).await;
    }
    let pid = ctx.pid;
    ctx.look(|machine| {
        if let Some(session) = machine.sessions.get_mut(&pid) {
            session.busy = false;
            // The end of its input: the shell ends when it has done what was asked.
            session.alive &= !session.cut.is_cancelled();
        }
    });
    let _ = sender.send(answer);
}

fn name_of(op: &Op) -> String {
    match op {
        Op::Hello => "hello",
        Op::Look(_) => "look",
        Op::Prepare { .. } => "prepare",
        Op::Takeover { .. } => "takeover",
        Op::Renew { .. } => "renew",
        Op::Act { act, .. } => match act {
            Act::Backup { .. } => "act backup",
            Act::Place(_) => "act place",
            Act::Restore { .. } => "act restore",
            Act::Point { .. } => "act point",
            Act::Restart { .. } => "act restart",
            Act::Command { .. } => "act command",
        },
        Op::Peek { .. } => "peek",
        Op::Exec { .. } => "exec",
        Op::Wait { .. } => "wait",
        Op::Commit { .. } => "commit",
        Op::Undo { .. } => "undo",
        Op::Now { .. } => "now",
        Op::Recorded { .. } => "recorded",
        Op::Unlock { .. } => "unlock",
        Op::Survey(_) | Op::Copies { .. } | Op::Reveal { .. } => "audit",
    }
    .to_owned()
}

/// Calls that a held host lets only its holder make. What may take long gives its long lease back at its end.
async fn held(ctx: &Ctx, hold: &Hold, most: Duration, work: impl Future<Output = Done<Acted>>) -> Done<Acted> {
    ctx.own(hold, most + GRACE).await?;
    let acted = work.await?;
    if !most.is_zero() && hold.guard.is_some() {
        ctx.own(hold, Duration::ZERO).await?;
    }
    Ok(acted)
}

async fn exec(ctx: &Ctx, op: &Op, data: Option<&[u8]>) -> Done<Answer> {
    match op {
        Op::Hello => {
            ctx.io("said what it is", |_| ()).await?;
            Ok(Answer::Hello(Box::new(hello(ctx))))
        }
        Op::Look(probes) => {
            ctx.io("looked", |_| ()).await?;
            Ok(Answer::Facts(probes.iter().map(|probe| look(ctx, probe)).collect()))
        }
        Op::Prepare { hold, undo, .. } => ctx.prepare(hold, undo).await.map(|()| Answer::Done),
        Op::Takeover { hold, only_held, .. } => ctx.takeover(hold, *only_held).await.map(|()| Answer::Done),
        Op::Renew { hold } => ctx.own(hold, Duration::ZERO).await.map(|()| Answer::Done),
        Op::Act { hold, step, act } => {
            let most = match act {
                Act::Restart { healthy, timeout, .. } => *timeout + *healthy + Duration::from_secs(90),
                Act::Command { limit, .. } => *limit,
                _ => Duration::ZERO,
            };
            held(ctx, hold, most, ctx.act(hold.run.as_str(), *step, act, data)).await.map(Answer::Acted)
        }
        Op::Peek { hold, limit, .. } => free(ctx, hold.as_ref(), *limit, true).await,
        Op::Wait { hold, until, limit } => {
            let there = match until {
                HostCondition::Path(path) => ctx.look(|machine| machine.fs.get(path.as_str()).is_some()),
                _ => true,
            };
            free(ctx, hold.as_ref(), *limit, there).await
        }
        Op::Commit { hold, paths, .. } => {
            ctx.commit(hold).await?;
            now(ctx, &hold.run, paths).await
        }
        Op::Unlock { .. } => die(FailClass::Refused, "nobody takes a lock away in these stories"),
        Op::Exec { .. } => die(FailClass::Refused, "nobody runs anything beside a run in these stories"),
        Op::Survey(_) | Op::Copies { .. } | Op::Reveal { .. } => {
            die(FailClass::Refused, "nobody audits or retires in these stories")
        }
        Op::Undo { hold, limit } => {
            ctx.own(hold, *limit + GRACE).await?;
            ctx.undo(hold.run.as_str()).await.map(Answer::Undone)
        }
        Op::Recorded { .. } => die(FailClass::Refused, "nobody settles from the hosts alone in these stories"),
        Op::Now { run, paths } => now(ctx, run, paths).await,
    }
}

/// What a run's files hold, and these.
async fn now(ctx: &Ctx, run: &RunId, paths: &[RemotePath]) -> Done<Answer> {
    ctx.io("read what the files hold", |_| ()).await?;
    let there = ctx.look(|machine| machine.fs.get(&format!("{}/undo", run_dir(run.as_str()))).is_some());
    let list = if ctx.is_void(run.as_str()) || !there { Vec::new() } else { ctx.undo_list(run.as_str())? };
    let files = list.into_iter().filter_map(|record| match record {
        UndoRecord::File { path, .. } | UndoRecord::Remove { path, .. } => Some(path),
        _ => None,
    });
    let now = files.chain(paths.iter().cloned()).map(|path| {
        let file = ctx.look(|machine| machine.fs.get(path.as_str()).cloned());
        NowFact { path: path.as_str().to_owned(), fingerprint: file.map(|file| Fingerprint::of(&file.content)) }
    });
    Ok(Answer::Now(now.collect()))
}

/// What changes nothing on a host.
async fn free(ctx: &Ctx, hold: Option<&Hold>, limit: Duration, well: bool) -> Done<Answer> {
    let work = async {
        ctx.io("looked", |_| ()).await?;
        if well { Ok(Acted::default()) } else { die(FailClass::Timeout, "it did not come") }
    };
    let acted = match hold {
        Some(hold) => held(ctx, hold, limit, work).await?,
        None => work.await?,
    };
    Ok(Answer::Acted(acted))
}

fn hello(ctx: &Ctx) -> HostFacts {
    ctx.look(|machine| {
        let cas = cas_of(machine);
        let run = cas.as_ref().map_or("-", |cas| cas.run.as_str()).to_owned();
        HostFacts {
            login: "ops".to_owned(),
            shell: "sh".to_owned(),
            machine: format!("m{}", ctx.m),
            boot: machine.boot_id(),
            state_dir: K.to_owned(),
            phase: cas.as_ref().map_or("none", |cas| cas.phase.as_str()).to_owned(),
            by_guard: machine.fs.get(&format!("{}/guard.log", run_dir(&run))).is_some(),
            run,
            ..HostFacts::default()
        }
    })
}

fn before(file: &Inode) -> FileBefore {
    let (mode, uid, gid) = meta_of(file);
    FileBefore { sha: sha(&file.content), uid, gid, mode, size: file.content.len() as u64 }
}

fn look(ctx: &Ctx, probe: &Probe) -> Fact {
    match probe {
        Probe::File { path, owner, group } => {
            let file = ctx.look(|machine| machine.fs.get(path.as_str()).cloned());
            let id = |wanted: &Option<String>| wanted.as_ref().and_then(|text| text.parse().ok());
            let own = file.as_ref().map_or((0, 0), |file| (file.uid, file.gid));
            Fact::File(FileFact {
                claims: None,
                path: path.as_str().to_owned(),
                before: file.as_ref().map(before),
                fingerprint: file.as_ref().map(|file| Fingerprint::of(&file.content)),
                want_uid: id(owner).unwrap_or(own.0),
                want_gid: id(group).unwrap_or(own.1),
                room: None,
            })
        }
        Probe::Env { path, edits, .. } => {
            let file = ctx.look(|machine| machine.fs.get(path.as_str()).cloned());
            let mut content = file.clone().unwrap_or_default().content;
            let edits = edits.iter().map(|edit| {
                content = setting::edited(&content, &edit.key, &edit.value, &edit.remove);
                EditFact { count: 1, old: None, old_fingerprint: None, gone: 0, held: Vec::new(), post: sha(&content) }
            });
            let edits = edits.collect();
            Fact::Env(EnvFact {
                path: path.as_str().to_owned(),
                before: file.as_ref().map(before),
                mkdir: None,
                edits,
                room: None,
            })
        }
        Probe::Service { pointer, .. } => {
            let runner = ctx.runner();
            Fact::Service(ServiceFact {
                active: if runner.is_some() { Active::Yes } else { Active::No },
                pid: runner.as_ref().map(|_| 7),
                process: None,
                stale: false,
                pointed: pointer.as_ref().and_then(|wanted| runner.map(|runner| runner.pointer == wanted.value)),
                detail: String::new(),
                reach: Some(ReachFact { uid: 1000, here: true, ..ReachFact::default() }),
            })
        }
        // The simulated disk has room for everything; what runs out of it is shown on real ones.
        Probe::Room => Fact::Room(RoomFact { bytes: 1 << 40, inodes: None, system: "simulated".to_owned() }),
        // The simulated runner is always idle; the real look is the library's own test.
        Probe::Busy { .. } => Fact::Busy(BusyFact { looked: vec!["processes".to_owned()], ..BusyFact::default() }),
        Probe::Back { .. } => Fact::Back(BackFact::Unread),
        Probe::Task { .. } => Fact::Tasks(None),
        Probe::Backups { path } => {
            let kept = ctx.look(|machine| {
                let content = machine.fs.get(&format!("{K}/backups/given.1/content")).cloned()?;
                let meta = machine.fs.get(&format!("{K}/backups/given.1/meta"))?;
                (meta.content == path.as_str().as_bytes()).then_some(content)
            });
            let facts = kept.into_iter().map(|file| BackupFact {
                id: "given.1".to_owned(),
                sha: sha(&file.content),
                fingerprint: Fingerprint::of(&file.content),
                meta: None,
                restored: false,
            });
            Fact::Backups(facts.collect())
        }
    }
}
