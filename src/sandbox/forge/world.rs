//! What the stand-in forge knows: accounts, repositories, runs, packages.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::hook::{DispatchedRun, Ending, Outcome};

/// Which server is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Forgejo, by its first number: 11 to 16.
    Forgejo(u32),
    /// Gitea 1, by its second number: 24 to 26.
    Gitea(u32),
}

impl Version {
    /// Whether an endpoint is there, that came with these versions (`None`: never).
    #[must_use]
    pub(super) fn has(self, forgejo: Option<u32>, gitea: Option<u32>) -> bool {
        match self {
            Self::Forgejo(version) => forgejo.is_some_and(|since| version >= since),
            Self::Gitea(version) => gitea.is_some_and(|since| version >= since),
        }
    }

    /// As `/api/v1/version` says it.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Forgejo(version) => format!("{version}.0.1+gitea-1.22.0"),
            Self::Gitea(version) => format!("1.{version}.2"),
        }
    }

    /// Whether it is Forgejo.
    #[must_use]
    pub fn is_forgejo(self) -> bool {
        matches!(self, Self::Forgejo(_))
    }
}

/// Somebody with a token.
#[derive(Debug, Clone)]
pub struct Account {
    /// The login.
    pub login: String,
    /// The token.
    pub token: String,
    /// The token has `write:repository`, and the user may write.
    pub write: bool,
    /// The token has `read:package`.
    pub packages: bool,
    /// The user owns the repositories.
    pub owner: bool,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repo {
    /// `owner/name`.
    pub full_name: String,
    /// Only accounts may see it.
    pub private: bool,
    /// It is archived.
    pub archived: bool,
    /// Actions are on.
    pub actions: bool,
    /// Branches and their commits.
    pub branches: BTreeMap<String, String>,
    /// Tags and their commits.
    pub tags: BTreeMap<String, String>,
    /// Files, the same at every commit.
    pub files: Vec<String>,
    /// Inputs that the workflows declare.
    pub inputs: Vec<String>,
    /// Those of them that a dispatch must give.
    pub required: Vec<String>,
    /// The workflows have the trigger `workflow_dispatch`.
    pub dispatchable: bool,
    /// The jobs of the workflows.
    pub jobs: Vec<String>,
    /// The labels that they ask for.
    pub labels: Vec<String>,
    /// Names of stored secrets.
    pub secrets: Vec<String>,
    /// Names of stored variables. Each holds `value of ` and its name.
    pub variables: Vec<String>,
}

impl Repo {
    /// A private repository with a branch `main` and a workflow `docker-publish.yml` with one job, `build`.
    #[must_use]
    pub fn new(full_name: &str) -> Self {
        Self {
            full_name: full_name.to_owned(),
            private: true,
            archived: false,
            actions: true,
            branches: BTreeMap::from([("main".to_owned(), "a1".repeat(20))]),
            tags: BTreeMap::new(),
            files: vec!["README.md".to_owned(), ".forgejo/workflows/docker-publish.yml".to_owned()],
            inputs: Vec::new(),
            required: Vec::new(),
            dispatchable: true,
            jobs: vec!["build".to_owned()],
            labels: vec!["docker".to_owned()],
            secrets: Vec::new(),
            variables: Vec::new(),
        }
    }
}

/// A run on the stand-in.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was dispatched.
    pub dispatched: DispatchedRun,
    /// `workflow_dispatch`, `push`, ….
    pub event: String,
    /// Who started it.
    pub actor: String,
    /// Forgejo's word.
    pub status: &'static str,
    /// It needs an approval.
    pub need_approval: bool,
    /// A runner has taken it: there is a task.
    pub taken: bool,
    /// How its tasks stand, in Forgejo's word.
    pub task_status: &'static str,
    /// The jobs.
    pub jobs: Vec<String>,
    /// Those of them that no runner takes.
    pub left: Vec<String>,
    /// The labels that they ask for.
    pub labels: Vec<String>,
    /// The runner.
    pub runner: String,
    /// The log.
    pub log: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When a runner took it.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub stopped: Option<Timestamp>,
}

impl Run {
    pub(super) fn is_final(&self) -> bool {
        matches!(self.status, "success" | "failure" | "cancelled" | "skipped")
    }

