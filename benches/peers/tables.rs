//! The rounds, and the tables that are printed of them.

use std::collections::HashMap;
use std::fs;

use crate::Args;
use crate::measure::{Scene, Took, run};
use crate::tools::Tool;

/// The good runs of each tool.
type Runs = HashMap<&'static str, Vec<Took>>;

/// All tables; false if a run did not count.
pub(crate) fn all(args: &Args) -> bool {
    let mut whole = true;
    for &hosts in &args.hosts {
        let scene = Scene { hosts, rtt: None, in_memory: false };
        let runs = rounds(&args.peers, args.rounds, scene, &mut whole);
        println!("\n{hosts} hosts, no delay, medians of {} rounds in turn\n", args.rounds);
        compared(&args.peers, &runs, hosts);
    }
    if !args.rtt.is_empty() {
        delayed(args, &mut whole);
    }
    if !args.no_remains {
        remains(args, &mut whole);
    }
    println!("\n{}", if whole { "every run counted" } else { "RUNS DID NOT COUNT: look for VOID above" });
    whole
}

/// Lets the tools take turns.
fn rounds(tools: &[Tool], rounds: usize, scene: Scene, whole: &mut bool) -> Runs {
    let mut runs = Runs::new();
    for round in 1..=rounds {
        println!("\nround {round} of {rounds}, {scene:?}, load {}", load());
        for tool in tools {
            match run(*tool, scene) {
                Ok(took) => {
                    println!(
                        "  {:<20} {:>8.2} s   controller {:>7.2} s   hosts {:>7.2} s   {:>6.1} MB",
                        tool.title(),
                        took.wall,
                        took.controller,
                        took.hosts,
                        took.memory
                    );
                    runs.entry(tool.title()).or_default().push(took);
                }
                Err(why) => {
                    *whole = false;
                    println!("  {:<20} VOID: {why}", tool.title());
                }
            }
        }
    }
    runs
}

/// What else the machine does.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} on {processors} processors", text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn median(runs: Option<&Vec<Took>>, of: impl Fn(&Took) -> f64) -> Option<f64> {
    let mut all: Vec<f64> = runs?.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    Some(if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) })
}

