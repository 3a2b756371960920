//! One run of one tool on hosts made for it: what it took, and whether the hosts are then as they must be.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::{DELAYED, Fleet, PORT};
use crate::group::Group;
use crate::tools::Tool;

/// The longest that a run may take.
const LIMIT: Duration = Duration::from_secs(900);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// Where a tool works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    /// How many hosts.
    pub(crate) hosts: usize,
    /// Through the delay line, with this round trip in ms.
    pub(crate) rtt: Option<u64>,
    /// The hosts' files in memory instead of on the disk.
    pub(crate) in_memory: bool,
}

/// What a good run took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// From its start to its end, in seconds.
    pub(crate) wall: f64,
    /// CPU of the tool's processes, in seconds.
    pub(crate) controller: f64,
    /// CPU of the hosts' processes, in seconds.
    pub(crate) hosts: f64,
    /// Peak memory of the tool's processes, in MB.
    pub(crate) memory: f64,
    /// What the delay line counted.
    pub(crate) line: Counted,
}

/// What went over the delay line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// TCP connections.
    pub(crate) connections: f64,
    /// How often a client spoke after the host had spoken.
    pub(crate) turns: f64,
    /// Bytes from the clients.
    pub(crate) up: f64,
    /// Bytes to them.
    pub(crate) down: f64,
}

/// Lets a tool do its work; says why the run does not count.
pub(crate) fn run(tool: Tool, scene: Scene) -> Result<Took, String> {
    let fleet = Fleet::start(scene.hosts, scene.in_memory);
    let line = scene.rtt.map(|rtt| Line::start(rtt, scene.hosts));
    let group = Group::new("controller");
    let output = fleet.files.join("output");
    let mut command = tool.command(&fleet, if line.is_some() { DELAYED } else { PORT }, &group.dir);
    let said = File::create(&output).unwrap();
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);

    let (hosts_before, began) = (fleet.group.cpu(), Instant::now());
    let mut child = command.spawn().unwrap();
    let looking = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (wall, status, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while looking.load(std::sync::atomic::Ordering::Relaxed) {
                peak = peak.max(group.memory());
                if began.elapsed() > LIMIT {
                    group.kill();
                }
                std::thread::sleep(LOOK);
            }
            peak
        });
        let status = child.wait().unwrap();
        let wall = began.elapsed();
        looking.store(false, std::sync::atomic::Ordering::Relaxed);
        (wall, status, watcher.join().unwrap())
    });
    // What the hosts still do for it counts too: a session's end, a guard's.
    std::thread::sleep(Duration::from_millis(200));
    let took = Took {
        wall: wall.as_secs_f64(),
        controller: group.cpu().as_secs_f64(),
        hosts: (fleet.group.cpu() - hosts_before).as_secs_f64(),
        memory: peak as f64 / 1024.0,
        line: line.map(Line::end).unwrap_or_default(),
    };
    judge(tool, &fleet, status).map(|()| took).map_err(|why| {
        let said = std::fs::read_to_string(&output).unwrap_or_default();
        let tail: Vec<_> = said.lines().rev().take(25).collect();
        format!("{why}\n{}", tail.into_iter().rev().map(|line| format!("    | {line}\n")).collect::<String>())
    })
}

fn judge(tool: Tool, fleet: &Fleet, status: ExitStatus) -> Result<(), String> {
    let faults = if tool.rotates() { fleet.faults() } else { Vec::new() };
    match (status.success(), faults.first()) {
        (true, None) => Ok(()),
        (false, None) => Err(format!("it ended with {status}")),
        (_, Some(first)) => Err(format!("it ended with {status}, and {} hosts are wrong: {first}", faults.len())),
    }
}

/// The running delay line.
struct Line(Child);

impl Line {
    fn start(rtt: u64, hosts: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["delay", &rtt.to_string(), &hosts.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its output is read a byte at a time, so that nothing is lost between the two looks at it.
        let mut ready = String::new();
        BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready", "the delay line does not stand");
        Self(child)
    }

    fn end(mut self) -> Counted {
        drop(self.0.stdin.take());
        let mut said = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let _ = self.0.wait();
        let mut numbers = said.trim().split(' ').map(|word| word.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        Counted { connections: next(), turns: next(), up: next(), down: next() }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
