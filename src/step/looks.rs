//! What the steps of one host must look at, each thing once.

use crate::model::{Action, Drain, RemotePath, RestartHow, Step};
use crate::remote::{EnvEdit, Pointer, Probe};

/// The probes for the steps of a host.
#[derive(Debug, Clone, Default)]
pub struct Looks {
    probes: Vec<Probe>,
    /// For each step, its probe and (for `point`) its edit in it.
    steps: Vec<(u32, usize, usize)>,
}

impl Looks {
    /// Collects the probes of all enabled steps.
    #[must_use]
    pub fn for_steps(steps: &[Step]) -> Self {
        let mut looks = Self::default();
        for (at, step) in steps.iter().enumerate().filter(|(_, step)| step.enabled) {
            match &step.action {
                Action::Place(place) => looks.file(&place.path, place.owner.as_deref(), place.group.as_deref()),
                Action::Backup(backup) => {
                    looks.file(&backup.path, None, None);
                    looks.backups(&backup.path);
                }
                Action::Restore(restore) => {
                    looks.file(&restore.path, None, None);
                    looks.backups(&restore.path);
                }
                Action::Point(point) => {
                    let edit =
                        EnvEdit { key: point.key.clone(), value: point.value.clone(), remove: point.remove.clone() };
                    let known = looks
                        .probes
                        .iter()
                        .position(|probe| matches!(probe, Probe::Env { path, .. } if *path == point.file));
                    let probe = known.unwrap_or_else(|| {
                        looks.probes.push(Probe::Env {
                            path: point.file.clone(),
                            format: point.format,
                            edits: Vec::new(),
                        });
                        looks.probes.len() - 1
                    });
                    if let Some(Probe::Env { edits, .. }) = looks.probes.get_mut(probe) {
                        edits.push(edit);
                        let nth = edits.len() - 1;
                        looks.steps.push((step.id.index, probe, nth));
                    }
                }
                Action::Restart(restart) => {
                    let pointer = super::restart::pointer_of(steps.get(..at).unwrap_or_default())
                        .map(|point| Pointer { key: point.key.clone(), value: point.value.clone(), content: None });
                    looks.probes.push(Probe::Service { how: restart.how.clone(), pointer });
                    looks.steps.push((step.id.index, looks.probes.len() - 1, 0));
                    if restart.drain == Drain::Wait {
                        looks.probes.push(Probe::Busy { how: restart.how.clone() });
                    }
                }
                _ => {}
            }
        }
        looks.probes.push(Probe::Room);
        looks
    }

    /// The probes, in the order in which their facts are expected.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    pub(super) fn file_at(&self, wanted: &RemotePath) -> Option<usize> {
        self.probes.iter().position(|probe| matches!(probe, Probe::File { path, .. } if path == wanted))
    }

    pub(super) fn backups_at(&self, wanted: &RemotePath) -> Option<usize> {
        self.probes.iter().position(|probe| matches!(probe, Probe::Backups { path } if path == wanted))
    }

    /// The look for jobs on a runner.
    pub(super) fn busy_of(&self, runner: &RestartHow) -> Option<usize> {
        self.probes.iter().position(|probe| matches!(probe, Probe::Busy { how } if how == runner))
    }

    /// The probe of a step, and the edit's place in it.
    pub(super) fn of_step(&self, index: u32) -> Option<(usize, usize)> {
        self.steps.iter().find(|(step, ..)| *step == index).map(|(_, probe, nth)| (*probe, *nth))
    }

    fn file(&mut self, wanted: &RemotePath, wanted_owner: Option<&str>, wanted_group: Option<&str>) {
        let known = self.file_at(wanted).and_then(|at| self.probes.get_mut(at));
        if let Some(Probe::File { owner, group, .. }) = known {
            if wanted_owner.is_some() {
                *owner = wanted_owner.map(str::to_owned);
            }
            if wanted_group.is_some() {
                *group = wanted_group.map(str::to_owned);
            }
            return;
        }
        self.probes.push(Probe::File {
            path: wanted.clone(),
            owner: wanted_owner.map(str::to_owned),
            group: wanted_group.map(str::to_owned),
        });
    }

    fn backups(&mut self, wanted: &RemotePath) {
        if self.backups_at(wanted).is_none() {
            self.probes.push(Probe::Backups { path: wanted.clone() });
        }
    }
}
