//! A wire with a delay, since not every kernel has one: bytes are handed on half a round trip after they came.
//!
//! A connection costs a round trip before anything goes through, as TCP's handshake does. Counted are the bytes of both
//! directions and the turns: how often the client spoke after the host had spoken. Acknowledgements come from the line's own
//! ends at once, so a sender that waits for one loses less here than on a real wire.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::fleet::{DELAYED, PORT, address};

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    turns: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// Serves until the input ends, then says `connections turns up down`.
pub(crate) fn run(rtt: u64, hosts: usize) {
    let half = Duration::from_micros(rtt * 500);
    let counts = Arc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for host in 1..=hosts {
            let listener = TcpListener::bind((address(host), DELAYED)).await.unwrap();
            tokio::spawn(serve(listener, address(host), half, Arc::clone(&counts)));
        }
        println!("ready");
        std::io::stdout().flush().unwrap();
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await;
    });
    let said = [&counts.connections, &counts.turns, &counts.up, &counts.down].map(|n| n.load(Relaxed).to_string());
    println!("{}", said.join(" "));
}

async fn serve(listener: TcpListener, to: String, half: Duration, counts: Arc<Counts>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(connect(client, to.clone(), half, Arc::clone(&counts)));
    }
}

async fn connect(client: TcpStream, to: String, half: Duration, counts: Arc<Counts>) {
    // The client believes that it is connected; on a real wire the host hears of that after one and a half round trips.
    let heard = Instant::now() + half * 3;
    sleep_until(heard).await;
    let Ok(host) = TcpStream::connect((to, PORT)).await else { return };
    counts.connections.fetch_add(1, Relaxed);
    let _ = (client.set_nodelay(true), host.set_nodelay(true));
    let host_spoke = AtomicBool::new(true);
    let (client_reads, client_writes) = client.into_split();
    let (host_reads, host_writes) = host.into_split();
    let up = |bytes: usize| {
        counts.up.fetch_add(bytes as u64, Relaxed);
        if host_spoke.swap(false, Relaxed) {
            counts.turns.fetch_add(1, Relaxed);
        }
    };
    // It has spoken when the client can have heard it.
    let down = |bytes: usize| {
        counts.down.fetch_add(bytes as u64, Relaxed);
        host_spoke.store(true, Relaxed);
    };
    tokio::join!(
        carry(client_reads, host_writes, half, heard, up, |_| {}),
        carry(host_reads, client_writes, half, heard, |_| {}, down)
    );
}

/// One direction: what comes goes on later, in order, and not before the connection stands.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    half: Duration,
    not_before: Instant,
    came: impl Fn(usize),
    went: impl Fn(usize),
) {
    let (on_the_way, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let take = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let _ = rustix::net::sockopt::set_tcp_quickack(from.as_ref(), true);
            came(length);
            let at = (Instant::now() + half).max(not_before);
            let _ = on_the_way.send((at, buffer[..length].to_vec()));
        }
        // The end is on its way as well.
        sleep_until(Instant::now() + half).await;
    };
    let give = async move {
        while let Some((at, piece)) = arriving.recv().await {
            sleep_until(at).await;
            went(piece.len());
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(take, give);
}
