//! Where to look on a host: the places that a playbook names, or that the host's own runs were about.

use std::collections::BTreeMap;

use crate::model::{Action, EnvFormat, Reaches, RemotePath, RestartHow, RunId, Step};
use crate::remote::{Act, KnownPlace, KnownWhat, Survey};
use crate::step::{HostPlan, Work};

/// What outranks a token's file for Infisical's own programs. A bare `TOKEN`, which old ones read, is too common a name.
pub(in crate::cli) const OUTRANKING: [&str; 2] = ["INFISICAL_TOKEN", "INFISICAL_UNIVERSAL_AUTH_ACCESS_TOKEN"];

/// The places of one host.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Places {
    pub(in crate::cli) files: Vec<FilePlace>,
    pub(in crate::cli) envs: Vec<EnvPlace>,
    pub(in crate::cli) services: Vec<ServicePlace>,
    /// By resolved path: the latest run that left a file, and the digest that it left.
    pub(in crate::cli) left: BTreeMap<String, (String, String)>,
    /// A run whose places are learnt from the host although others were named.
    pub(in crate::cli) of_run: Option<String>,
}

/// A credential file, and what it should be as far as anybody said.
#[derive(Debug, Clone)]
pub(in crate::cli) struct FilePlace {
    pub(in crate::cli) path: RemotePath,
    pub(in crate::cli) mode: Option<u32>,
    pub(in crate::cli) uid: Option<u32>,
    pub(in crate::cli) gid: Option<u32>,
}

/// An environment file and its pointer.
#[derive(Debug, Clone)]
pub(in crate::cli) struct EnvPlace {
    pub(in crate::cli) path: RemotePath,
    pub(in crate::cli) format: EnvFormat,
    pub(in crate::cli) key: Option<String>,
    pub(in crate::cli) value: Option<String>,
    pub(in crate::cli) outranking: Vec<String>,
    /// The running process must have it, too.
    pub(in crate::cli) daemon: bool,
}

/// A runner.
#[derive(Debug, Clone)]
pub(in crate::cli) struct ServicePlace {
    pub(in crate::cli) how: RestartHow,
    pub(in crate::cli) key: Option<String>,
    /// It was stopped before the latest run, and so was left stopped.
    pub(in crate::cli) was_stopped: bool,
}

impl Places {
    /// Those of a playbook's steps for a host.
    pub(in crate::cli) fn of_steps(steps: &[Step]) -> Self {
        let mut places = Self::default();
        for step in steps.iter().filter(|step| step.enabled) {
            match &step.action {
                Action::Place(place) => {
                    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
                    let file = places.file(&place.path);
                    file.mode = Some(place.mode);
                    file.uid = number(&place.owner);
                    file.gid = number(&place.group);
                }
                Action::Backup(backup) => drop(places.file(&backup.path)),
                Action::Restore(restore) => drop(places.file(&restore.path)),
                Action::Point(point) => {
                    let env = places.env(&point.file, point.format);
                    env.key = Some(point.key.clone());
                    env.value = Some(point.value.clone());
                    env.daemon = point.reaches == Reaches::Daemon;
                    env.outrank(&point.remove);
                }
                Action::Restart(restart) => drop(places.service(&restart.how)),
                _ => {}
            }
        }
        places.part();
        places
    }

    /// Those of a run that was rebuilt from what its hosts recorded: the host remembers where they are.
    pub(in crate::cli) fn of_recorded(plan: &HostPlan, run: &RunId) -> Self {
        Self { of_run: Some(run.to_string()), ..Self::of_plan(plan) }
    }

    /// Those of a run's plan for a host: what it was about to change.
    pub(in crate::cli) fn of_plan(plan: &HostPlan) -> Self {
        let mut places = Self::default();
        for credential in &plan.credentials {
            if let Ok(path) = credential.path.parse() {
                places.file(&path);
            }
        }
        for step in &plan.steps {
            let Work::Act { act, .. } = &step.work else { continue };
            match act {
                Act::Place(target) => {
                    let file = places.file(&target.path);
                    (file.mode, file.uid, file.gid) = (Some(target.mode), Some(target.uid), Some(target.gid));
                }
                Act::Point { target, format, edit } => {
                    let env = places.env(&target.path, *format);
                    env.key = Some(edit.key.clone());
                    env.value = Some(edit.value.clone());
                    env.outrank(&edit.remove);
                }
                Act::Restart { how, pointer, was_up, .. } => {
                    let service = places.service(how);
                    service.was_stopped = !was_up;
                    if let Some(pointer) = pointer {
                        service.key = Some(pointer.key.clone());
                    }
                }
                _ => {}
            }
        }
        places.part();
        places
    }

