//! [`Connect`] over SSH: reach, check the key, log in, escalate, start the shell, ask what the host is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use super::shell::{Boot, RECORDS, Refusal, ShellError, ShellHost, refusal};
use super::ssh::{Class, ConnectError, Dialer, Link};
use super::{
    Answer, CallError, Connect, Gate, Host, NoPasswords, Op, Opens, Passwords, Stage, Trial, Unreachable,
    UnreachableKind, Way,
};
use crate::model;

/// The limit for escalation and for the library's way over.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Connections over SSH for one run.
pub struct SshConnect {
    dialer: Arc<Dialer>,
    inventory: String,
    passwords: Arc<dyn Passwords>,
    become_password: Option<SecretString>,
}

impl SshConnect {
    /// Connects with `dialer`; `inventory` is what the operator gave as `-i`, for hints.
    #[must_use]
    pub fn new(dialer: Arc<Dialer>, inventory: String) -> Self {
        Self { dialer, inventory, passwords: Arc::new(NoPasswords), become_password: None }
    }

    /// Reads the passwords for escalation that the inventory names from `passwords`; `asked` is the one that the operator
    /// typed for all hosts, and outranks them.
    #[must_use]
    pub fn with_passwords(mut self, passwords: Arc<dyn Passwords>, asked: Option<SecretString>) -> Self {
        self.passwords = passwords;
        self.become_password = asked;
        self
    }

    async fn open(&self, host: &model::Host, gate: &dyn Gate) -> Result<Box<dyn Host>, Unreachable> {
        let connection = &host.connection;
        let kept_back = |message| Unreachable { kind: UnreachableKind::Login, message, hint: None };
        gate.enter(Stage::HostKey).await.map_err(kept_back)?;
        // Before the host is dialled: somebody may have to be asked, or a program to be run.
        let boot = match self.become_password(host).await? {
            Some((password, trial)) => {
                Boot::with_password(connection.become_method, password, trial, host.name.as_str())
            }
            None => Boot::new(connection.become_method),
        };
        let link = self.dialer.connect_by(connection, gate).await.map_err(|error| self.refused(host, &error))?;
        gate.enter(Stage::Escalation).await.map_err(kept_back)?;
        let pipe = link.start(boot.command().as_bytes()).await.map_err(|error| self.refused(host, &error))?;
        let state_dir = connection.state_dir.as_ref().map(model::RemotePath::as_str);
        match ShellHost::start(pipe, Some(boot), state_dir, START_LIMIT).await {
            Ok(shell) => {
                gate.through();
                Ok(Box::new(Linked { shell: Box::new(shell), link }))
            }
            Err(error) => Err(not_started(&error, connection)),
        }
    }

    async fn become_password(&self, host: &model::Host) -> Result<Option<(SecretString, Arc<Trial>)>, Unreachable> {
        let connection = &host.connection;
        let trial = |source| self.dialer.trials().of(Opens::Root, &connection.user, source);
        match (&self.become_password, &connection.become_password) {
            _ if connection.become_method != model::Become::Sudo => Ok(None),
            (Some(asked), _) => Ok(Some((asked.clone(), trial(None)))),
            (None, None) => Ok(None),
            (None, Some(source)) => {
                let read = self.passwords.read("sudo's password", source).await;
                let unreachable = |reason| Unreachable {
                    kind: UnreachableKind::Escalation,
                    message: format!("sudo's password cannot be had: {reason}"),
                    hint: Some("check the source that `become_password` names, or use -K".to_owned()),
                };
                read.map(|password| Some((password, trial(Some(source))))).map_err(unreachable)
            }
        }
    }

    fn refused(&self, host: &model::Host, error: &ConnectError) -> Unreachable {
        let kind = match error.class() {
            Class::Unreachable => UnreachableKind::Network,
            Class::HostKey => UnreachableKind::HostKey,
            Class::Login | Class::Local => UnreachableKind::Login,
            Class::Refused => UnreachableKind::Shell,
        };
        let hint = error.hint(&self.inventory, host.name.as_str());
        Unreachable { kind, message: model::chain(error), hint: Some(hint).filter(|hint| !hint.is_empty()) }
    }
}

