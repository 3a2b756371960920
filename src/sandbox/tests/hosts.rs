//! The server, seen by a client: what sshd does, it does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use russh::{ChannelOpenFailure, Sig};

use super::client::{connect, finish, login, login_over, run, started};
use super::{bare_hosts, until};
use crate::sandbox::LoginKey;
use crate::sandbox::reap::processes_of;

#[tokio::test]
async fn commands_run_in_the_hosts_directory_with_a_clean_environment() {
    let (_dir, hosts) = bare_hosts(4).await;
    for host in &hosts {
        let handle = connect(host).await;
        let home = host.dir().to_str().unwrap();
        let done = run(&handle, "pwd; cat; echo oops >&2; exit 7", "some input").await;
        assert_eq!(done.text(), format!("{home}\nsome input"));
        assert_eq!((done.stderr.as_slice(), done.status, done.closed), (&b"oops\n"[..], Some(7), true));

        let done = run(&handle, "exec /usr/bin/env", "").await;
        let mut names: Vec<&str> = done.text().lines().map(|line| line.split('=').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "KS_MACHINE_FILE", "LOGNAME", "PATH", "PWD", "SHELL", "USER"]);
        assert!(done.text().contains(&format!("HOME={home}\n")));
    }
}

#[tokio::test]
async fn bare_shell_reads_commands_from_its_input() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let channel = handle.channel_open_session().await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.data_bytes("echo $((6 * 7)); exit 3\n").await.unwrap();
    let done = finish(channel).await;
    assert_eq!((done.text(), done.status), ("42", Some(3)));
}

#[tokio::test]
async fn nobody_else_logs_in() {
    let (dir, hosts) = bare_hosts(1).await;
    let host = &hosts[0];
    let other = LoginKey::create(&dir.path().join("other")).unwrap();
    let (_, result) = login(host, host.user(), other.file()).await.unwrap();
    assert!(!result.success());
    let (_, result) = login(host, "root", host.identity_file()).await.unwrap();
    assert!(!result.success());
    let (mut handle, _) = login(host, host.user(), other.file()).await.unwrap();
    assert!(!handle.authenticate_none(host.user()).await.unwrap().success());
    assert!(!handle.authenticate_password(host.user(), "test-token-x").await.unwrap().success());
    assert!(handle.channel_open_session().await.is_err(), "a channel before the login");
}

#[tokio::test]
async fn much_output_and_much_input_get_through_whole() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let done = run(&handle, "head -c 5000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2", "").await;
    assert_eq!((done.stdout.len(), done.stderr.len(), done.status), (5_000_000, 300_000, Some(0)));
    assert!(done.stdout.iter().all(|byte| *byte == b'x'));

    // Both ways at once, far more than every buffer on the way holds.
    let input: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let done = run(&handle, "cat", input.clone()).await;
    assert!(done.stdout == input, "{} bytes came back", done.stdout.len());
}

#[tokio::test]
async fn input_for_a_command_that_has_ended_is_dropped() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let done = run(&handle, "exec <&-; sleep 0.3; echo done", vec![0; 3_000_000]).await;
    assert_eq!((done.text(), done.status), ("done", Some(0)));
    assert_eq!(run(&handle, "echo still there", "").await.text(), "still there");
}

#[tokio::test]
async fn client_that_does_not_read_slows_the_command_down() {
    const CHUNK: usize = 65_536;
    const CHUNKS: usize = 1_600;
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let script =
        format!("i=0; while [ $i -lt {CHUNKS} ]; do head -c {CHUNK} /dev/zero; i=$((i+1)); echo $i >progress; done");
    let channel = started(&handle, &script).await;
    let progress = || -> usize {
        fs::read_to_string(hosts[0].dir().join("progress")).ok().and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    };
    let (mut last, mut same) = (0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let now = progress();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    assert!(last < CHUNKS / 2, "{last} of {CHUNKS} chunks were taken though nobody reads");
    let done = finish(channel).await;
    assert_eq!((done.stdout.len(), done.status), (CHUNK * CHUNKS, Some(0)));
}

#[tokio::test]
async fn deadly_signals_are_reported_and_passed_on() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let done = run(&handle, "kill -KILL $$", "").await;
    assert_eq!((done.status, done.signal.as_deref()), (None, Some("KILL")));

    let channel = started(&handle, "sleep 60 & sleep 60").await;
    until("both sleep", || processes_of(hosts[0].dir()).len() == 3).await;
    channel.signal(Sig::TERM).await.unwrap();
    assert_eq!(finish(channel).await.signal.as_deref(), Some("TERM"));
    until("the whole group has ended", || processes_of(hosts[0].dir()).is_empty()).await;
}

#[tokio::test]
async fn twenty_channels_of_one_connection_run_side_by_side() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    // Each waits for all others: one after the other they would never end.
    let script =
        |n: usize| format!("touch at-{n}; while [ $(ls | grep -c '^at-') -lt 20 ]; do sleep 0.02; done; echo {n}");
    let done = join_all((0..20).map(|n| {
        let script = script(n);
        let handle = &handle;
        async move { run(handle, &script, "").await }
    }));
    let done = tokio::time::timeout(Duration::from_secs(20), done).await.unwrap();
    for (n, done) in done.iter().enumerate() {
        assert_eq!((done.text(), done.status), (n.to_string().as_str(), Some(0)));
    }
}