    pub(super) fn end(&mut self, status: &'static str) {
        if !self.is_final() {
            self.status = status;
            self.task_status = status;
            self.stopped = Some(now());
        }
    }
}

/// A version of a container package.
#[derive(Debug, Clone)]
pub struct Package {
    /// The row's id: a new one with every push.
    pub id: u64,
    /// The owner.
    pub owner: String,
    /// The account that pushed it.
    pub creator: String,
    /// The name below the owner.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// The manifest's digest, 64 hex digits.
    pub digest: String,
    /// When the row was made.
    pub created: Timestamp,
}

/// Everything that the stand-in knows.
#[derive(Debug)]
pub struct World {
    /// Which server is played.
    pub version: Version,
    /// Who may ask.
    pub accounts: Vec<Account>,
    /// The repositories.
    pub repos: Vec<Repo>,
    /// The runs, oldest first.
    pub runs: Vec<Run>,
    /// The packages.
    pub packages: Vec<Package>,
    /// The runners: each one's name and how it stands, in Forgejo's words (`offline`, `idle`, `active`).
    pub runners: Vec<(String, String)>,
    /// Runners of the organisation (`orgs`), the user (`user`) or the forge (`admin`), which a repository's list does not show.
    pub runners_above: Vec<(String, String, String)>,
    /// Whether containers can be pulled from the host: the registry has an endpoint of its own.
    pub registry: bool,
    /// What the registry serves for every tag instead of what was pushed: another digest, or nothing (empty).
    pub registry_lies: Option<String>,
    /// Names of the organisation's secrets and variables; `None`: the owner is a user.
    pub organisation: Option<(Vec<String>, Vec<String>)>,
    /// Names of the user's variables.
    pub user_variables: Vec<String>,
    /// The children of a manifest that is an index, by its digest.
    pub indexes: BTreeMap<String, Vec<String>>,
    /// Digests that the registry lists and does not serve.
    pub missing: Vec<String>,
    /// The longest page of a list, whatever is asked for (`MAX_RESPONSE_ITEMS`).
    pub longest_page: usize,
    next: u64,
}

