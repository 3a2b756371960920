//! [`Connect`] over SSH: reach, check the key, log in, escalate, start the shell, ask what the host is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::shell::{ShellError, ShellHost, boot_command};
use super::ssh::{Class, ConnectError, Dialer, Link};
use super::{Answer, CallError, Connect, Host, Op, Unreachable, UnreachableKind, Way};
use crate::model;

/// The limit for escalation and for the library's way over.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Connections over SSH for one run.
pub struct SshConnect {
    dialer: Arc<Dialer>,
    inventory: String,
}

impl SshConnect {
    /// Connects with `dialer`; `inventory` is what the operator gave as `-i`, for hints.
    #[must_use]
    pub fn new(dialer: Arc<Dialer>, inventory: String) -> Self {
        Self { dialer, inventory }
    }

    async fn open(&self, host: &model::Host) -> Result<Box<dyn Host>, Unreachable> {
        let connection = &host.connection;
        let link = self.dialer.connect(connection).await.map_err(|error| self.refused(host, &error))?;
        let command = boot_command(connection.become_method);
        let pipe = link.start(command.as_bytes()).await.map_err(|error| self.refused(host, &error))?;
        let state_dir = connection.state_dir.as_ref().map(model::RemotePath::as_str);
        match ShellHost::start(pipe, state_dir, START_LIMIT).await {
            Ok(shell) => Ok(Box::new(Linked { shell: Box::new(shell), link })),
            Err(error) => Err(not_started(&error, connection.become_method)),
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

fn not_started(error: &ShellError, become_method: model::Become) -> Unreachable {
    let escalation = become_method != model::Become::None;
    let (kind, hint) = match error {
        ShellError::NotStarted { status: Some(78), .. } => (
            UnreachableKind::Escalation,
            Some("sudo would write the secret into its log; turn log_input off for this user".to_owned()),
        ),
        ShellError::NotStarted { .. } if escalation => (
            UnreachableKind::Escalation,
            Some("the login user must be allowed to run sh as root without a password (sudo -n)".to_owned()),
        ),
        _ => (UnreachableKind::Shell, None),
    };
    Unreachable { kind, message: error.to_string(), hint }
}

impl Connect for SshConnect {
    fn connect<'a>(&'a self, host: &'a model::Host) -> BoxFuture<'a, Result<Box<dyn Host>, Unreachable>> {
        Box::pin(self.open(host))
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
