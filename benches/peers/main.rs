//! keyswap beside its peers on the same hosts: `benches/peers/run [OPTION]...`, or `just bench-peers`.
//!
//! One real sshd, many host directories, each with a toy runner (`host.sh`, `toyctl.sh`), in namespaces of their own with
//! nothing but loopback. Every tool does the same five steps there as root by sudo, with the same syncs and the same final
//! check: back up, place, point, restart, verify. The fleet is made anew for each run; the tools take turns, so that what
//! else the machine does hits all alike; and every host is looked at from outside before a time counts (`fleet.rs`).
//! keyswap runs with every safety on. What is compared are ratios within one run of this program.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measurement, run by hand")]
#![expect(clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a measurement, run by hand")]

mod delay;
mod fleet;
mod group;
mod measure;
mod oneshot;
mod tables;
mod tools;
mod trace;

use std::fs;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use tools::Tool;

/// keyswap beside its peers, on the same hosts.
#[derive(Parser)]
#[command(name = "benches/peers/run")]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// How many hosts; one table for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50, 200])]
    hosts: Vec<usize>,
    /// How often each tool has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which tools; the hand-written ssh and the bare russh program are what the ratios are to.
    #[arg(long, value_delimiter = ',', default_values_t = Tool::PEERS)]
    peers: Vec<Tool>,
    /// Round trips in ms of the table with a delay, `--rtt` alone for none. There 0 goes through the delay line as well.
    #[arg(long, value_delimiter = ',', num_args = 0.., default_values_t = [0, 20, 100])]
    rtt: Vec<u64>,
    /// How many hosts that table has.
    #[arg(long, default_value_t = 10)]
    rtt_hosts: usize,
    /// Leaves out the table of what remains and where it goes.
    #[arg(long)]
    no_remains: bool,
    /// Told by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// In a network of its own already.
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Subcommand)]
enum What {
    /// What each of keyswap's requests starts on its host.
    Forks,
    /// The bare program: one connection a host, one command.
    #[command(hide = true)]
    Oneshot {
        /// A file with a line for each host: address, port, command.
        jobs: std::path::PathBuf,
    },
    /// The delay line.
    #[command(hide = true)]
    Delay {
        /// The round trip in ms.
        rtt: u64,
        /// The number of hosts.
        hosts: usize,
    },
}

fn main() -> ExitCode {
    // `cargo test --benches` comes by with it.
    if std::env::args().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    match &args.what {
        Some(What::Oneshot { jobs }) => return oneshot::run(jobs),
        Some(What::Delay { rtt, hosts }) => {
            delay::run(*rtt, *hosts);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if !rustix::process::geteuid().is_root() {
        println!("the benchmark makes hosts of its own and needs root");
        return ExitCode::from(5);
    }
    if !args.inside {
        return enter();
    }
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success(), "no loopback");
    let whole = match &args.what {
        Some(_) => trace::forks(),
        None => tables::all(&args),
    };
    fleet::clear();
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same again in a network where there is only loopback, by copies of the programs: a build meanwhile does not disturb it.
fn enter() -> ExitCode {
    let place = fleet::place();
    fs::create_dir_all(&place).unwrap();
    let lock = fs::File::create(place.join("lock")).unwrap();
    if lock.try_lock().is_err() {
        println!("another benchmark runs here; waiting for its end");
        lock.lock().unwrap();
    }
    for (from, to) in [(std::env::current_exe().unwrap(), "peers"), (env!("CARGO_BIN_EXE_keyswap").into(), "keyswap")] {
        // Beside and renamed: what still runs of an earlier one keeps its file.
        fs::copy(from, place.join("new")).unwrap();
        fs::rename(place.join("new"), place.join(to)).unwrap();
    }
    let status = Command::new("unshare")
        .args(["--net", "--kill-child", "--fork"])
        .arg(place.join("peers"))
        .arg("--inside")
        .args(std::env::args().skip(1).filter(|arg| arg != "--bench"))
        .status()
        .expect("unshare can be run");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
