//! Reaching a host again, patiently.
//!
//! Only a network that does not answer is tried again, with pauses that are not in step with those of other hosts. A host
//! that says no (its key, the login, the escalation) says so again, and some lock the operator out for asking.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::{Patience, Shared};
use crate::model::Host;
use crate::remote::{self, Answer, Gate, HostFacts, Op, Unreachable, UnreachableKind};

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Connects to a host and asks it what it is.
pub(super) async fn reach(
    shared: &Shared,
    host: &Host,
    patience: Patience,
    gate: &dyn Gate,
) -> Result<(Box<dyn remote::Host>, HostFacts), Unreachable> {
    let mut rest = patience.first_rest;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match once(shared, host, gate).await {
            Ok(reached) => return Ok(reached),
            Err(error) => error,
        };
        if attempt >= patience.attempts || error.kind != UnreachableKind::Network {
            return Err(error);
        }
        tokio::time::sleep(spread(rest, host, attempt)).await;
        rest = (rest * 2).min(LONGEST);
    }
}

async fn once(
    shared: &Shared,
    host: &Host,
    gate: &dyn Gate,
) -> Result<(Box<dyn remote::Host>, HostFacts), Unreachable> {
    let mut conn = shared.connect.connect(host, gate).await?;
    let not = |kind, message: String| Unreachable { kind, message, hint: None };
    match conn.call(&Op::Hello, None).await {
        Ok(Answer::Hello(facts)) => Ok((conn, *facts)),
        Ok(_) => Err(not(UnreachableKind::Shell, "the host answered another question".to_owned())),
        Err(error @ remote::CallError::Lost(_)) => Err(not(UnreachableKind::Network, error.to_string())),
        Err(error) => Err(not(UnreachableKind::Shell, error.to_string())),
    }
}

/// Between three quarters and five quarters of a pause: each host has its own, so that many are not asked in step. By the
/// host's name and not by chance, so that what happened once happens again when it is tried again.
fn spread(pause: Duration, host: &Host, attempt: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (host.name.as_str(), attempt).hash(&mut hasher);
    let part = u32::try_from(hasher.finish() >> 40).unwrap_or(0) % 1000;
    pause.saturating_mul(750 + part / 2) / 1000
}
