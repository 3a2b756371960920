//! A socket of our own whose connections come out of a host: so that what speaks to a server here speaks to it from
//! there, with the same checks of the server's name.
//!
//! The socket lies in a private directory: nobody but its owner can connect. It leads to one server and to no other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::Way;

/// A relay; it ends when this is dropped.
pub struct Relay {
    socket: PathBuf,
    _dir: TempDir,
    serving: JoinHandle<()>,
}

impl Relay {
    /// Lets whoever connects to the relay's socket speak to a server as `way` reaches it.
    ///
    /// # Errors
    /// When there is no place for the socket.
    pub fn start(way: Arc<dyn Way>, server: String, port: u16) -> io::Result<Self> {
        // `tempfile` makes directories that only their owner can enter.
        let dir = tempfile::Builder::new().prefix("keyswap-way-").tempdir()?;
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket)?;
        let serving = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (way, server) = (Arc::clone(&way), server.clone());
                streams.spawn(async move { carry(near, way.as_ref(), &server, port).await });
                while streams.try_join_next().is_some() {}
            }
        });
        Ok(Self { socket, _dir: dir, serving })
    }

    /// Where to connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What cannot be reached is closed again: whoever connected sees that.
async fn carry(mut near: UnixStream, way: &dyn Way, server: &str, port: u16) {
    if let Ok(mut far) = way.open(server, port).await {
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
