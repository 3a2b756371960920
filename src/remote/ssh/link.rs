//! A link to a host: logged in, ready to start programs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::error::{ConnectError, Phase, Problem};
use super::program::Program;
use super::session::Session;
use crate::remote::{Pipe, Stream, Way};

/// A logged-in connection to a host. Programs started on it keep it open; when the last of them and the link itself
/// are gone, its socket is closed.
pub struct Link {
    session: Arc<Session>,
}

impl Link {
    pub(super) fn new(session: Session) -> Self {
        Self { session: Arc::new(session) }
    }

    /// Starts a program: `command` is handed to the login shell of the user, as SSH does it.
    ///
    /// # Errors
    /// When the host does not open a session or does not run commands, or when the link is lost. Only in the last
    /// case, and when time runs out, the program may have been started all the same.
    pub async fn start(&self, command: &[u8]) -> Result<Box<dyn Pipe>, ConnectError> {
        let limit = self.session.limit;
        let started = timeout(limit, self.open(command)).await;
        let started = started.unwrap_or(Err(Problem::TimedOut { phase: Phase::Session, after: limit }));
        started.map_err(|problem| ConnectError { endpoint: self.session.endpoint.clone(), hop: None, problem })
    }

    async fn open(&self, command: &[u8]) -> Result<Box<dyn Pipe>, Problem> {
        let channel = match self.session.handle.channel_open_session().await {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(_)) => {
                return Err(Problem::ChannelRefused { said: self.session.refusal().await });
            }
            Err(e) => return Err(Problem::Lost { reason: self.session.reason(&e.to_string()) }),
        };
        Ok(Box::new(Program::start(Arc::clone(&self.session), channel, command).await?))
    }

    /// The way through the host, over channels of this connection.
    #[must_use]
    pub fn way(&self) -> Arc<dyn Way> {
        Arc::new(Through(Arc::clone(&self.session)))
    }

    /// Who is logged in where, with which key, over which hops: `ops@192.0.2.1:22 with ~/.ssh/id (SHA256:…)`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.session.describe()
    }

    /// Says goodbye and closes the connection, within a bound, also under programs that still run on it.
    pub async fn close(self) {
        self.session.goodbye().await;
    }
}

/// Streams through the host. They keep the connection's object, but not the connection, alive.
struct Through(Arc<Session>);

impl Way for Through {
    fn open<'a>(&'a self, server: &'a str, port: u16) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let opened = timeout(self.0.limit, self.0.stream_to(server, port)).await;
            match opened {
                Ok(Ok(stream)) => Ok(Box::new(stream) as Box<dyn Stream>),
                Ok(Err(Problem::HopForbids)) => {
                    Err("the host does not let connections pass through it (AllowTcpForwarding)".to_owned())
                }
                Ok(Err(Problem::HopCannotReach { said })) => {
                    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                    Err(format!("the host does not reach {server}:{port}{said}"))
                }
                Ok(Err(problem)) => Err(problem.to_string()),
                Err(_) => Err(format!("the host did not open a way to {server}:{port} in time")),
            }
        })
    }
}
