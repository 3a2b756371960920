//! What a whole `keyswap run` costs with very many hosts: `cargo bench --bench fleet [-- N...]`.
//!
//! The hosts are the sandbox's, in a process of their own: one SSH server each on loopback and the real `sh`, without a
//! runner (its restart costs the host, not the controller). The playbook backs up, places and points. Measured is the
//! controller alone, by looking at its `/proc`; the wall time is what both need together on this machine, most of it
//! the hosts' shells. After each run every host's file is looked at, so that no number stands for a run that failed.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyswap::sandbox::{Sandbox, SandboxOptions};

const SIZES: [usize; 4] = [200, 500, 1000, 2000];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["hosts", number] => hosts(number.parse().unwrap()),
        // Also how `cargo test --benches` comes by.
        ["--test", ..] => {}
        numbers => {
            let numbers: Vec<usize> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
            let numbers = if numbers.is_empty() { SIZES.to_vec() } else { numbers };
            println!(
                "| hosts | wall | per host | controller CPU | per host | peak memory | per host | open files | says |"
            );
            println!("|---|---|---|---|---|---|---|---|---|");
            for number in numbers {
                println!("{}", measure(number));
            }
        }
    }
}

/// The process of the hosts: says where they are, and ends when its input does.
fn hosts(number: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = SandboxOptions { without_runners: true, ..SandboxOptions::default() };
    let sandbox = runtime.block_on(Sandbox::start(number, options)).unwrap();
    for host in sandbox.hosts() {
        fs::create_dir(host.dir().join("data")).unwrap();
        fs::write(host.dir().join("data/token"), "test-token-old").unwrap();
        fs::write(host.dir().join("runner.env"), "A=1\nTOKEN_FILE=/nowhere\nTZ=UTC\n").unwrap();
    }
    let playbook = format!(
        r#"name = "Measure"
hosts = "docker-publish"
[secrets.token]
from = "file"
path = "{}/new-token"
[rollout]
batches = [1, "25%", "100%"]
guard = "off"
[[steps]]
name = "backup"
backup = {{ path = "{{{{ home }}}}/data/token" }}
[[steps]]
name = "place"
place = {{ secret = "token", path = "{{{{ home }}}}/data/token", mode = "0600" }}
[[steps]]
name = "point"
point = {{ file = "{{{{ home }}}}/runner.env", key = "TOKEN_FILE", value = "{{{{ home }}}}/data/token", reaches = "jobs" }}
"#,
        sandbox.dir().display()
    );
    fs::write(sandbox.dir().join("measure.toml"), playbook).unwrap();
    println!("{}", sandbox.dir().display());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().lines().next();
    runtime.block_on(sandbox.stop()).unwrap();
}

/// What a process used.
#[derive(Default)]
struct Use {
    ticks: u64,
    peak_kb: u64,
    files: usize,
}

impl Use {
    /// Looks once more; a process that has ended tells nothing, and the last look stands.
    fn look(&mut self, pid: u32) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        self.peak_kb = self.peak_kb.max(peak.unwrap_or_default());
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
        self.ticks = self.ticks.max(ticks);
        self.files = self.files.max(fs::read_dir(proc.join("fd")).map_or(0, Iterator::count));
    }
}

fn measure(number: usize) -> String {
    let mut served = Command::new(std::env::current_exe().unwrap())
        .args(["hosts", &number.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut dir = String::new();
    BufReader::new(served.stdout.take().unwrap()).read_line(&mut dir).unwrap();
    let dir = PathBuf::from(dir.trim());
    let began = Instant::now();
    let mut run = start(&dir);
    let mut used = Use::default();
    let code = loop {
        used.look(run.id());
        if let Some(status) = run.try_wait().unwrap() {
            break status.code();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let wall = began.elapsed();
    let new = fs::read(dir.join("new-token")).unwrap();
    let is_new = |n: &usize| fs::read(dir.join(format!("hosts/runner-{n}/data/token"))).is_ok_and(|text| text == new);
    let rotated = (1..=number).filter(is_new).count();
    let said = fs::read_to_string(dir.join("said")).unwrap_or_default();
    if code != Some(0) || rotated != number {
        println!("{}", said.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
    }
    drop(served.stdin.take());
    served.wait().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (n, ticks, kb) = (number as f64, used.ticks as f64 * 10.0, used.peak_kb as f64);
    let wall_ms = wall.as_secs_f64() * 1000.0;
    format!(
        "| {number} | {:.1} s | {:.1} ms | {:.1} s | {:.1} ms | {:.1} MB | {:.0} kB | {} | exit {}, {rotated} rotated |",
        wall_ms / 1000.0,
        wall_ms / n,
        ticks / 1000.0,
        ticks / n,
        kb / 1024.0,
        kb / n,
        used.files,
        code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
    )
}

fn start(dir: &Path) -> Child {
    let said = fs::File::create(dir.join("said")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_keyswap"))
        .args([
            "--output",
            "plain",
            "--state-dir",
            "controller",
            "run",
            "measure.toml",
            "-i",
            "inventory.toml",
            "--yes",
        ])
        .current_dir(dir)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stderr(said.try_clone().unwrap())
        .stdout(said)
        .spawn()
        .unwrap()
}
