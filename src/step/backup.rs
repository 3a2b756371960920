//! `backup`: a named copy of a credential file, which outlives the run.

use super::{Looks, No, Planned, Planner, resolved};
use crate::model::{Action, Backup, Step};
use crate::remote::{Act, Fact, UndoRecord};

impl Planner<'_> {
    pub(super) fn backup(
        &mut self,
        step: &Step,
        backup: &Backup,
        steps: &[Step],
        looks: &Looks,
    ) -> Result<Planned, No> {
        let fact = self.file_fact(looks, &backup.path)?;
        self.credential(&fact);
        let (Some(before), Some(fingerprint)) = (&fact.before, &fact.fingerprint) else {
            return Ok(Planned::nothing(format!("there is no {} yet", backup.path)));
        };
        let Fact::Backups(backups) = self.fact(looks.backups_at(&backup.path))? else {
            return Err(No::because("the host answered another question"));
        };
        if backups.last().is_some_and(|newest| newest.sha == before.sha) {
            return Ok(Planned::nothing(format!("{fingerprint} is kept already")));
        }
        // What is there already needs no copy: it would only stand between a later `restore` and the older one.
        let replaced = steps.iter().find_map(|other| match &other.action {
            Action::Place(place) if other.enabled && place.path == backup.path => Some(&place.secret),
            _ => None,
        });
        if replaced.and_then(|name| self.values.get(name)).is_some_and(|value| value.fingerprint() == fingerprint) {
            return Ok(Planned::nothing(format!("{fingerprint} is the new credential already; nothing to keep")));
        }
        let id = format!("{}.{}", self.run, step.id.index);
        let act = Act::Backup {
            path: resolved(&fact.path)?,
            sha: before.sha.clone(),
            fingerprint: fingerprint.hex().to_owned(),
            id: id.clone(),
        };
        self.plan.undo.push(UndoRecord::Backup { step: step.id.index, id });
        Ok(Planned::change(
            format!("keeps {fingerprint}"),
            vec![format!("backup of {} ({fingerprint})", fact.path)],
            act,
        ))
    }
}