#[tokio::test]
async fn daemon_that_holds_the_output_keeps_the_channel_open() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let channel = started(&handle, "(until [ -e go ]; do sleep 0.02; done; echo late) & echo early").await;
    let mut reading = tokio::spawn(finish(channel));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut reading).await;
    assert!(early.is_err(), "the channel was closed under a writer: {early:?}");
    fs::write(hosts[0].dir().join("go"), "").unwrap();
    let done = reading.await.unwrap();
    assert_eq!((done.text(), done.status), ("early\nlate", Some(0)));
}

#[tokio::test]
async fn lost_link_ends_the_input_and_kills_nothing() {
    let (_dir, hosts) = bare_hosts(2).await;
    let (here, there) = (connect(&hosts[0]).await, connect(&hosts[1]).await);
    let at = |name: &str| hosts[0].dir().join(name);
    let survivor =
        started(&here, "echo up; cat >got; echo eof >eof; trap '' PIPE; while echo x; do :; done; echo broken >broken")
            .await;
    survivor.data_bytes("half a ").await.unwrap();
    until("the command runs", || at("got").exists()).await;
    let other = started(&there, "cat").await;

    hosts[0].cut();
    assert!(!finish(survivor).await.closed, "nobody was left to close the channel");
    until("the input ends", || at("eof").exists()).await;
    until("writing fails", || at("broken").exists()).await;
    assert_eq!(fs::read_to_string(at("got")).unwrap(), "half a ");
    assert!(here.channel_open_session().await.is_err(), "the link is cut");
    assert_eq!(run(&connect(&hosts[0]).await, "echo back", "").await.text(), "back");

    other.data_bytes("untouched").await.unwrap();
    other.eof().await.unwrap();
    assert_eq!(finish(other).await.text(), "untouched");
}

#[tokio::test]
async fn closed_channel_makes_the_next_write_fail() {
    let (_dir, hosts) = bare_hosts(1).await;
    let handle = connect(&hosts[0]).await;
    let channel =
        started(&handle, "trap '' PIPE; while echo x; do sleep 0.01; done 2>/dev/null; echo $? >broken").await;
    channel.close().await.unwrap();
    let broken = hosts[0].dir().join("broken");
    until("writing fails", || fs::read_to_string(&broken).is_ok_and(|text| !text.is_empty())).await;
    assert_eq!(run(&handle, "echo on", "").await.text(), "on");
}

#[tokio::test]
async fn unreachable_host_comes_back() {
    let (_dir, hosts) = bare_hosts(1).await;
    let host = &hosts[0];
    let handle = connect(host).await;
    host.set_reachable(false);
    assert!(login(host, host.user(), host.identity_file()).await.is_err());
    until("the old link is gone", || handle.is_closed()).await;
    host.set_reachable(true);
    assert_eq!(run(&connect(host).await, "echo back", "").await.text(), "back");
}

#[tokio::test]
async fn one_host_leads_to_another_but_only_on_loopback() {
    let (_dir, hosts) = bare_hosts(2).await;
    let bastion = connect(&hosts[0]).await;
    let to = |port: u16| bastion.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 0);
    let stream = to(hosts[1].port()).await.unwrap().into_stream();
    let (inner, result) = login_over(stream, &hosts[1], hosts[1].user(), hosts[1].identity_file()).await.unwrap();
    assert!(result.success());
    let done = run(&inner, "pwd; head -c 5000000 /dev/zero", "").await;
    assert!(done.stdout.starts_with(hosts[1].dir().to_str().unwrap().as_bytes()));
    assert!(done.stdout.len() > 5_000_000);

    let refused = bastion.channel_open_direct_tcpip("192.0.2.1", 22, "127.0.0.1", 0).await;
    let prohibited = ChannelOpenFailure::AdministrativelyProhibited;
    assert!(matches!(refused, Err(russh::Error::ChannelOpenFailure(why)) if why == prohibited));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(matches!(to(closed).await, Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))));
}

#[tokio::test]
async fn stopped_host_leaves_no_process() {
    let (_dir, mut hosts) = bare_hosts(2).await;
    for host in &hosts {
        let done = run(&connect(host).await, "setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!", "").await;
        assert!(Path::new("/proc").join(done.text()).exists());
    }
    let host = hosts.remove(0);
    let (dir, port) = (host.dir().to_owned(), host.port());
    assert_eq!(processes_of(&dir).len(), 1);
    host.stop().await.unwrap();
    assert!(processes_of(&dir).is_empty());
    until("nobody listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()).await;

    let host = hosts.remove(0);
    assert_eq!(processes_of(host.dir()).len(), 1, "the other host's processes are its own");
    host.stop().await.unwrap();
}
