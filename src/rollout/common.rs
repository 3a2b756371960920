//! One cause, told once: hosts that refuse us for one common reason.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::remote::{Gate, Stage, UnreachableKind};

/// So many hosts that refuse alike, and more of them than hosts that do not, have one cause.
const ALIKE: usize = 3;

/// The stages at which a host may refuse, and what those say that have refused.
const STAGES: [(Stage, &str); 3] = [
    (Stage::HostKey, "have keys that are unknown or have changed"),
    (Stage::Login, "refused the login"),
    (Stage::Escalation, "refused the escalation"),
];

/// Notices that hosts refuse us for one common reason: a wrong key, a sudo rule that is missing everywhere, host keys that
/// have changed. It is told once; asked of every host it would only cost, and a bastion or sshd that punishes failed
/// logins would lock the operator out.
#[derive(Default)]
pub(super) struct Common {
    host_key: At,
    login: At,
    escalation: At,
}

/// What is known of one stage.
struct At {
    /// Until the first host has granted it, it is asked of no more at once than it takes to tell that none will. The others
    /// come as far as they may meanwhile: on a long way that is most of the time that it takes.
    turns: Arc<Semaphore>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    granted: usize,
    refused: usize,
}

impl Default for At {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(ALIKE)), seen: Mutex::default() }
    }
}

impl At {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn granted(&self) {
        let mut seen = self.seen();
        if seen.granted == 0 {
            self.turns.add_permits(Semaphore::MAX_PERMITS / 2);
        }
        seen.granted += 1;
    }
}

impl Common {
    /// What leads one host through the stages.
    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        Turn { common: Arc::clone(self), host: Mutex::default() }
    }

    fn at(&self, stage: Stage) -> &At {
        match stage {
            Stage::HostKey => &self.host_key,
            Stage::Login => &self.login,
            Stage::Escalation => &self.escalation,
        }
    }

    fn stopped(&self) -> Option<String> {
        STAGES.into_iter().find_map(|(stage, what)| {
            let Seen { granted, refused } = *self.at(stage).seen();
            (refused >= ALIKE && refused > granted).then(|| format!("not looked at: {refused} hosts before it {what}"))
        })
    }
}

/// One host's way through the stages.
pub(super) struct Turn {
    common: Arc<Common>,
    host: Mutex<OneHost>,
}

#[derive(Default)]
struct OneHost {
    /// How many stages it has granted.
    granted: usize,
    /// The stage that it is asked for, and leave to ask.
    asked: Option<(Stage, OwnedSemaphorePermit)>,
    /// Why it is not asked any more.
    kept_back: Option<String>,
}

impl Turn {
    fn host(&self) -> MutexGuard<'_, OneHost> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host has granted the first `count` stages. A host that is tried anew grants nothing twice.
    fn granted(&self, count: usize) {
        let mut host = self.host();
        for (stage, _) in STAGES.into_iter().take(count).skip(host.granted) {
            self.common.at(stage).granted();
        }
        host.granted = host.granted.max(count);
        host.asked = None;
    }

    /// Takes in what came of the host: the stage at which it said no, if it did. Gives back why it was kept from saying
    /// anything, if so.
    pub(super) fn ended(self, refused: Option<UnreachableKind>) -> Option<String> {
        let host = self.host();
        if host.kept_back.is_some() {
            return host.kept_back.clone();
        }
        let stage = match refused {
            Some(UnreachableKind::HostKey) => Some(Stage::HostKey),
            Some(UnreachableKind::Login) => Some(Stage::Login),
            Some(UnreachableKind::Escalation) => Some(Stage::Escalation),
            Some(UnreachableKind::Network | UnreachableKind::Shell) | None => None,
        };
        if let Some(stage) = stage {
            self.common.at(stage).seen().refused += 1;
        } else if let (Some(UnreachableKind::Network), Some((Stage::HostKey, _))) = (refused, &host.asked) {
            // Nothing was asked of it that it could hold against us: others need not wait for it.
            self.common.at(Stage::HostKey).turns.add_permits(1);
        }
        None
    }
}

