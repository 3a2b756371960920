//! Settings of the operator's `ssh_config`, for hosts whose inventory asks for them.
//!
//! OpenSSH's own program reads its files: nothing here knows their grammar. What `ssh -G` says is compared with what it says
//! without any file, so that only what a file sets is taken. Invariants: the inventory wins over it; a setting is taken whole, or
//! told of, or refused where leaving it out could reach another machine or check less. Whoever starts the program comes as an [`AskSsh`].

mod answer;
mod expand;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use camino::Utf8PathBuf;

pub(super) use answer::Settings;

use super::check::Problem;
use super::diag::Place;
use super::keys::HostKeys;
use crate::model::{Connection, HostName};

/// Who can ask OpenSSH's client what it would do.
pub trait AskSsh {
    /// What the program prints for each question, or why it prints nothing.
    fn ask(&self, questions: &[SshQuestion]) -> Vec<Result<String, String>>;

    /// Keeps a variable that holds a secret from the program.
    fn withhold(&self, variable: &str);

    /// A variable of the operator's environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// This machine's name, whole.
    fn host_name(&self) -> String;

    /// The operator's user id.
    fn uid(&self) -> u32;
}

/// One question: which settings hold for a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshQuestion {
    /// The name as it would stand in `ssh NAME`.
    pub host: String,
    /// The only file to be read, instead of the operator's and the machine's.
    pub file: Option<Utf8PathBuf>,
    /// The user that the inventory names.
    pub user: Option<String>,
    /// The port that the inventory names.
    pub port: Option<u16>,
    /// The address that the inventory names.
    pub address: Option<String>,
}

impl SshQuestion {
    /// What is set where no file sets anything.
    pub(super) fn of_nobody() -> Self {
        Self { file: Some(Connection::NONE.into()), ..Self::of("keyswap") }
    }

    pub(super) fn of(host: &str) -> Self {
        Self { host: host.to_owned(), file: None, user: None, port: None, address: None }
    }

    /// The words after `ssh`.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let mut argv = vec!["-G".to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            argv.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        option("-F", self.file.as_ref().map(ToString::to_string));
        option("-l", self.user.clone());
        option("-p", self.port.map(|port| port.to_string()));
        // A `%` would be filled in.
        option("-o", self.address.as_ref().map(|address| format!("HostName={}", address.replace('%', "%%"))));
        argv.extend(["--".to_owned(), self.host.clone()]);
        argv
    }
}

/// Which hosts are asked for, and of whom.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// Who asks.
    pub ssh: &'a dyn AskSsh,
    /// The hosts that will be worked on: a pattern, and what narrows it. Only they, and the hops to them, are asked for.
    pub pattern: &'a str,
    /// See `pattern`.
    pub limit: Option<&'a str>,
    /// The user that the command line names for all hosts.
    pub user: Option<&'a str>,
}

/// What is known so far; each question is asked once.
pub(super) struct Asked<'a> {
    asking: &'a Asking<'a>,
    known: RefCell<HashMap<SshQuestion, Result<Rc<Settings>, String>>>,
    /// What holds without any file.
    usual: Result<answer::Answer, String>,
}

impl<'a> Asked<'a> {
    /// Asks all of this at once.
    pub(super) fn new(asking: &'a Asking<'a>, mut questions: Vec<SshQuestion>) -> Self {
        let mut seen = std::collections::HashSet::new();
        questions.retain(|question| seen.insert(question.clone()));
        questions.push(SshQuestion::of_nobody());
        let mut answers = asking.ssh.ask(&questions);
        let usual = answers.pop().unwrap_or_else(|| Err("it was not asked".to_owned()));
        let asked = Self { asking, known: RefCell::default(), usual: usual.map(|text| answer::Answer::parse(&text)) };
        for (question, answer) in questions.into_iter().zip(answers) {
            let judged = asked.judge(&question, answer);
            asked.known.borrow_mut().insert(question, judged);
        }
        asked
    }

