//! `restore`: the newest backup whose fingerprint differs from what is live.
//!
//! Run twice it does not walk further back: when the newest backup is what is live because a `restore` put it there,
//! there is nothing to do.

use super::{Looks, No, Planned, Planner, file_undo, resolved};
use crate::model::{Restore, Step};
use crate::remote::{Act, Fact, Target};

impl Planner<'_> {
    pub(super) fn restore(&mut self, step: &Step, restore: &Restore, looks: &Looks) -> Result<Planned, No> {
        let fact = self.file_fact(looks, &restore.path)?;
        let Fact::Backups(backups) = self.fact(looks.backups_at(&restore.path))?.clone() else {
            return Err(No::because("the host answered another question"));
        };
        self.credential(&fact);
        let live = fact.fingerprint.as_ref();
        let Some(newest) = backups.last() else {
            return Err(No::because(format!("this host keeps no backup of {}", restore.path)));
        };
        if newest.restored && Some(&newest.fingerprint) == live {
            return Ok(Planned::nothing(format!("{} was put back already", newest.fingerprint)));
        }
        let Some(backup) = backups.iter().rev().find(|backup| Some(&backup.fingerprint) != live) else {
            return Ok(Planned::nothing(format!("every backup is what is live ({})", newest.fingerprint)));
        };
        // As it was when the backup was made: since then the file may have got another owner with another content.
        let (mode, uid, gid) = match (&fact.before, backup.meta) {
            (_, Some((uid, gid, mode))) => (mode, uid, gid),
            (Some(before), None) => (before.mode, before.uid, before.gid),
            (None, None) => (0o600, fact.want_uid, fact.want_gid),
        };
        let path = resolved(&fact.path)?;
        let was = live.map_or_else(|| "absent".to_owned(), ToString::to_string);
        let target = Target {
            path: path.clone(),
            mode,
            uid,
            gid,
            pre: fact.before.as_ref().map(|before| before.sha.clone()),
            post: backup.sha.clone(),
        };
        self.dirty_process = true;
        self.contents.push((restore.path.clone(), backup.sha.clone(), true));
        self.plan.undo.push(file_undo(step.id.index, path.clone(), fact.before, &backup.sha));
        Ok(Planned::change(
            format!("{was} -> {} (backup {})", backup.fingerprint, backup.id),
            vec![format!("{path}: {was} -> {}", backup.fingerprint)],
            Act::Restore { target, backup: backup.id.clone() },
        ))
    }
}
