//! `place`: a secret into a file, with its final mode and owner before its first byte.

use super::{Looks, No, OldEnd, Planned, Planner, Work, file_undo, resolved, sha_hex};
use crate::model::{Place, Step, StepStatus};
use crate::remote::{Act, Target};
use crate::service::infisical::Claims;

/// Stands where the digest of a value will stand that is still to come.
const TO_COME: &str = "to-come";

impl Planner<'_> {
    pub(super) fn place(&mut self, step: &Step, place: &Place, looks: &Looks) -> Result<Planned, No> {
        let fact = self.file_fact(looks, &place.path)?;
        let value = self.values.get(&place.secret);
        if value.is_none() && !self.values.is_to_come(&place.secret) {
            return Err(No::because(format!("the secret `{}` has no value", place.secret)));
        }
        let named = value.map_or_else(|| "a token that is minted for it".to_owned(), |v| v.fingerprint().to_string());
        if self.contents.iter().any(|(path, ..)| *path == place.path) {
            return Err(No::because(format!("two steps write {}", place.path)));
        }
        let newline: &[u8] = if place.newline { b"\n" } else { b"" };
        // What is still to come is no content that could be there already: the plan is made anew when it came.
        let post = value.map_or_else(|| TO_COME.to_owned(), |value| sha_hex(&[value.expose(), newline]));
        self.credential(&fact);
        let path = resolved(&fact.path)?;
        let same_content = fact.before.as_ref().is_some_and(|before| before.sha == post);
        let same_meta = fact
            .before
            .as_ref()
            .is_some_and(|before| (before.uid, before.gid, before.mode) == (fact.want_uid, fact.want_gid, place.mode));
        self.contents.push((place.path.clone(), post.clone(), !(same_content && same_meta)));
        if same_content && same_meta {
            return Ok(Planned::nothing(format!("{named} is there already")));
        }
        self.dirty_process = true;
        let claims = fact.claims.as_deref().and_then(Claims::of_payload);
        if let Some(at) = claims.and_then(|claims| claims.expires()) {
            self.plan.old_ends.push(OldEnd { path: fact.path.clone(), at });
        }
        let mut diff = Vec::new();
        let was = fact.fingerprint.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string);
        diff.push(format!("{path}: {was} -> {named}"));
        if let Some(before) = fact.before.as_ref().filter(|_| !same_meta) {
            diff.push(format!(
                "{path}: {:04o} {}:{} -> {:04o} {}:{}",
                before.mode, before.uid, before.gid, place.mode, fact.want_uid, fact.want_gid
            ));
        }
        let target = Target {
            path: path.clone(),
            mode: place.mode,
            uid: fact.want_uid,
            gid: fact.want_gid,
            pre: fact.before.as_ref().map(|before| before.sha.clone()),
            post: post.clone(),
        };
        self.plan.undo.push(file_undo(step.id.index, path, fact.before, &post));
        Ok(Planned {
            status: StepStatus::Changed,
            detail: format!("{was} -> {named}"),
            diff,
            work: Work::Act { act: Act::Place(target), data: Some((place.secret.clone(), place.newline)) },
        })
    }
}