impl Gate for Turn {
    fn enter(&self, stage: Stage) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.granted(stage as usize);
            let turns = Arc::clone(&self.common.at(stage).turns);
            // Nobody closes it.
            let turn = turns.acquire_owned().await.ok();
            let stopped = self.common.stopped();
            let mut host = self.host();
            host.asked = turn.filter(|_| stopped.is_none()).map(|turn| (stage, turn));
            host.kept_back.clone_from(&stopped);
            stopped.map_or(Ok(()), Err)
        })
    }

    fn through(&self) {
        self.granted(STAGES.len());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn enters(turn: &Turn, stage: Stage) -> Option<Result<(), String>> {
        turn.enter(stage).now_or_never()
    }

    fn turns<const N: usize>(common: &Arc<Common>) -> [Turn; N] {
        std::array::from_fn(|_| common.turn())
    }

    #[test]
    fn hosts_come_as_far_as_they_may_while_others_are_asked() {
        let common = Arc::new(Common::default());
        let [a, b, c, d] = turns(&common);
        for turn in [&a, &b, &c] {
            assert_eq!(enters(turn, Stage::HostKey), Some(Ok(())));
        }
        assert_eq!(enters(&d, Stage::HostKey), None, "no host has shown a key that is right");
        assert_eq!(enters(&a, Stage::Login), Some(Ok(())));
        assert_eq!(enters(&d, Stage::HostKey), Some(Ok(())), "one has");
        for turn in [&b, &c] {
            assert_eq!(enters(turn, Stage::Login), Some(Ok(())));
        }
        assert_eq!(enters(&d, Stage::Login), None, "no host has let us in");
        assert_eq!(enters(&b, Stage::Escalation), Some(Ok(())));
        assert_eq!(enters(&d, Stage::Login), Some(Ok(())), "one has");
        for turn in [&a, &c] {
            assert_eq!(enters(turn, Stage::Escalation), Some(Ok(())));
        }
        assert_eq!(enters(&d, Stage::Escalation), None);
        b.through();
        assert_eq!(enters(&d, Stage::Escalation), Some(Ok(())));
        assert!([a, b, c, d].into_iter().all(|turn| turn.ended(None).is_none()));
    }

    #[test]
    fn what_refuses_alike_stops_the_others_where_they_are() {
        for (stage, kind) in [
            (Stage::HostKey, UnreachableKind::HostKey),
            (Stage::Login, UnreachableKind::Login),
            (Stage::Escalation, UnreachableKind::Escalation),
        ] {
            let common = Arc::new(Common::default());
            // One has granted all before that.
            assert_eq!(enters(&common.turn(), stage), Some(Ok(())));
            let refusing: [Turn; ALIKE] = turns(&common);
            let waiting = common.turn();
            assert!(refusing.iter().all(|turn| enters(turn, stage) == Some(Ok(()))));
            assert_eq!(enters(&waiting, stage), None);
            for turn in refusing {
                assert_eq!(turn.ended(Some(kind)), None);
            }
            let why = enters(&waiting, stage).unwrap().unwrap_err();
            assert!(why.starts_with("not looked at: 3 hosts before it "), "{why}");
            assert_eq!(waiting.ended(Some(UnreachableKind::Login)), Some(why.clone()), "it refused nothing");
            assert_eq!(enters(&common.turn(), Stage::HostKey), Some(Err(why)));
        }
    }

    #[test]
    fn a_few_that_refuse_among_many_that_do_not_stop_nobody() {
        let common = Arc::new(Common::default());
        let good: [Turn; 4] = turns(&common);
        for turn in &good[..ALIKE] {
            assert_eq!(enters(turn, Stage::HostKey), Some(Ok(())));
            assert_eq!(enters(turn, Stage::Login), Some(Ok(())));
        }
        // Let in, and nothing more: it counts at once, and not when the host has answered all.
        for turn in &good {
            assert_eq!(enters(turn, Stage::Login), Some(Ok(())));
            assert_eq!(enters(turn, Stage::Escalation), Some(Ok(())));
            turn.through();
        }
        for _ in 0..ALIKE {
            let turn = common.turn();
            assert_eq!(enters(&turn, Stage::HostKey), Some(Ok(())));
            assert_eq!(enters(&turn, Stage::Login), Some(Ok(())));
            assert_eq!(turn.ended(Some(UnreachableKind::Login)), None);
        }
        assert_eq!(enters(&common.turn(), Stage::HostKey), Some(Ok(())));
    }

    #[test]
    fn who_does_not_answer_keeps_nobody_waiting() {
        let common = Arc::new(Common::default());
        let silent: [Turn; ALIKE] = turns(&common);
        assert!(silent.iter().all(|turn| enters(turn, Stage::HostKey) == Some(Ok(()))));
        let others: [Turn; ALIKE + 1] = turns(&common);
        assert_eq!(enters(&others[0], Stage::HostKey), None);
        let mut silent = silent.into_iter();
        assert_eq!(silent.next().unwrap().ended(Some(UnreachableKind::Network)), None);
        for turn in &others[..2] {
            assert_eq!(enters(turn, Stage::HostKey), Some(Ok(())), "for itself and for the one that was silent");
        }
        assert_eq!(enters(&others[2], Stage::HostKey), None);
        // Tried anew, it asks anew and holds nothing twice.
        let again = silent.next().unwrap();
        assert_eq!(enters(&again, Stage::HostKey), Some(Ok(())));
        assert_eq!(enters(&others[2], Stage::HostKey), None);
    }
}
