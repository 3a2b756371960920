//! `point`: one key of an environment file.

use super::{Looks, No, Planned, Planner, Superseded, resolved};
use crate::model::{Point, RemotePath, Step};
use crate::remote::{Act, EnvEdit, Fact, Target, UndoRecord};

impl Planner<'_> {
    pub(super) fn point(&mut self, step: &Step, point: &Point, looks: &Looks) -> Result<Planned, No> {
        let place = looks.of_step(step.id.index);
        let Fact::Env(fact) = self.fact(place.map(|(probe, _)| probe))?.clone() else {
            return Err(No::because("the host answered another question"));
        };
        let nth = place.map_or(0, |(_, nth)| nth);
        let Some(edit) = fact.edits.get(nth) else {
            return Err(No::because("the host did not say what the edit would change"));
        };
        let first = fact.before.as_ref().map(|before| before.sha.clone());
        let pre = match nth.checked_sub(1) {
            None => first,
            Some(earlier) => fact.edits.get(earlier).map(|edit| edit.post.clone()),
        };
        if edit.count > 1 {
            let times = edit.count;
            self.plan.notes.push(format!("{} sets {} {times} times; one line stays", fact.path, point.key));
        }
        if pre.as_ref() == Some(&edit.post) {
            return Ok(Planned::nothing(format!("{} points there already", point.key)));
        }
        self.dirty_process = true;
        if let (Some(old), Some(fingerprint)) = (&edit.old, &edit.old_fingerprint)
            && *old != point.value
            && let Ok(path) = old.parse()
        {
            self.plan.superseded.push(Superseded { path, fingerprint: fingerprint.clone() });
        }
        for held in &edit.held {
            if !self.plan.taken_out.contains(held) {
                self.plan.taken_out.push(held.clone());
            }
        }
        let path = resolved(&fact.path)?;
        let (mode, uid, gid) = match &fact.before {
            Some(before) => (before.mode, before.uid, before.gid),
            // A drop-in is no secret and systemd wants to read it; a new env file is private to begin with.
            None if point.format == crate::model::EnvFormat::SystemdDropin => (0o644, 0, 0),
            None => return Err(No::because(format!("{} does not exist", point.file))),
        };
        let mut diff = vec![match &edit.old {
            Some(old) if edit.count > 0 => format!("{path}: {}={old} -> {}={}", point.key, point.key, point.value),
            _ if edit.count > 0 => format!("{path}: {} -> {}={}", point.key, point.key, point.value),
            _ => format!("{path}: + {}={}", point.key, point.value),
        }];
        if edit.gone > 0 {
            diff.push(format!("{path}: - {} ({} lines)", point.remove.join(", "), edit.gone));
        }
        let target = Target { path: path.clone(), mode, uid, gid, pre, post: edit.post.clone() };
        let act = Act::Point {
            target,
            format: point.format,
            edit: EnvEdit { key: point.key.clone(), value: point.value.clone(), remove: point.remove.clone() },
        };
        self.env_undo(step, point, path, &fact, &edit.post)?;
        Ok(Planned::change(format!("{}={}", point.key, point.value), diff, act))
    }

    /// One record for a file, however many steps edit it: its bytes before the first of them.
    fn env_undo(
        &mut self,
        step: &Step,
        point: &Point,
        at: RemotePath,
        fact: &crate::remote::EnvFact,
        post: &str,
    ) -> Result<(), No> {
        let ours = std::iter::once(&point.key).chain(&point.remove).cloned();
        let known = self.plan.undo.iter_mut().find_map(|record| match record {
            UndoRecord::Env { path, keys, posts, .. } if *path == at => Some((keys, posts)),
            _ => None,
        });
        if let Some((keys, posts)) = known {
            keys.extend(ours);
            posts.push(post.to_owned());
            return Ok(());
        }
        if let Some(dir) = &fact.mkdir {
            self.plan.undo.push(UndoRecord::Rmdir { step: step.id.index, path: resolved(dir)? });
        }
        self.plan.undo.push(UndoRecord::Env {
            step: step.id.index,
            path: at,
            before: fact.before.clone(),
            format: point.format,
            keys: ours.collect(),
            posts: vec![post.to_owned()],
        });
        Ok(())
    }
}
