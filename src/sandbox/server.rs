//! One connection to a sandbox host, as an SSH server sees it.
//!
//! Only the host's one login key gets in, and only what keyswap uses is there: commands, a shell without a terminal, and
//! connections onward to loopback (a host as a jump host). Everything else is refused with an answer.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::BytesMut;
use russh::keys::ssh_key::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Error, Pty, Sig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::exec::{Inlet, Place, Running, TooMuchInput, inlet};

const CHUNK: usize = 32 << 10;

/// Answers one client.
pub(super) struct Connection {
    place: Arc<Place>,
    login: Arc<PublicKey>,
    channels: HashMap<ChannelId, Slot>,
}

/// What a channel is used for.
enum Slot {
    /// Opened, nothing asked for yet.
    Open(ChannelWriteHalf<Msg>),
    /// A command.
    Command(Running),
    /// A connection onward.
    Onward(Onward),
}

impl Connection {
    pub(super) fn new(place: Arc<Place>, login: Arc<PublicKey>) -> Self {
        Self { place, login, channels: HashMap::new() }
    }

    fn admits(&self, user: &str, key: &PublicKey) -> Auth {
        if user == self.place.user && key.key_data() == self.login.key_data() { Auth::Accept } else { Auth::reject() }
    }

    fn add(&mut self, id: ChannelId, slot: Slot) {
        // When the client closes a channel that we closed first, russh does not say so.
        self.channels.retain(|_, slot| match slot {
            Slot::Open(_) => true,
            Slot::Command(running) => !running.finished(),
            Slot::Onward(onward) => !onward.done.is_cancelled(),
        });
        self.channels.insert(id, slot);
    }

    fn run(&mut self, id: ChannelId, command: Option<&OsStr>, session: &mut Session) -> Result<(), Error> {
        let channel = match self.channels.remove(&id) {
            Some(Slot::Open(channel)) => channel,
            // One channel, one command; the one that runs goes on.
            Some(busy) => {
                self.channels.insert(id, busy);
                return session.channel_failure(id);
            }
            None => return session.channel_failure(id),
        };
        match Running::start(&self.place, command, channel, session.handle()) {
            Ok(running) => {
                self.channels.insert(id, Slot::Command(running));
                session.channel_success(id)
            }
            Err(error) => {
                tracing::warn!(%error, "a sandbox host cannot start a command");
                session.channel_failure(id)
            }
        }
    }
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        Ok(self.admits(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        Ok(self.admits(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        // The reading half is dropped: input comes through `data`, which never makes the session wait.
        let (_, channel) = channel.split();
        self.add(channel.id(), Slot::Open(channel));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let address = if host == "localhost" { Ok(IpAddr::from([127, 0, 0, 1])) } else { host.parse::<IpAddr>() };
        let (Ok(address), Ok(port)) = (address, u16::try_from(port)) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        if !address.is_loopback() || !self.place.forwards {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                let (_, channel) = channel.split();
                let id = channel.id();
                self.add(id, Slot::Onward(Onward::start(stream, channel)));
                reply.accept().await;
            }
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Error> {
        self.run(id, Some(OsStr::from_bytes(command)), session)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.run(id, None, session)
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Error> {
        let taken = match self.channels.get(&id) {
            Some(Slot::Command(running)) => running.input(data),
            Some(Slot::Onward(Onward { input: Some(input), .. })) => input.send(data),
            _ => Ok(()),
        };
        taken.map_err(|TooMuchInput| {
            tracing::warn!("a client sent too much to a command that does not read it; its connection ends");
            Error::Disconnect
        })
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Error> {
        match self.channels.get_mut(&id) {
            Some(Slot::Command(running)) => running.end_input(),
            Some(Slot::Onward(onward)) => onward.input = None,
            _ => {}
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), Error> {
        if let Some(Slot::Command(running)) = self.channels.get(&id) {
            running.signal(&signal);
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn env_request(&mut self, id: ChannelId, _: &str, _: &str, session: &mut Session) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn subsystem_request(&mut self, id: ChannelId, _: &str, session: &mut Session) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }
}

/// A TCP connection that a client opened through the host.
struct Onward {
    input: Option<Inlet>,
    done: CancellationToken,
}

impl Onward {
    fn start(stream: TcpStream, channel: ChannelWriteHalf<Msg>) -> Self {
        let (inlet, outlet) = inlet();
        let done = CancellationToken::new();
        let over = done.clone();
        tokio::spawn(async move {
            // Answers come late to a peer that waits for more; nothing is lost if this fails.
            let _ = stream.set_nodelay(true);
            let (mut from, to) = stream.into_split();
            let feed = tokio::spawn(outlet.into_writer(to));
            let carry = async {
                let mut chunk = BytesMut::with_capacity(CHUNK);
                while let Ok(1..) = from.read_buf(&mut chunk).await {
                    if channel.data_bytes(chunk.split().freeze()).await.is_err() {
                        return;
                    }
                    chunk.reserve(CHUNK);
                }
                // These fail only when the connection to the client has ended.
                let _ = channel.eof().await;
                let _ = channel.close().await;
            };
            tokio::select! {
                () = over.cancelled() => {}
                () = carry => {}
            }
            feed.abort();
            over.cancel();
        });
        Self { input: Some(inlet), done }
    }
}

impl Drop for Onward {
    fn drop(&mut self) {
        self.done.cancel();
    }
}
