//! Work that the controller does alone, for a host, a batch or the run.

use super::alive::keep_alive;
use super::back::runners_back;
use super::saga::{Saga, Stop, StopKind};
use super::{Shared, ran_here};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{HostName, Once, StepStatus, Verdict, WaitFor};
use crate::remote::{Act, Acted};
use crate::secret::SecretValue;
use crate::step::{self, Consent, PlannedStep, Proofs, Question, Work};

/// A step's intent, for the journal.
pub fn started(step: &PlannedStep) -> Record {
    let intent = if step.detail.is_empty() { "nothing to do" } else { &step.detail };
    let (step, action) = (step.id.clone(), step.work.action().map(str::to_owned));
    Record::StepStarted { step, intent: intent.to_owned(), action }
}

impl Saga {
    /// Keeps what the host looked at after an act, and what it could not look at. It says yes to a restart only when all
    /// of this was so.
    pub(super) fn look_closely(&mut self, act: &Act, acted: &Acted) {
        let Act::Restart { healthy, pointer, .. } = act else { return };
        if acted.process_unchecked {
            self.notes.push("process not checked".to_owned());
        } else if !acted.left_stopped {
            let up = if healthy.is_zero() { String::new() } else { format!(", and stayed up for {healthy:?}") };
            self.seen.push(format!("the process began after the new files were in place{up}"));
            if let Some(pointer) = pointer {
                self.seen.push(format!("its environment has {}={}", pointer.key, pointer.value));
                if pointer.content.is_some() {
                    self.seen.push("it sees there what was placed".to_owned());
                }
            }
        }
    }
}

/// Work that the controller does alone, while the hosts that it is done for are kept alive: one, a batch, or all.
///
/// # Errors
/// When it does not succeed.
pub async fn controllers_work(
    shared: &Shared,
    sagas: &mut [Saga],
    step: &PlannedStep,
) -> Result<(StepStatus, String), Stop> {
    let host = match (step.once, &*sagas) {
        (Once::Host, [one]) => Some(one.name().clone()),
        _ => None,
    };
    match &step.work {
        Work::VerifyPublish(spec) => {
            let progress = |detail: String| {
                shared.events.emit(host.as_ref(), Some(&step.id), EventKind::StepProgress { detail });
            };
            let back = runners_back(shared, sagas, spec, &progress).await?;
            let work = shared.services.verify_publish(spec, &progress, shared.halt.clone());
            match keep_alive(sagas, work).await {
                Ok(verified) => {
                    let mut said = ran_here(sagas, spec, &verified).await?;
                    if !back.is_empty() {
                        said = format!("{said}; {back}");
                    }
                    Ok((StepStatus::Ok, said))
                }
                // What it leaves on the forge is said too.
                Err(error) if shared.halt.is_cancelled() => Err(Stop::new(StopKind::Cancelled, error.message)),
                Err(error) => Err(stop(error)),
            }
        }
        Work::Prove { secret, .. } => {
            let Some(value) = shared.values.get(secret) else {
                return Err(Stop::new(StopKind::Failed, format!("the value of `{secret}` is not at hand")));
            };
            prove(shared, (host.as_ref(), sagas), step, (secret, value)).await
        }
        Work::Approve { message, limit } => {
            let progress = |detail: String| {
                shared.events.emit(host.as_ref(), Some(&step.id), EventKind::StepProgress { detail });
            };
            let question = Question {
                run: shared.run.clone(),
                step: step.id.clone(),
                batch: sagas.first().map_or(0, Saga::batch),
                host: host.clone(),
                hosts: sagas.iter().map(|saga| saga.name().clone()).collect(),
                message: message.clone(),
                limit: *limit,
            };
            let asked = keep_alive(sagas, async {
                tokio::select! {
                    answer = shared.services.approve(&question, &progress) => Some(answer),
                    () = shared.halt.cancelled() => None,
                }
            });
            let Consent { detail, proofs } = match asked.await {
                Some(Ok(consent)) => consent,
                Some(Err(why)) => return Err(Stop::new(StopKind::Refused, why)),
                None => return Err(Stop::new(StopKind::Cancelled, "stopped by the operator")),
            };
            if let Some(Proofs { plan, approvals, allowed_signers }) = proofs {
                let what = format!("step {}", step.id);
                shared.journal.append(None, Record::PlanApproved { what, plan, approvals, allowed_signers }).await?;
            }
            Ok((StepStatus::Ok, detail))
        }
        Work::AssertNotStored(spec) => {
            let looked = keep_alive(sagas, shared.services.not_stored(spec)).await;
            Ok((StepStatus::Ok, looked.map_err(stop)?))
        }
        Work::Http(spec) => {
            let answered = keep_alive(sagas, shared.services.http(spec)).await;
            Ok((StepStatus::Ok, answered.map_err(stop)?))
        }
        Work::Wait { until: WaitFor::Time(time), .. } => {
            let halted = keep_alive(sagas, async {
                tokio::select! {
                    () = tokio::time::sleep(*time) => false,
                    () = shared.halt.cancelled() => true,
                }
            });
            match halted.await {
                false => Ok((StepStatus::Ok, "waited".to_owned())),
                true => Err(Stop::new(StopKind::Cancelled, "stopped by the operator")),
            }
        }
        _ => Ok((StepStatus::Ok, String::new())),
    }
}

/// Whether a step that did not succeed is tried again, after a pause: only what leaves nothing behind, and not once the
/// rollout is stopped. `tries`: how often it was tried again before.
pub async fn again(shared: &Shared, step: &PlannedStep, stop: &Stop, tries: u32) -> bool {
    if stop.kind != StopKind::Failed || tries >= step.repeats() {
        return false;
    }
    tokio::select! {
        () = tokio::time::sleep(PlannedStep::pause(tries)) => !shared.halt.is_cancelled(),
        () = shared.halt.cancelled() => false,
    }
}

/// Looks what a secret can read: by way of the host, where the step is a host's.
async fn prove(
    shared: &Shared,
    (host, sagas): (Option<&HostName>, &mut [Saga]),
    step: &PlannedStep,
    (secret, value): (&String, &SecretValue),
) -> Result<(StepStatus, String), Stop> {
    let way = match (host, &*sagas) {
        (None, _) => None,
        (Some(_), [one]) if one.way().is_some() => one.way(),
        (Some(_), _) => {
            return Err(Stop::new(StopKind::Failed, "this connection leads nowhere but to the host itself"));
        }
    };
    let proved = keep_alive(sagas, shared.services.prove(secret, value, way)).await;
    let step::Proved { narrow, summary, rows } = proved.map_err(stop)?;
    let broad = rows.iter().any(|row| row.verdict == Verdict::Fail);
    let record = Record::Proved { secret: secret.clone(), narrow, summary: summary.clone(), rows: rows.clone() };
    shared.journal.append(host, record).await?;
    let told = EventKind::Proof { secret: secret.clone(), narrow, summary: summary.clone(), rows };
    shared.events.emit(host, Some(&step.id), told);
    match (narrow, host) {
        (true, _) => Ok((StepStatus::Ok, summary)),
        (false, None) => Err(Stop::new(StopKind::Auth, summary)),
        // What could not be seen from there may be seen from elsewhere; what was seen is so for every host.
        (false, Some(_)) if broad => Err(Stop::new(StopKind::Auth, summary)),
        (false, Some(_)) => Err(Stop::new(StopKind::Failed, summary)),
    }
}

fn stop(error: step::ServiceError) -> Stop {
    Stop::new(if error.auth { StopKind::Auth } else { StopKind::Failed }, error.message)
}
