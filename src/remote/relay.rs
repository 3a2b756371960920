//! A socket of our own whose connections come out of a host: so that what speaks to a server here speaks to it from
//! there, with the same checks of the server's name.
//!
//! The socket lies in a private directory: nobody but its owner can connect. It leads to one server and to no other.
//! What is loopback here is another machine's there, unless that was shown ([`shares_loopback`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::Way;

/// How long a word of ours may take to come back.
const THERE_AND_BACK: Duration = Duration::from_secs(10);

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

/// Whether a loopback address means the same there as here: a random word that goes out of the host must arrive at a listener
/// of ours. How the host is dialled proves nothing, since that may be a tunnel's end.
pub async fn shares_loopback(way: &dyn Way, address: &str) -> bool {
    let Ok(listener) = TcpListener::bind((address, 0)).await else { return false };
    let Ok(port) = listener.local_addr().map(|own| own.port()) else { return false };
    let word = *uuid::Uuid::new_v4().as_bytes();
    let heard = async {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut said = [0; 16];
            if near.read_exact(&mut said).await.is_ok() && said == word {
                return true;
            }
        }
        false
    };
    let said = async {
        if let Ok(mut far) = way.open(address, port).await
            && far.write_all(&word).await.is_ok()
            && far.flush().await.is_ok()
        {
            // Kept open until it was heard, or somebody else has taken it and hangs up.
            let _ = far.read_u8().await;
        }
    };
    let shown = timeout(THERE_AND_BACK, async {
        tokio::select! {
            heard = heard => heard,
            () = said => false,
        }
    });
    shown.await.unwrap_or(false)
}

/// What cannot be reached is closed again: whoever connected sees that.
async fn carry(mut near: UnixStream, way: &dyn Way, server: &str, port: u16) {
    if let Ok(mut far) = way.open(server, port).await {
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use tokio::net::TcpStream;

    use super::super::Stream;
    use super::*;

    /// Goes to the asked port, or to another one.
    struct To(Option<u16>);

    impl Way for To {
        fn open<'a>(&'a self, server: &'a str, port: u16) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
            Box::pin(async move {
                let stream = TcpStream::connect((server, self.0.unwrap_or(port))).await;
                stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| error.to_string())
            })
        }
    }

    #[tokio::test]
    async fn a_loopback_is_ours_only_where_our_word_arrives() {
        for address in ["127.0.0.1", "localhost"] {
            assert!(shares_loopback(&To(None), address).await, "{address}");
        }
        assert!(!shares_loopback(&To(None), "192.0.2.1").await, "no address of this machine");
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        assert!(!shares_loopback(&To(Some(port)), "127.0.0.1").await, "nobody there");
    }

    /// Somebody of this machine comes by at our listener, and the host's stream leads elsewhere.
    struct Passing(u16);

    impl Way for Passing {
        fn open<'a>(&'a self, server: &'a str, port: u16) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
            Box::pin(async move {
                let mut other = TcpStream::connect((server, port)).await.unwrap();
                other.write_all(b"not the word of 16").await.unwrap();
                To(Some(self.0)).open(server, port).await
            })
        }
    }

    #[tokio::test]
    async fn another_s_word_is_not_ours() {
        let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = stranger.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = stranger.accept().await {
                let _ = near.read_exact(&mut [0; 16]).await;
            }
        });
        assert!(!shares_loopback(&Passing(port), "127.0.0.1").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_takes_the_word_and_says_nothing_is_not_waited_for_without_end() {
        let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = stranger.local_addr().unwrap().port();
        assert!(!shares_loopback(&To(Some(port)), "127.0.0.1").await);
    }
}