    /// An environment file of which a backup is kept is no credential file.
    fn part(&mut self) {
        let envs = &self.envs;
        self.files.retain(|file| !envs.iter().any(|env| env.path == file.path));
    }

    /// What the host's own runs knew, the oldest first. One that was taken back left nothing. `only_digests`: the places were
    /// named otherwise, and only what was left there is learnt.
    pub(in crate::cli) fn learn(&mut self, known: &[KnownPlace], only_digests: bool) {
        for KnownPlace { run, ended, what } in known {
            let only_digests = only_digests && self.of_run.as_ref() != Some(run);
            match what {
                // As it was found, whether or not the run was taken back.
                KnownWhat::Service { how, was_up } => {
                    let there = self.services.iter().any(|service| same_runner(&service.how, how));
                    if there || !(only_digests || ended == "old") {
                        self.service(how).was_stopped = !was_up;
                    }
                }
                _ if ended == "old" => {}
                KnownWhat::File { path, post } => {
                    // Of one that holds the host, or whose end nobody knows, the file may be either.
                    if ended == "new" {
                        self.left.insert(path.as_str().to_owned(), (run.clone(), post.clone()));
                    } else {
                        self.left.remove(path.as_str());
                    }
                    if !only_digests {
                        self.file(path);
                    }
                }
                _ if only_digests => {}
                KnownWhat::Env { path, format, keys } => {
                    let env = self.env(path, *format);
                    if let Some((key, rest)) = keys.split_first() {
                        env.key = Some(key.clone());
                        env.outrank(rest);
                    }
                }
            }
        }
        if self.of_run.is_some() {
            self.part();
        }
    }

    /// What to ask a host about them.
    pub(in crate::cli) fn surveys(&self) -> Vec<Survey> {
        let files = self.files.iter().map(|file| Survey::File { path: file.path.clone() });
        let envs = self.envs.iter().map(|env| Survey::Env {
            path: env.path.clone(),
            format: env.format,
            key: env.key.clone(),
            outranking: env.outranking.clone(),
        });
        let services = self.services.iter().map(|service| Survey::Service {
            how: service.how.clone(),
            key: service.key.clone().or_else(|| self.pointer()),
            outranking: self.outranking(),
        });
        files.chain(envs).chain(services).collect()
    }

    /// The variable that a running process should have.
    fn pointer(&self) -> Option<String> {
        self.envs.iter().rev().find(|env| env.daemon).and_then(|env| env.key.clone())
    }

    fn outranking(&self) -> Vec<String> {
        let mut all: Vec<String> = OUTRANKING.map(str::to_owned).to_vec();
        for key in self.envs.iter().flat_map(|env| &env.outranking) {
            if !all.contains(key) {
                all.push(key.clone());
            }
        }
        all
    }

    fn file(&mut self, path: &RemotePath) -> &mut FilePlace {
        let at = self.files.iter().position(|file| file.path == *path).unwrap_or_else(|| {
            self.files.push(FilePlace { path: path.clone(), mode: None, uid: None, gid: None });
            self.files.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found or made just now")]
        &mut self.files[at]
    }

    fn env(&mut self, path: &RemotePath, format: EnvFormat) -> &mut EnvPlace {
        let at = self.envs.iter().position(|env| env.path == *path).unwrap_or_else(|| {
            let outranking = OUTRANKING.map(str::to_owned).to_vec();
            let (path, key, value) = (path.clone(), None, None);
            self.envs.push(EnvPlace { path, format, key, value, outranking, daemon: true });
            self.envs.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found or made just now")]
        &mut self.envs[at]
    }

    fn service(&mut self, how: &RestartHow) -> &mut ServicePlace {
        let at = self.services.iter().position(|service| same_runner(&service.how, how)).unwrap_or_else(|| {
            self.services.push(ServicePlace { how: how.clone(), key: None, was_stopped: false });
            self.services.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found or made just now")]
        &mut self.services[at]
    }
}

/// What a host remembers has no restart command: it is the same runner all the same.
fn same_runner(one: &RestartHow, other: &RestartHow) -> bool {
    let named = |how: &RestartHow| match how {
        RestartHow::Command { check, pid_file, .. } => {
            RestartHow::Command { command: String::new(), check: check.clone(), pid_file: pid_file.clone() }
        }
        other => other.clone(),
    };
    named(one) == named(other)
}

impl EnvPlace {
    fn outrank(&mut self, keys: &[String]) {
        for key in keys {
            if !self.outranking.contains(key) {
                self.outranking.push(key.clone());
            }
        }
    }
}
