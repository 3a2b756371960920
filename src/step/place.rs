//! `place`: a secret into a file, with its final mode and owner before its first byte.

use super::{Looks, No, Planned, Planner, Work, file_undo, resolved, sha_hex};
use crate::model::{Place, Step, StepStatus};
use crate::remote::{Act, Target};

impl Planner<'_> {
    pub(super) fn place(&mut self, step: &Step, place: &Place, looks: &Looks) -> Result<Planned, No> {
        let fact = self.file_fact(looks, &place.path)?;
        let Some(value) = self.values.get(&place.secret) else {
            return Err(No::because(format!("the secret `{}` has no value", place.secret)));
        };
        if self.contents.iter().any(|(path, ..)| *path == place.path) {
            return Err(No::because(format!("two steps write {}", place.path)));
        }
        let newline: &[u8] = if place.newline { b"\n" } else { b"" };
        let post = sha_hex(&[value.expose(), newline]);
        self.credential(&fact);
        let path = resolved(&fact.path)?;
        let same_content = fact.before.as_ref().is_some_and(|before| before.sha == post);
        let same_meta = fact
            .before
            .as_ref()
            .is_some_and(|before| (before.uid, before.gid, before.mode) == (fact.want_uid, fact.want_gid, place.mode));
        self.contents.push((place.path.clone(), post.clone(), !(same_content && same_meta)));
        if same_content && same_meta {
            return Ok(Planned::nothing(format!("{} is there already", value.fingerprint())));
        }
        self.dirty_process = true;
        let mut diff = Vec::new();
        let was = fact.fingerprint.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string);
        diff.push(format!("{path}: {was} -> {}", value.fingerprint()));
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
            detail: format!("{was} -> {}", value.fingerprint()),
            diff,
            work: Work::Act { act: Act::Place(target), data: Some((place.secret.clone(), place.newline)) },
        })
    }
}
