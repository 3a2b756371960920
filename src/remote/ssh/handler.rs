//! What a server may make the client do: nothing. It may prove who it is, and say goodbye.

use russh::ChannelOpenFailure::AdministrativelyProhibited;
use russh::client::{ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure};

use super::error::HostKeyProblem;
use super::known_hosts::{HostCertificate, HostKey};
use super::stream::Fate;
use super::trust::Trust;

/// The callbacks of one connection.
pub(super) struct Handler {
    trust: Trust,
    fate: Fate,
    /// The host's key is all that is wanted.
    look_only: bool,
}

/// Why the library gave up.
#[derive(Debug)]
pub(super) enum Stop {
    /// The host key is not trusted.
    HostKey(Box<HostKeyProblem>),
    /// The host key is trusted, and nothing more was wanted.
    Seen,
    /// Anything else.
    Ssh(russh::Error),
}

impl From<russh::Error> for Stop {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HostKey(problem) => problem.fmt(f),
            Self::Seen => f.write_str("the host key was seen"),
            Self::Ssh(error) => error.fmt(f),
        }
    }
}

impl Handler {
    pub(super) fn new(trust: Trust, fate: &Fate, look_only: bool) -> Self {
        Self { trust, fate: fate.clone(), look_only }
    }

    /// What follows from a verdict: whoever only looks ends here.
    fn follow(&self, verdict: Result<(), Box<HostKeyProblem>>) -> Result<bool, Stop> {
        match verdict {
            Ok(()) if self.look_only => Err(Stop::Seen),
            Ok(()) => Ok(true),
            Err(problem) => Err(Stop::HostKey(problem)),
        }
    }
}

/// Every kind of channel that a server could open is refused. The library's own answer is yes.
macro_rules! refuse {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(
            async fn $name(
                &mut self,
                _channel: Channel<Msg>,
                $($arg: $kind,)*
                reply: ChannelOpenHandle,
                _session: &mut Session,
            ) -> Result<(), Self::Error> {
                $(let _ = $arg;)*
                reply.reject(AdministrativelyProhibited).await;
                Ok(())
            }
        )*
    };
}

impl russh::client::Handler for Handler {
    type Error = Stop;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Stop> {
        if let Some(certificate) = presented.certificate() {
            let Some(offered) = HostCertificate::read(certificate) else { return Ok(false) };
            return self.follow(self.trust.verify_certificate(&offered));
        }
        let blob = presented.public_key().to_bytes().map_err(russh::Error::from)?;
        let Ok(offered) = HostKey::from_blob(blob) else { return Ok(false) };
        self.follow(self.trust.verify(&offered))
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Stop>) -> Result<(), Stop> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.fate.disconnected(&info.message);
                Ok(())
            }
            DisconnectReason::Error(stop) => {
                self.fate.ended(&stop.to_string());
                Err(stop)
            }
        }
    }

    async fn channel_open_failure(
        &mut self,
        _channel: ChannelId,
        _reason: ChannelOpenFailure,
        description: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), Stop> {
        self.fate.open_refused(description);
        Ok(())
    }

    async fn should_accept_unknown_server_channel(&mut self, _id: ChannelId, _kind: &str) -> bool {
        false
    }

    refuse! {
        server_channel_open_forwarded_tcpip(a: &str, b: u32, c: &str, d: u32);
        server_channel_open_forwarded_streamlocal(a: &str);
        server_channel_open_agent_forward();
        server_channel_open_unknown();
        server_channel_open_session();
        server_channel_open_direct_tcpip(a: &str, b: u32, c: &str, d: u32);
        server_channel_open_direct_streamlocal(a: &str);
        server_channel_open_x11(a: &str, b: u32);
    }
}
