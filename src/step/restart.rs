//! `restart`: the runner takes the new files up, and its process is looked at.

use std::time::Duration;

use super::{Looks, No, Planned, Planner, capped};
use crate::model::{Action, Drain, Point, Reaches, Restart, RestartHow, Step};
use crate::remote::{Act, Active, BusyFact, Fact, Pointer, StopLimit, UndoRecord};

/// The pointers before a restart that its process must show, the last one first: the last word on a key counts.
fn pointers_of(earlier: &[Step]) -> Vec<&Point> {
    let mut found: Vec<&Point> = Vec::new();
    for step in earlier.iter().rev().filter(|step| step.enabled) {
        if let Action::Point(point) = &step.action
            && point.reaches == Reaches::Daemon
            && !found.iter().any(|later| later.key == point.key || later.remove.contains(&point.key))
        {
            found.push(point);
        }
    }
    found
}

/// The last of them.
pub(super) fn pointer_of(earlier: &[Step]) -> Option<&Point> {
    pointers_of(earlier).first().copied()
}

impl Planner<'_> {
    pub(super) fn restart(
        &mut self,
        at: usize,
        steps: &[Step],
        step: &Step,
        restart: &Restart,
        looks: &Looks,
    ) -> Result<Planned, No> {
        let restart = &Restart { timeout: capped(step, self.in_time(restart, looks)), ..restart.clone() };
        let Fact::Service(fact) = self.fact(looks.of_step(step.id.index).map(|(probe, _)| probe))?.clone() else {
            return Err(No::because("the host answered another question"));
        };
        let name = name_of(&restart.how);
        let was_up = match fact.active {
            Active::Yes | Active::Unknown => true,
            Active::No => false,
            Active::Missing => return Err(No::because(format!("there is no {name} on this host ({})", fact.detail))),
            Active::Looping => {
                return Err(No::because(format!("{name} crash-loops before anything was changed ({})", fact.detail)));
            }
        };
        let pointers = pointers_of(steps.get(..at).unwrap_or_default());
        let point = pointers.first();
        let debt = fact.stale || fact.pointed == Some(false);
        if self.has_file_steps && !self.dirty_process && !debt {
            let unseen = fact.pid.is_none() && fact.active == Active::Unknown;
            let said = if unseen {
                "nothing has changed; whether the running process has the files cannot be seen"
            } else {
                "the running process has the files already"
            };
            return Ok(Planned::nothing(said));
        }
        if self.has_file_steps && !self.dirty_process {
            self.plan.notes.push(format!("{name} runs on older files: it was never restarted on them"));
        }
        if matches!(restart.how, RestartHow::Docker { .. }) && point.is_some() {
            self.plan
                .notes
                .push(format!("a plain docker restart does not read an env file again: {name} keeps its environment"));
        }
        if was_up && restart.drain == Drain::Wait {
            self.warn_of_jobs(&name, restart, looks);
        }
        let mut seen = pointers.iter().map(|point| Pointer {
            key: point.key.clone(),
            value: point.value.clone(),
            content: self.content_behind(&point.value),
        });
        let pointer = seen.next();
        let also: Vec<Pointer> = seen.collect();
        let removed = pointers.iter().flat_map(|point| &point.remove);
        let gone = removed.filter(|key| pointers.iter().all(|point| point.key != **key)).cloned().collect();
        self.plan.undo.push(UndoRecord::Service {
            step: step.id.index,
            how: restart.how.clone(),
            was_up,
            healthy: restart.healthy,
            timeout: restart.timeout,
        });
        let detail = if was_up {
            format!("restarts {name} ({})", fact.detail)
        } else {
            format!("{name} is stopped and stays stopped")
        };
        Ok(Planned::change(
            detail.clone(),
            vec![detail],
            Act::Restart {
                how: restart.how.clone(),
                was_up,
                healthy: restart.healthy,
                timeout: restart.timeout,
                pointer,
                also,
                gone,
                drain: was_up && restart.drain == Drain::Wait,
            },
        ))
    }

    /// The limit of a restart. A container that was given time to stop gets that time, for as long as a job would be waited for,
    /// so that one which begins at that very moment can end; systemd keeps a unit's own time whatever we wait for.
    fn in_time(&self, restart: &Restart, looks: &Looks) -> Duration {
        let container = matches!(restart.how, RestartHow::Docker { .. } | RestartHow::Compose { .. });
        match self.busy(restart, looks).and_then(|busy| busy.stop.as_ref()) {
            Some(StopLimit::Seconds(own))
                if container && restart.drain == Drain::Wait && *own > gives(restart.timeout) =>
            {
                restart.timeout.max(Duration::from_secs(10)) + Duration::from_secs(*own).min(restart.drain_timeout)
            }
            _ => restart.timeout,
        }
    }

    fn busy(&self, restart: &Restart, looks: &Looks) -> Option<&BusyFact> {
        match looks.busy_of(&restart.how).and_then(|at| self.facts.get(at)) {
            Some(Fact::Busy(busy)) => Some(busy),
            _ => None,
        }
    }

    /// What waiting for jobs cannot promise here: places that nobody can look into, and a stop that is cut short.
    fn warn_of_jobs(&mut self, name: &str, restart: &Restart, looks: &Looks) {
        let Some(busy) = self.busy(restart, looks).cloned() else { return };
        if let Some(blind) = &busy.blind {
            self.plan.notes.push(super::jobs_missed(blind));
        }
        let ours = gives(restart.timeout);
        let container = matches!(restart.how, RestartHow::Docker { .. } | RestartHow::Compose { .. });
        match busy.stop {
            Some(StopLimit::Seconds(least)) if container && least > ours => self.plan.notes.push(format!(
                "{name} may take {least} s to stop, and its restart gives it {ours} s (`timeout`, `drain_timeout`): a job that begins at that \
                 very moment is cut off"
            )),
            Some(StopLimit::Seconds(least)) if !container && least < 30 => self.plan.notes.push(format!(
                "{name} is killed {least} s after it was told to stop (TimeoutStopSec): a job that begins at that very moment is \
                 cut off"
            )),
            _ => {}
        }
    }

    /// The content that a pointer's file must show: that of the file placed under the same name (the path may differ,
    /// a container sees its own), or of the only one.
    fn content_behind(&self, value: &str) -> Option<String> {
        let name = value.rsplit('/').next();
        let same = self.contents.iter().find(|(path, ..)| Some(path.file_name()) == name);
        match (same, self.contents.as_slice()) {
            (Some((_, sha, _)), _) | (None, [(_, sha, _)]) => Some(sha.clone()),
            _ => None,
        }
    }
}

/// The seconds that a restart within this limit gives a container to stop, as the host reckons it (`ks_grace`).
fn gives(limit: Duration) -> u64 {
    limit.as_secs().saturating_sub(10).max(10)
}

fn name_of(how: &RestartHow) -> String {
    match how {
        RestartHow::Systemd { unit } => format!("unit {unit}"),
        RestartHow::Docker { container } => format!("container {container}"),
        RestartHow::Compose { file, service } => format!("service {service} of {file}"),
        RestartHow::Command { .. } => "the runner".to_owned(),
    }
}
