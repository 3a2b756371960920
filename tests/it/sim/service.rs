//! Runners on a simulated machine, as `service.sh` and the restart in `saga.sh` treat them.

use std::time::Duration;

use keyswap::remote::{Acted, FailClass, Pointer};
use tokio::time::sleep;

use super::lib::{Done, die, run_dir};
use super::sha::sha;
use super::world::{Ctx, Proc};

impl Ctx {
    pub(super) fn runner(&self) -> Option<Proc> {
        self.look(|machine| machine.runner.clone())
    }

    pub(super) fn ticks(&self) -> u64 {
        self.look(|machine| machine.ticks())
    }

    /// A mark that holds a boot and a time in it; `None` where there is none.
    pub(super) fn mark(&self, run: &str, name: &str) -> Option<(String, u64)> {
        let path = format!("{}/{name}", run_dir(run));
        let text = self.look(|machine| machine.fs.get(&path).map(|file| file.content.clone()))?;
        let text = String::from_utf8(text).ok()?;
        let (boot, ticks) = text.split_once(' ')?;
        Some((boot.to_owned(), ticks.parse().ok()?))
    }

    /// Stop or restart, through the service manager.
    pub(super) async fn svc_do(&self, restart: bool) -> Result<(), ()> {
        let word = if restart { "restart" } else { "stop" };
        // Asked first: a failure before means that nothing was asked, one after that only the answer was bad.
        let asked = self.micro(&format!("{word} asked"), |_| ()).await;
        if asked.is_ok() {
            self.world.service(self.clone(), restart).await;
        }
        asked?;
        self.micro(&format!("{word} answered"), |_| ()).await
    }

    /// Up, and the same process for so long.
    pub(super) async fn steady(&self, hold: Duration) -> Result<Proc, &'static str> {
        let mut tries = 0;
        let first = loop {
            match self.runner() {
                Some(runner) => break runner,
                None if tries > 15 => return Err("it is not up"),
                None => tries += 1,
            }
            sleep(Duration::from_millis(100)).await;
        };
        sleep(hold).await;
        match self.runner() {
            Some(runner) if runner.pid == first.pid => Ok(runner),
            _ => Err("it was restarted again while it was watched"),
        }
    }

    pub(super) async fn restart(
        &self,
        run: &str,
        step: u32,
        was_up: bool,
        healthy: Duration,
        pointer: Option<&Pointer>,
    ) -> Done<Acted> {
        if !was_up {
            if self.runner().is_some() {
                return die(FailClass::Conflict, "the runner was stopped and is up now");
            }
            return Ok(Acted { left_stopped: true, ..Acted::default() });
        }
        let name = format!("started.{step}");
        let here = self.look(|machine| machine.boot_id());
        let (since, fresh) = match self.mark(run, &name) {
            Some((boot, since)) if boot == here => (since, self.runner().is_some_and(|runner| runner.start >= since)),
            _ => {
                let since = self.ticks();
                self.note(run, &name, &format!("{here} {since}")).await?;
                (since, false)
            }
        };
        if !fresh && self.svc_do(true).await.is_err() {
            return die(FailClass::Service, "the restart failed");
        }
        let runner = match self.steady(healthy).await {
            Ok(runner) => runner,
            Err(why) => return die(FailClass::Service, format!("after the restart {why}")),
        };
        if runner.start < since {
            return die(FailClass::Service, "the process is older than the new files");
        }
        if let Some(pointer) = pointer {
            let content = self.look(|machine| machine.fs.get(&pointer.value).map(|file| sha(&file.content)));
            if runner.pointer != pointer.value || (pointer.content.is_some() && content != pointer.content) {
                return die(FailClass::Service, "the process does not have the new credential");
            }
        }
        Ok(Acted::default())
    }
}
