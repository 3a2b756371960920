//! One cause, told once: hosts that refuse us for one common reason.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::remote::UnreachableKind;

/// So many hosts that refuse alike, and more of them than hosts that are ready, have one cause.
const ALIKE: usize = 3;

/// Notices that hosts refuse us for one common reason: a wrong key, a sudo rule that is missing everywhere, host keys that
/// have changed. It is told once; asked of every host it would only cost, and a bastion or sshd that punishes failed
/// logins would lock the operator out.
pub(super) struct Common {
    seen: Mutex<Seen>,
    /// Until the first host has let us in, no more are tried at once than it takes to tell that none will.
    turns: Semaphore,
}

#[derive(Default)]
struct Seen {
    ready: usize,
    login: usize,
    escalation: usize,
    host_key: usize,
}

impl Default for Common {
    fn default() -> Self {
        Self { seen: Mutex::default(), turns: Semaphore::new(ALIKE) }
    }
}

impl Common {
    /// Waits until another host may be tried.
    ///
    /// # Errors
    /// Why none is tried any more.
    pub(super) async fn turn(&self) -> Result<Option<SemaphorePermit<'_>>, String> {
        // Nobody closes it.
        let turn = self.turns.acquire().await.ok();
        match self.stopped() {
            Some(why) => Err(why),
            None => Ok(turn),
        }
    }

    /// Takes in what came of a host: whether it let us in, or at which stage it said no.
    pub(super) fn saw(&self, kind: Option<UnreachableKind>, ready: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Some(UnreachableKind::Login) => seen.login += 1,
            Some(UnreachableKind::Escalation) => seen.escalation += 1,
            Some(UnreachableKind::HostKey) => seen.host_key += 1,
            // Nothing was asked of it that it could hold against us.
            Some(UnreachableKind::Network) => self.turns.add_permits(1),
            Some(UnreachableKind::Shell) | None => {}
        }
        if ready {
            if seen.ready == 0 {
                self.turns.add_permits(Semaphore::MAX_PERMITS / 2);
            }
            seen.ready += 1;
        }
    }

    fn stopped(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let causes = [
            (seen.login, "refused the login"),
            (seen.escalation, "refused the escalation"),
            (seen.host_key, "have keys that are unknown or have changed"),
        ];
        let (count, what) = causes.into_iter().find(|(count, _)| *count >= ALIKE && *count > seen.ready)?;
        Some(format!("not looked at: {count} hosts before it {what}"))
    }
}
