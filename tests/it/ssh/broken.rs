//! Servers and networks that break off, lie or never end: each is told apart, and each ends within its limit.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use keyswap::model::{Algorithms, Connection};
use keyswap::remote::ssh::{Phase, Problem};

use super::{connection, dialer, finish, refused};
use crate::support::real_host::RealHost;
use crate::support::wait_until;

/// A server that does this with whoever comes.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = std::sync::Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = std::sync::Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_told_apart() {
    let host = RealHost::start();
    let (dialer, base) = (dialer(&host), Connection { connect_timeout_ms: 3000, ..connection(&host) });
    let at = |port| Connection { port, ..base.clone() };

    // An address that nothing is sent to.
    let nowhere = Connection { address: "255.255.255.255".to_owned(), ..base.clone() };
    let error = refused(&dialer, &nowhere).await;
    assert!(matches!(error.problem, Problem::NoRoute { .. }), "{error}");

    let garbage = server(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-Odd\r\n\0\0\0\x0c\x0agarbage that is no key exchange");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let error = refused(&dialer, &at(garbage)).await;
    assert!(matches!(error.problem, Problem::KeyExchange { .. }), "{error}");
    let error = dialer.scan(&at(garbage)).await.unwrap_err();
    assert!(matches!(error.problem, Problem::KeyExchange { .. }), "{error}");

    // Lines without end before the one that counts.
    let endless = server(|mut stream| while stream.write_all(b"welcome to this place\r\n").is_ok() {});
    let began = Instant::now();
    let error = refused(&dialer, &at(endless)).await;
    assert!(
        matches!(error.problem, Problem::NoBanner { .. } | Problem::TimedOut { phase: Phase::Banner, .. }),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_cut_or_hangs_is_no_wrong_key() {
    let host = RealHost::start();
    let base = Connection { connect_timeout_ms: 4000, ..connection(&host) };
    for (signal, cut) in [("KILL", true), ("STOP", false)] {
        // The key is asked for by a program that gives us the time to come between.
        host.sh(
            "printf '#!/bin/sh\\n: >/run/asked\\nsleep 60\\n' >/usr/local/bin/keys; chmod 755 /usr/local/bin/keys; rm -f /run/asked
             grep -q AuthorizedKeysCommand /etc/ssh/sshd_config || {
               sed -i '1i AuthorizedKeysCommand /usr/local/bin/keys\\nAuthorizedKeysCommandUser root\\nAuthorizedKeysFile none' /etc/ssh/sshd_config
               kill -HUP $(cat /run/sshd.pid); }",
        );
        wait_until("sshd has read it", || host.sshd_log().matches("Server listening").count() == 2);
        let dialer = dialer(&host);
        let (error, ()) = tokio::join!(refused(&dialer, &base), async {
            while !host.root().join("run/asked").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(host.signal_sshd_children(signal) > 0);
        });
        match error.problem {
            Problem::ClosedDuringLogin { .. } => assert!(cut, "{signal}"),
            Problem::TimedOut { phase: Phase::Login, .. } => assert!(!cut, "{signal}"),
            other => panic!("{signal}: {other}"),
        }
        host.signal_sshd_children("KILL");
    }
}

/// Forwards to the host; what the host sends passes through `tamper`.
fn between(
    port: u16,
    tamper: impl Fn(&mut TcpStream, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> u16 {
    server(move |mut client| {
        let mut host = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), host.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        let _ = tamper(&mut host, &mut client).and_then(|()| std::io::copy(&mut host, &mut client).map(drop));
        let _ = client.shutdown(std::net::Shutdown::Both);
    })
}

/// One packet before the encryption begins: its type, and all of it.
fn packet(from: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut all = vec![0; 4];
    from.read_exact(&mut all)?;
    let length = usize::try_from(u32::from_be_bytes(all[..].try_into().unwrap())).unwrap();
    all.resize(4 + length, 0);
    from.read_exact(&mut all[4..])?;
    Ok((all[5], all))
}

/// Puts a packet in before the encryption, and takes the first one out after it: the numbers fit again, and without the strict
/// key exchange nobody would notice (CVE-2023-48795).
fn terrapin(host: &mut TcpStream, client: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        host.read_exact(&mut byte)?;
        client.write_all(&byte)?;
    }
    let mut first = true;
    loop {
        let (kind, all) = packet(host)?;
        client.write_all(&all)?;
        if std::mem::take(&mut first) {
            client.write_all(&[0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        }
        if kind == 21 {
            break;
        }
    }
    // The length stands in the clear with this cipher; the code after it has 32 bytes.
    let mut length = [0; 4];
    host.read_exact(&mut length)?;
    let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() + 32];
    host.read_exact(&mut rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_cannot_be_taken_out_behind_the_key_exchange() {
    let host = RealHost::start();
    let algorithms = Algorithms {
        ciphers: vec!["aes256-ctr".to_owned()],
        macs: vec!["hmac-sha2-256-etm@openssh.com".to_owned()],
        ..Algorithms::default()
    };
    let base = Connection { algorithms, host_keys: vec![host.host_key()], ..connection(&host) };
    let plain = between(host.port(), |_, _| Ok(()));
    let link =
        dialer(&host).connect(&Connection { port: plain, ..base.clone() }).await.unwrap_or_else(|e| panic!("{e}"));
    link.close().await;
    let attacked = between(host.port(), terrapin);
    let error = refused(&dialer(&host), &Connection { port: attacked, connect_timeout_ms: 5000, ..base }).await;
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_error_without_end_is_bounded() {
    let host = RealHost::start();
    let link = dialer(&host).connect(&connection(&host)).await.unwrap();
    let mut pipe =
        link.start(b"yes trouble | dd bs=4096 count=25600 iflag=fullblock >&2 2>/dev/null; echo done").await.unwrap();
    let (said, _) = finish(&mut pipe).await.unwrap();
    assert_eq!(said, b"done\n");
    assert_eq!(pipe.stderr_tail().len(), 4096, "100 MB went by, and what is kept is the end");
    link.close().await;
}
