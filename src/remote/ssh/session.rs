//! One logged-in connection, and the hop under it.

use std::sync::Arc;
use std::time::Duration;

use russh::client::Handle;
use russh::{ChannelStream, Disconnect};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::DropGuard;

use super::error::Problem;
use super::handler::Handler;
use super::stream::Fate;

/// How long an orderly goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// A logged-in connection. Dropping it closes its socket, and then those of the hops under it.
pub(super) struct Session {
    pub(super) handle: Handle<Handler>,
    pub(super) fate: Fate,
    pub(super) _guard: DropGuard,
    pub(super) via: Option<Arc<Session>>,
    /// `user@address:port`.
    pub(super) endpoint: String,
    /// The key that the host accepted.
    pub(super) key: String,
    /// The limit for opening a channel.
    pub(super) limit: Duration,
}

impl Session {
    /// Who is logged in where, with which key, and over which hops.
    pub(super) fn describe(&self) -> String {
        match &self.via {
            None => format!("{} with {}", self.endpoint, self.key),
            Some(hop) => format!("{} with {}, by way of {}", self.endpoint, self.key, hop.endpoint),
        }
    }

    /// The endpoints from the first hop to here.
    pub(super) fn route(&self) -> String {
        match &self.via {
            None => self.endpoint.clone(),
            Some(hop) => format!("{} > {}", hop.route(), self.endpoint),
        }
    }

    /// A stream through this host to the next one.
    pub(super) async fn stream_to(
        &self,
        address: &str,
        port: u16,
    ) -> Result<ChannelStream<russh::client::Msg>, Problem> {
        match self.handle.channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0).await {
            Ok(channel) => Ok(channel.into_stream()),
            Err(russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::AdministrativelyProhibited)) => {
                Err(Problem::HopForbids)
            }
            Err(russh::Error::ChannelOpenFailure(_)) => Err(Problem::HopCannotReach { said: self.refusal().await }),
            Err(e) => Err(Problem::Lost { reason: self.reason(&e.to_string()) }),
        }
    }

    /// The server's words about the channel that it has just refused. They come right after the refusal.
    pub(super) async fn refusal(&self) -> Option<String> {
        for _ in 0..20 {
            if let Some(text) = self.fate.refusal() {
                return Some(text);
            }
            sleep(Duration::from_millis(1)).await;
        }
        None
    }

    /// Why the connection ended, hops included.
    pub(super) fn reason(&self, otherwise: &str) -> String {
        let hop =
            self.via.as_ref().and_then(|hop| hop.fate.reason().map(|why| format!("the hop {}: {why}", hop.endpoint)));
        hop.or_else(|| self.fate.reason()).unwrap_or_else(|| otherwise.to_owned())
    }

    /// Says goodbye and waits, within a bound, until the connection has ended; then the same for the hops under it that
    /// serve nobody else. A hop whose last users leave at the same moment is closed without a word when they are gone.
    pub(super) async fn goodbye(&self) {
        let mut session = Some(self);
        while let Some(current) = session {
            let _ = timeout(GOODBYE, current.handle.disconnect(Disconnect::ByApplication, "done", "")).await;
            let deadline = Instant::now() + GOODBYE;
            while !current.handle.is_closed() && Instant::now() < deadline {
                sleep(Duration::from_millis(1)).await;
            }
            current.fate.kill("it was closed");
            session = current.via.as_ref().filter(|hop| Arc::strong_count(hop) == 1).map(|hop| &**hop);
        }
    }
}