fn not_started(error: &ShellError, connection: &model::Connection) -> Unreachable {
    let user = &connection.user;
    let (kind, hint) = match error {
        ShellError::NotStarted { status: Some(RECORDS), .. } => (
            UnreachableKind::Escalation,
            Some(format!(
                "sudo would write the secret into its log; `Defaults:{user} !log_input` in sudoers turns that off"
            )),
        ),
        ShellError::WrongPassword => (
            UnreachableKind::Escalation,
            Some("it was given once, and no second time: accounts are locked after a few".to_owned()),
        ),
        ShellError::KeptBack(_) => (
            UnreachableKind::Escalation,
            Some("when it is right there, work on these hosts alone (--limit)".to_owned()),
        ),
        ShellError::Question(_) => (
            UnreachableKind::Escalation,
            Some("keyswap answers the question for the password and no other, such as one for a code".to_owned()),
        ),
        ShellError::NotStarted { stderr, .. } => {
            let stderr = stderr.as_deref().unwrap_or_default();
            match connection.become_method {
                model::Become::None => (UnreachableKind::Shell, tools(stderr)),
                become_method => (UnreachableKind::Escalation, escalation(stderr, become_method, user)),
            }
        }
        _ => (UnreachableKind::Shell, None),
    };
    Unreachable { kind, message: error.to_string(), hint }
}

/// What to do about tools that the shell cannot start without.
fn tools(stderr: &str) -> Option<String> {
    stderr
        .contains("dd:")
        .then(|| "keyswap needs `dd` with iflag=fullblock: coreutils, or busybox 1.21 or later".to_owned())
}

/// What to do about a refused escalation.
fn escalation(stderr: &str, become_method: model::Become, user: &str) -> Option<String> {
    let sudo = become_method == model::Become::Sudo;
    let rule = if sudo {
        format!("`{user} ALL=(root) NOPASSWD: /bin/sh` in a file under /etc/sudoers.d")
    } else {
        format!("`permit nopass {user} as root cmd sh` in /etc/doas.conf")
    };
    match refusal(stderr) {
        Refusal::Password if sudo => {
            Some(format!("-K asks for the password, `become_password` names its source, or allow it without: {rule}"))
        }
        Refusal::Password => Some(format!("doas asks for passwords on a terminal only; allow it without: {rule}")),
        Refusal::NotAllowed => {
            Some(format!("the least that keyswap needs is {rule}; who may run a shell as root is root"))
        }
        Refusal::Terminal if sudo => {
            Some(format!("keyswap has no terminal there; `Defaults:{user} !requiretty` in sudoers allows that"))
        }
        Refusal::Terminal => Some(format!("keyswap has no terminal there; allow it without a password: {rule}")),
        Refusal::Missing if sudo => Some("install sudo there, or set `become`".to_owned()),
        Refusal::Missing => Some("install doas there, or set `become`".to_owned()),
        Refusal::Expired => Some("the account there must be renewed first".to_owned()),
        Refusal::Other => tools(stderr).or_else(|| Some(format!("the least that keyswap needs is {rule}"))),
    }
}

impl Connect for SshConnect {
    fn connect<'a>(
        &'a self,
        host: &'a model::Host,
        gate: &'a dyn Gate,
    ) -> BoxFuture<'a, Result<Box<dyn Host>, Unreachable>> {
        Box::pin(self.open(host, gate))
    }
}

/// A shell and the link that carries it.
struct Linked {
    shell: Box<ShellHost>,
    link: Link,
}

impl Host for Linked {
    fn call<'a>(&'a mut self, op: &'a Op, data: Option<&'a [u8]>) -> BoxFuture<'a, Result<Answer, CallError>> {
        self.shell.call(op, data)
    }

    fn way(&self) -> Option<Arc<dyn Way>> {
        Some(self.link.way())
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.shell.close().await;
            self.link.close().await;
        })
    }
}
