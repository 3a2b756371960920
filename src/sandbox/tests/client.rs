//! A small SSH client, just enough to talk to a sandbox host.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelMsg};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::sandbox::SandboxHost;

/// Accepts exactly the host key that the host's `known_hosts` line names.
pub(super) struct Expecting(String);

impl client::Handler for Expecting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.0.ends_with(&key.to_openssh().unwrap()),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// Connects and offers a key for a user.
pub(super) async fn login(
    host: &SandboxHost,
    user: &str,
    key: &Path,
) -> Result<(Handle<Expecting>, AuthResult), russh::Error> {
    let stream = TcpStream::connect((host.address(), host.port())).await?;
    login_over(stream, host, user, key).await
}

pub(super) async fn login_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &SandboxHost,
    user: &str,
    key: &Path,
) -> Result<(Handle<Expecting>, AuthResult), russh::Error> {
    let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
    let mut handle = client::connect_stream(config, stream, Expecting(host.host_key_line())).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(key, None).unwrap()), None);
    let result = handle.authenticate_publickey(user, key).await?;
    Ok((handle, result))
}

/// Connects as the host's user.
pub(super) async fn connect(host: &SandboxHost) -> Handle<Expecting> {
    let (handle, result) = login(host, host.user(), host.identity_file()).await.unwrap();
    assert!(result.success());
    handle
}

/// What a command did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: Option<u32>,
    pub(super) signal: Option<String>,
    pub(super) closed: bool,
}

impl Done {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap().trim_end()
    }
}

pub(super) async fn started(handle: &Handle<Expecting>, command: &str) -> Channel<Msg> {
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return channel,
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            other => panic!("the command was not accepted: {other:?}"),
        }
    }
}

/// Reads a channel to its end; fails the test when that does not come.
pub(super) async fn finish(channel: Channel<Msg>) -> Done {
    tokio::time::timeout(Duration::from_secs(30), read_all(channel)).await.expect("the channel did not end")
}

async fn read_all(mut channel: Channel<Msg>) -> Done {
    let mut done = Done::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => done.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, ext: 1 } => done.stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => done.status = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => done.signal = Some(format!("{signal_name:?}")),
            ChannelMsg::Close => done.closed = true,
            _ => {}
        }
    }
    done
}

/// Runs a command with this input to its end. Input is fed beside the reading.
pub(super) async fn run(handle: &Handle<Expecting>, command: &str, input: impl Into<bytes::Bytes>) -> Done {
    let channel = started(handle, command).await;
    let input = input.into();
    let mut writer = channel.make_writer();
    let feed = tokio::spawn(async move {
        // The command may end before it has read everything.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &input).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
    });
    let done = finish(channel).await;
    feed.abort();
    done
}
