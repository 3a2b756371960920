//! The watcher on a simulated machine, as `guard.sh` lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::lib::{private, run_dir};
use super::world::{Ctx, World};

/// Starts a watcher that outlives whoever starts it.
pub(super) fn start(world: &Arc<World>, m: usize) {
    let pid = world.at(m, |machine| {
        let pid = machine.new_session();
        machine.watcher = Some(pid);
        pid
    });
    let ctx = Ctx { world: Arc::clone(world), m, pid, op: "guard".to_owned(), life: None };
    let task = tokio::spawn(watch(ctx)).abort_handle();
    world.at(m, |machine| {
        if let Some(session) = machine.sessions.get_mut(&pid) {
            session.busy = true;
            session.task = Some(task);
        }
    });
}

async fn watch(ctx: Ctx) {
    let mut tries: u32 = 0;
    while let Ok(cas) = ctx.cas_look() {
        let here = ctx.look(|machine| machine.boot_id());
        let same_boot = cas.boot == here;
        let fence = match cas.phase.as_str() {
            "armed" => {
                if same_boot {
                    if cas.until == "0" {
                        sleep(Duration::from_secs(5)).await;
                        continue;
                    }
                    let until: u64 = cas.until.parse().unwrap_or(0);
                    let now = ctx.look(|machine| machine.ticks());
                    if until > now {
                        sleep(Duration::from_millis((until - now).min(500) * 10)).await;
                        continue;
                    }
                }
                cas.owner.clone()
            }
            "undo" => {
                if same_boot && cas.owner == ctx.me() {
                    // Our own attempt broke off before it could settle the host.
                    tries += 1;
                    if tries > 3 && ctx.cas(&cas, "dirty", "-", "0", &cas.run, cas.epoch).await == 0 {
                        let _ = ctx.state_synced().await;
                        continue;
                    }
                    sleep(Duration::from_secs(u64::from(tries.min(60)))).await;
                } else if ctx.at_work(&cas) {
                    sleep(Duration::from_millis(200)).await;
                    continue;
                }
                cas.until.clone()
            }
            _ => {
                ctx.guard_remove().await;
                break;
            }
        };
        let fence = if same_boot { fence } else { "0".to_owned() };
        if ctx.cas(&cas, "undo", &ctx.me(), &fence, &cas.run, cas.epoch).await != 0 {
            sleep(Duration::from_millis(200)).await;
            continue;
        }
        fire(&ctx, &cas.run, &fence).await;
    }
    ctx.look(|machine| {
        machine.kill_session(ctx.pid);
    });
}

/// Nobody else acts on the host any more, then the run is taken back.
async fn fire(ctx: &Ctx, run: &str, fence: &str) {
    let _ = ctx.state_synced().await;
    if fence != "0" {
        let _ = ctx.fence(fence).await;
    }
    let log = format!("{}/guard.log", run_dir(run));
    ctx.look(|machine| machine.fs.create(&log, private(b"")));
    let _ = ctx.undo(run).await;
    let _ = ctx
        .micro("guard's log synced", |machine| {
            machine.fs.sync_file(&log);
            machine.fs.sync_dir(&run_dir(run));
        })
        .await;
}