    fn judge(&self, question: &SshQuestion, answer: Result<String, String>) -> Result<Rc<Settings>, String> {
        let usual = self.usual.as_ref().map_err(Clone::clone)?;
        Ok(Rc::new(Settings::of(question, &answer::Answer::parse(&answer?), usual, self.asking.ssh)))
    }

    /// The settings that a file sets for a host.
    pub(super) fn settings(&self, question: &SshQuestion) -> Result<Rc<Settings>, String> {
        if let Some(known) = self.known.borrow().get(question) {
            return known.clone();
        }
        let answer = self.asking.ssh.ask(std::slice::from_ref(question)).pop();
        let judged = self.judge(question, answer.unwrap_or_else(|| Err("it was not asked".to_owned())));
        self.known.borrow_mut().insert(question.clone(), judged.clone());
        judged
    }

    /// The user that the command line names, who outranks every file's.
    pub(super) fn user(&self) -> Option<&str> {
        self.asking.user
    }
}

/// The question for a host of the inventory, if its settings are wanted.
pub(super) fn question(
    name: &HostName,
    keys: &HostKeys,
    connection: &Connection,
    user: Option<&str>,
) -> Option<(SshQuestion, Place)> {
    let wanted = keys.ssh_config.as_ref()?;
    let file = wanted.value.clone()?;
    let user = user.map(str::to_owned).or_else(|| keys.has("user").then(|| connection.user.clone()));
    let question = SshQuestion {
        host: name.to_string(),
        file: file.path(),
        user,
        port: keys.has("port").then_some(connection.port),
        address: keys.has("address").then(|| connection.address.clone()),
    };
    Some((question, wanted.place.clone()))
}

/// Whose files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SshConfig {
    /// Those that `ssh` reads.
    Usual,
    /// One file.
    File(Utf8PathBuf),
}

impl SshConfig {
    pub(super) fn path(&self) -> Option<Utf8PathBuf> {
        match self {
            Self::Usual => None,
            Self::File(path) => Some(path.clone()),
        }
    }
}

impl Settings {
    /// Lays the settings under a connection: what `named` says stands in the inventory stays. Gives the keys that were taken.
    ///
    /// # Errors
    /// What stands in a file and cannot be honoured, and leaving it out would not be safe.
    pub(super) fn lay(
        &self,
        connection: &mut Connection,
        named: impl Fn(&str) -> bool,
    ) -> Result<Vec<&'static str>, Vec<Problem>> {
        let refused = self.refused.iter().filter(|refused| !refused.lifted_by.iter().any(|key| named(key)));
        let refused: Vec<Problem> = refused.map(|refused| refused.problem.clone()).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut taken = Vec::new();
        let mut take = |key: &'static str, there: bool| {
            let takes = there && !named(key);
            taken.extend(takes.then_some(key));
            takes
        };
        macro_rules! lay {
            ($key:literal, $from:expr, $to:expr) => {
                if let Some(value) = &$from
                    && take($key, true)
                {
                    $to = value.clone().into();
                }
            };
        }
        lay!("address", self.address, connection.address);

        lay!("port", self.port, connection.port);
        // It is told as ssh's only where it makes a difference.
        if self.user.as_ref() != Some(&connection.user) {
            lay!("user", self.user, connection.user);
        }
        lay!("identity_file", self.identity_files, connection.identity_files);
        lay!("identities_only", self.identities_only, connection.identities_only);
        lay!("identity_agent", self.identity_agent, connection.identity_agent);
        lay!("certificate_file", self.certificate_files, connection.certificate_files);
        lay!("known_hosts", self.known_hosts, connection.known_hosts);
        lay!("host_key_alias", self.host_key_alias, connection.host_key_alias);
        lay!("kex", self.kex, connection.algorithms.kex);
        lay!("ciphers", self.ciphers, connection.algorithms.ciphers);
        lay!("macs", self.macs, connection.algorithms.macs);
        lay!("host_key_algorithms", self.host_key_algorithms, connection.algorithms.host_key_algorithms);
        lay!("connect_timeout", self.connect_timeout_ms, connection.connect_timeout_ms);
        take("jump", self.jump.is_some());
        Ok(taken)
    }
}
