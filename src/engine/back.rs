//! Whether runners are connected to their forge again after the restart: by the forge where it tells, else by the runner's own
//! log on its host. What neither tells was not looked at, and is said so.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Shared;
use super::alive::keep_alive;
use super::jobs::restart_of;
use super::saga::{Saga, Stop, StopKind};
use crate::model::{HostName, VerifyPublish};
use crate::remote::{BackFact, Fact, Probe};
use crate::step::ServiceError;

/// How long a runner is waited for that says that it has begun: it connects within seconds.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a log is waited for in which nothing stands of it: it may be a log in which such things never do.
const SILENT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(500);

/// By what a runner was seen.
enum Seen {
    Forge,
    Log,
    Not(String),
}

/// A runner that was restarted, and by what it was seen so far.
struct Runner {
    host: HostName,
    /// What the forge calls it.
    name: Option<String>,
    probe: Probe,
    seen: Option<Seen>,
}

impl Saga {
    fn runner(&self, spec: &VerifyPublish) -> Option<Runner> {
        let restart = self.plan.steps.iter().rev().find_map(restart_of).filter(|restart| restart.was_up)?;
        let probe = Probe::Back { how: restart.how.clone(), log: self.own_spec(spec).runner_log };
        let runner = || Runner { host: self.host.name.clone(), name: self.runner_name(spec), probe, seen: None };
        self.changes().then(runner)
    }
}

/// Looks for the runners of these hosts, and says in a line by what each was seen.
///
/// # Errors
/// When the forge sees one offline for too long, or one says that the forge does not know it.
pub(super) async fn runners_back(
    shared: &Shared,
    sagas: &mut [Saga],
    spec: &VerifyPublish,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<String, Stop> {
    let mut runners: Vec<Option<Runner>> = sagas.iter().map(|saga| saga.runner(spec)).collect();
    by_forge(shared, sagas, (spec, &mut runners), progress).await?;
    by_log(shared, sagas, &mut runners).await?;
    let mut said = Vec::new();
    for (saga, runner) in sagas.iter_mut().zip(runners) {
        let Some(Runner { host, name, seen, .. }) = runner else { continue };
        let name = name.unwrap_or_else(|| format!("the runner of {host}"));
        match seen.unwrap_or_else(|| Seen::Not("stopped by the operator".to_owned())) {
            Seen::Forge => said.push(format!("{name} is online by the forge (as it saw it within the last minute)")),
            Seen::Log => said.push(format!("{name} is online by its log")),
            Seen::Not(why) => {
                said.push(format!("{name} was not looked at"));
                saga.notes.push(format!("whether {name} is connected to its forge again was not looked at: {why}"));
            }
        }
    }
    Ok(said.join(", "))
}

/// Asks the forge for those that the step names.
async fn by_forge(
    shared: &Shared,
    sagas: &mut [Saga],
    (spec, runners): (&VerifyPublish, &mut [Option<Runner>]),
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<(), Stop> {
    let asked = async {
        for runner in runners.iter_mut().flatten() {
            let Some(name) = &runner.name else { continue };
            let told = tokio::select! {
                told = shared.services.runner_back(&spec.repo, name, progress) => told?,
                () = shared.halt.cancelled() => return Ok(()),
            };
            runner.seen = told.then_some(Seen::Forge);
        }
        Ok::<_, ServiceError>(())
    };
    keep_alive(sagas, asked).await.map_err(|error| {
        let kind = if error.auth { StopKind::Auth } else { StopKind::Failed };
        Stop::new(kind, error.message)
    })
}

/// Asks the hosts of all others for what those say themselves.
async fn by_log(shared: &Shared, sagas: &mut [Saga], runners: &mut [Option<Runner>]) -> Result<(), Stop> {
    let began = Instant::now();
    loop {
        let so_far = began.elapsed();
        let open = sagas.iter_mut().zip(runners.iter_mut()).filter_map(|(saga, runner)| {
            let runner = runner.as_mut().filter(|runner| runner.seen.is_none())?;
            Some(async move {
                let Fact::Back(fact) = saga.look_at(runner.probe.clone()).await? else {
                    return Err(Stop::new(StopKind::Failed, "the host answered another question"));
                };
                runner.seen = match fact {
                    BackFact::Connected => Some(Seen::Log),
                    BackFact::Unread => Some(Seen::Not("nothing tells: neither the forge nor a log of it".to_owned())),
                    BackFact::Unregistered => {
                        let reason = format!("{}: the runner says that its forge does not know it", runner.host);
                        return Err(Stop::new(StopKind::Failed, reason));
                    }
                    BackFact::Starting if so_far >= LONGEST => {
                        Some(Seen::Not(format!("it has begun, and did not say so within {} s", LONGEST.as_secs())))
                    }
                    BackFact::Silent if so_far >= SILENT => Some(Seen::Not("its log does not say".to_owned())),
                    BackFact::Starting | BackFact::Silent => None,
                };
                Ok::<_, Stop>(())
            })
        });
        join_all(open).await.into_iter().collect::<Result<Vec<()>, Stop>>()?;
        if shared.halt.is_cancelled() || runners.iter().flatten().all(|runner| runner.seen.is_some()) {
            return Ok(());
        }
        keep_alive(sagas, async {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shared.halt.cancelled() => {}
            }
        })
        .await;
    }
}