impl World {
    pub(super) fn new(version: Version, accounts: Vec<Account>) -> Self {
        // Ids of runs start far from their numbers, so that taking one for the other does not go unseen.
        Self {
            version,
            accounts,
            repos: Vec::new(),
            runs: Vec::new(),
            packages: Vec::new(),
            runners: Vec::new(),
            runners_above: Vec::new(),
            user_variables: Vec::new(),
            missing: Vec::new(),
            longest_page: 50,
            indexes: BTreeMap::new(),
            registry: true,
            registry_lies: None,
            organisation: None,
            next: 1000,
        }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Adds a run that waits, and gives its id.
    pub fn add_run(&mut self, repo: &Repo, workflow: &str, git_ref: &str, event: &str, actor: &str) -> u64 {
        let commit = repo.commit(git_ref).unwrap_or_default();
        let numbers = self.runs.iter().filter(|run| run.dispatched.repo == repo.full_name);
        let number = numbers.map(|run| run.dispatched.number).max().unwrap_or(40) + 1;
        let (id, task) = (self.id(), self.id());
        let dispatched = DispatchedRun {
            id,
            number,
            task,
            repo: repo.full_name.clone(),
            workflow: workflow.to_owned(),
            git_ref: git_ref.to_owned(),
            commit,
            inputs: BTreeMap::new(),
        };
        self.runs.push(Run {
            dispatched,
            event: event.to_owned(),
            actor: actor.to_owned(),
            status: "waiting",
            need_approval: false,
            taken: false,
            task_status: "waiting",
            jobs: repo.jobs.clone(),
            left: Vec::new(),
            labels: repo.labels.clone(),
            runner: String::new(),
            log: Vec::new(),
            created: now(),
            started: None,
            stopped: None,
        });
        id
    }

    /// A run by its id.
    pub fn run_mut(&mut self, id: u64) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.dispatched.id == id)
    }

    /// A runner takes a run, or whatever else its outcome begins with. `false`: nothing more will happen by itself.
    pub(super) fn take(&mut self, id: u64, outcome: &Outcome) -> bool {
        let Some(run) = self.run_mut(id).filter(|run| !run.is_final()) else { return false };
        match outcome.ending {
            Ending::StuckWaiting => return false,
            Ending::Blocked => {
                run.status = "blocked";
                run.need_approval = true;
                return false;
            }
            Ending::Skipped => {
                run.end("skipped");
                return false;
            }
            Ending::Success | Ending::Failure | Ending::NeverEnds | Ending::Cancelled => {}
        }
        run.status = "running";
        run.task_status = "running";
        run.left.clone_from(&outcome.leaving);
        run.taken = true;
        run.started = Some(now());
        run.runner.clone_from(&outcome.runner);
        let (task, runner, event) = (run.dispatched.task, &outcome.runner, &run.event);
        let job = run.jobs.first().map_or("build", String::as_str);
        let first =
            format!("{runner}(version:v12.0.0) received task {task} of job {job}, be triggered by event: {event}");
        run.log.push(first);
        run.log.extend(outcome.log.iter().cloned());
        outcome.ending != Ending::NeverEnds
    }

    /// A run that was taken comes to its end.
    pub(super) fn finish(&mut self, id: u64, outcome: &Outcome) {
        let Some(run) = self.run_mut(id).filter(|run| !run.is_final()) else { return };
        let ended = match outcome.ending {
            Ending::Success => "success",
            Ending::Cancelled => "cancelled",
            _ => "failure",
        };
        if run.left.is_empty() {
            run.end(ended);
        } else {
            (run.status, run.task_status) = ("waiting", ended);
        }
        if let Some((image, digest)) = &outcome.push {
            self.push_as(outcome.pushed_by.as_deref(), image, digest);
        }
    }

    /// Pushes an image (`owner/name:tag`): a tag that is there is deleted and made anew, even for the same digest.
    pub fn push(&mut self, image: &str, digest: &str) {
        self.push_as(None, image, digest);
    }

    fn push_as(&mut self, login: Option<&str>, image: &str, digest: &str) {
        let (path, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let (owner, name) = path.split_once('/').unwrap_or(("", path));
        let id = self.id();
        let (owner, name, tag) = (owner.to_lowercase(), name.to_lowercase(), tag.to_lowercase());
        self.packages.retain(|package| !(package.owner == owner && package.name == name && package.tag == tag));
        let creator = login.unwrap_or(&owner).to_owned();
        self.packages.push(Package { id, owner, creator, name, tag, digest: digest.to_owned(), created: now() });
    }
}

impl Repo {
    /// The commit that a name stands for.
    pub(super) fn commit(&self, name: &str) -> Option<String> {
        if let Some(branch) = name.strip_prefix("refs/heads/") {
            return self.branches.get(branch).cloned();
        }
        if let Some(tag) = name.strip_prefix("refs/tags/") {
            return self.tags.get(tag).cloned();
        }
        let commits = self.branches.values().chain(self.tags.values());
        let whole = commits.into_iter().find(|commit| *commit == name);
        self.branches.get(name).or_else(|| self.tags.get(name)).or(whole).cloned()
    }

    /// What lies in a directory: names, and whether each is a directory. `None`: it is not there.
    pub(super) fn list(&self, dir: &str) -> Option<Vec<(String, bool)>> {
        let prefix = format!("{}/", dir.trim_end_matches('/'));
        let mut entries: Vec<(String, bool)> = Vec::new();
        for rest in self.files.iter().filter_map(|file| file.strip_prefix(&prefix)) {
            let (name, deeper) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
            if !entries.iter().any(|(there, _)| there == name) {
                entries.push((name.to_owned(), deeper));
            }
        }
        (!entries.is_empty()).then_some(entries)
    }

    /// Whether the server finds a workflow of that file name: only the first directory that exists counts.
    pub(super) fn has_workflow(&self, version: Version, file: &str) -> bool {
        let all = [".forgejo/workflows", ".gitea/workflows", ".github/workflows"];
        let dirs = if version.is_forgejo() { &all[..] } else { all.get(1..).unwrap_or_default() };
        let first = dirs.iter().find_map(|dir| self.list(dir));
        first.is_some_and(|entries| entries.iter().any(|(name, deeper)| name == file && !deeper))
    }
}

/// The time as servers keep it: to the second.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}