/// The rounds' ratios, so that each is of neighbours in time.
fn ratio(runs: &Runs, tool: Tool, to: Tool) -> String {
    let (Some(ours), Some(theirs)) = (runs.get(tool.title()), runs.get(to.title())) else { return "-".to_owned() };
    let pairs = ours.iter().zip(theirs).map(|(a, b)| Took { wall: a.wall / b.wall, ..Took::default() }).collect();
    median(Some(&pairs), |took| took.wall).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn compared(tools: &[Tool], runs: &Runs, hosts: usize) {
    println!(
        "| tool | wall | to ssh | to russh | to keyswap | controller CPU | a host | peak memory | a host | hosts' CPU a host |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let n = hosts as f64;
    for tool in tools {
        let of = |what: fn(&Took) -> f64| median(runs.get(tool.title()), what);
        let (Some(wall), Some(cpu), Some(memory), Some(there)) =
            (of(|t| t.wall), of(|t| t.controller), of(|t| t.memory), of(|t| t.hosts))
        else {
            println!("| {} | VOID | | | | | | | | |", tool.title());
            continue;
        };
        println!(
            "| {} | {wall:.2} s | {} | {} | {} | {cpu:.2} s | {:.1} ms | {memory:.1} MB | {:.0} kB | {:.1} ms |",
            tool.title(),
            ratio(runs, *tool, Tool::Ssh),
            ratio(runs, *tool, Tool::Russh),
            ratio(runs, *tool, Tool::Keyswap),
            cpu * 1000.0 / n,
            memory * 1024.0 / n,
            there * 1000.0 / n,
        );
    }
}

/// With a delay: what a round trip more costs, and what goes over the line.
fn delayed(args: &Args, whole: &mut bool) {
    let hosts = args.rtt_hosts;
    let all: Vec<Runs> = args
        .rtt
        .iter()
        .map(|&rtt| rounds(&args.peers, args.rounds, Scene { hosts, rtt: Some(rtt), in_memory: false }, whole))
        .collect();
    println!("\n{hosts} hosts through the delay line, medians of {} rounds in turn", args.rounds);
    println!(
        "round trips by time: how much longer it took from the smallest to the largest delay, by the difference of the two"
    );
    println!(
        "round trips by turns: how often a client spoke after its host had spoken (what overlaps is counted once)\n"
    );
    let walls: String = args.rtt.iter().map(|rtt| format!(" {rtt} ms |")).collect();
    println!(
        "| tool |{walls} round trips by time | by turns, a host | connections a host | bytes up a host | bytes down a host |"
    );
    println!("|---|{}---|---|---|---|---|", "---|".repeat(args.rtt.len()));
    for tool in &args.peers {
        let wall = |at: usize| median(all[at].get(tool.title()), |took| took.wall);
        let walls: String = (0..all.len())
            .map(|at| wall(at).map_or_else(|| " VOID |".to_owned(), |s| format!(" {s:.2} s |")))
            .collect();
        let low = args.rtt.iter().enumerate().min_by_key(|(_, rtt)| **rtt);
        let high = args.rtt.iter().enumerate().max_by_key(|(_, rtt)| **rtt);
        let slope = low
            .zip(high)
            .filter(|(low, high)| low.1 < high.1)
            .and_then(|(low, high)| Some((wall(high.0)? - wall(low.0)?) * 1000.0 / (*high.1 - *low.1) as f64));
        let last = all.last().and_then(|runs| runs.get(tool.title()));
        let line = |of: fn(&Took) -> f64| {
            median(last, of).map_or_else(|| "-".to_owned(), |number| format!("{:.1}", number / hosts as f64))
        };
        println!(
            "| {} |{walls} {} | {} | {} | {} | {} |",
            tool.title(),
            slope.map_or_else(|| "-".to_owned(), |slope| format!("{slope:.1}")),
            line(|t| t.line.turns),
            line(|t| t.line.connections),
            line(|t| t.line.up),
            line(|t| t.line.down),
        );
    }
}

/// What remains, and where it goes: the same hosts with less and less to do.
fn remains(args: &Args, whole: &mut bool) {
    let hosts = args.hosts.iter().copied().filter(|hosts| *hosts <= 50).max().unwrap_or(10);
    let tools = [Tool::Login, Tool::Sudo, Tool::Russh, Tool::Keyswap];
    let on_disk = rounds(&tools, args.rounds, Scene { hosts, rtt: None, in_memory: false }, whole);
    let in_memory = rounds(&tools[2..], args.rounds, Scene { hosts, rtt: None, in_memory: true }, whole);
    let n = hosts as f64;
    let of = |runs: &Runs, tool: Tool, what: fn(&Took) -> f64| median(runs.get(tool.title()), what).unwrap_or(f64::NAN);
    let there = |tool| of(&on_disk, tool, |t| t.hosts) * 1000.0 / n;
    println!(
        "\nWhat remains, and where it goes: CPU time a host, {hosts} hosts, medians of {} rounds in turn\n",
        args.rounds
    );
    println!("| what | bare russh | keyswap |");
    println!("|---|---|---|");
    let row = |what: &str, russh: f64, keyswap: f64| println!("| {what} | {russh:.1} ms | {keyswap:.1} ms |");
    let (login, sudo) = (there(Tool::Login), there(Tool::Sudo));
    row("host: sshd, login shell (a run of `:`)", login, login);
    row("host: sudo (a run of `sudo -n true` more)", sudo - login, sudo - login);
    row(
        "host: shell, tools, the runner's start (what is left)",
        there(Tool::Russh) - sudo,
        there(Tool::Keyswap) - sudo,
    );
    let here = |tool| of(&on_disk, tool, |t| t.controller) * 1000.0 / n;
    row("controller", here(Tool::Russh), here(Tool::Keyswap));
    row("all", there(Tool::Russh) + here(Tool::Russh), there(Tool::Keyswap) + here(Tool::Keyswap));
    let wall = |runs: &Runs, tool| of(runs, tool, |t| t.wall) * 1000.0 / n;
    row("wall time a host, on the disk", wall(&on_disk, Tool::Russh), wall(&on_disk, Tool::Keyswap));
    row("wall time a host, hosts' files in memory", wall(&in_memory, Tool::Russh), wall(&in_memory, Tool::Keyswap));
    let least = |tool| of(&on_disk, tool, |t| t.wall) * 1000.0 / n;
    row("wall time a host, log in and `:` alone", least(Tool::Login), least(Tool::Login));
    row("wall time a host, log in and `sudo -n true`", least(Tool::Sudo), least(Tool::Sudo));
}
