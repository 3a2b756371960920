//! The limit to come near: a bare program over the same SSH library, one connection and one command a host, all at once.
//!
//! It checks the host's key and what the command said, and nothing else: no journal, no look before, no way back.

use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::client::{Config, Handler, connect_stream};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, Disconnect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fleet::USER;

/// Does all jobs; the key, the host key and the token lie beside the file.
pub(crate) fn run(jobs: &Path) -> ExitCode {
    let jobs: Vec<(String, u16, String)> = serde_json::from_slice(&std::fs::read(jobs).unwrap()).unwrap();
    let key = Arc::new(load_secret_key("identity", None).unwrap());
    let host_key = PublicKey::read_openssh_file(Path::new("host_key.pub")).unwrap();
    let token = Bytes::from(std::fs::read("token").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let good = runtime.block_on(async {
        let mut working = JoinSet::new();
        for (address, port, command) in jobs {
            working.spawn(job(address, port, command, Arc::clone(&key), host_key.clone(), token.clone()));
        }
        let mut good = true;
        while let Some(done) = working.join_next().await {
            match done.unwrap() {
                Ok(Some(0)) => {}
                other => {
                    println!("{other:?}");
                    good = false;
                }
            }
        }
        good
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn job(
    address: String,
    port: u16,
    command: String,
    key: Arc<PrivateKey>,
    host_key: PublicKey,
    token: Bytes,
) -> Result<Option<u32>, russh::Error> {
    let tcp = TcpStream::connect((address, port)).await?;
    tcp.set_nodelay(true)?;
    let mut handle = connect_stream(Arc::new(Config::default()), Quick(tcp), Trust(host_key)).await?;
    let login = handle.authenticate_publickey(USER, PrivateKeyWithHashAlg::new(key, None)).await?;
    assert!(login.success(), "the login was refused");
    let mut channel = handle.channel_open_session().await?;
    channel.exec(true, command).await?;
    channel.data_bytes(token).await?;
    channel.eof().await?;
    let mut status = None;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::ExtendedData { data, .. } => println!("{}", String::from_utf8_lossy(&data)),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
    Ok(status)
}

struct Trust(PublicKey);

impl Handler for Trust {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(presented.public_key().key_data() == self.0.key_data())
    }
}

/// A connection that acknowledges at once, as keyswap's does: sshd waits for it.
struct Quick(TcpStream);

impl AsyncRead for Quick {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        if read.is_ready() {
            let _ = rustix::net::sockopt::set_tcp_quickack(&self.0, true);
        }
        read
    }
}

impl AsyncWrite for Quick {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
