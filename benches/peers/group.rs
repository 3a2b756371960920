//! A control group: what all processes of a tree used together, daemons that left it included.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A control group of our own. Dropped, it ends what is still in it, and is gone.
pub(crate) struct Group {
    /// Its directory; whoever writes `0` into `cgroup.procs` there is in it.
    pub(crate) dir: PathBuf,
    is_v2: bool,
}

impl Group {
    /// A new one, with no process in it.
    pub(crate) fn new(name: &str) -> Self {
        let (top, is_v2) = mount();
        for dir in left_behind(&top) {
            drop(Self { dir, is_v2 });
        }
        let dir = top.join(format!("keyswap-bench-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        Self { dir, is_v2 }
    }

    /// The CPU time that its processes have used, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap();
        if self.is_v2 {
            let stat = read("cpu.stat");
            let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
            return Duration::from_micros(used.parse().unwrap());
        }
        Duration::from_nanos(read("cpuacct.usage").trim().parse().unwrap())
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The memory of its processes now, in kB: what each has for itself, and once the largest shared part. No smaller than
    /// the most that any one of them ever had.
    pub(crate) fn memory(&self) -> u64 {
        let (mut own, mut shared, mut peak) = (0, 0, 0);
        for pid in self.pids() {
            let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            let mut pages = statm.split(' ').skip(1).map(|word| word.parse::<u64>().unwrap_or_default());
            if let (Some(resident), Some(mapped)) = (pages.next(), pages.next()) {
                own += resident.saturating_sub(mapped) * 4;
                shared = shared.max(mapped * 4);
            }
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
            peak = peak.max(most.and_then(|word| word.parse().ok()).unwrap_or_default());
        }
        peak.max(own + shared)
    }

    /// Ends all of its processes.
    pub(crate) fn kill(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let pids = self.pids();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.dir).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What a benchmark that was killed has left in a directory: named by its process, which is no more.
pub(crate) fn left_behind(top: &Path) -> Vec<PathBuf> {
    let is_left = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pid = name.strip_prefix("keyswap-bench-").map(|rest| rest.split('-').next().unwrap_or_default().to_owned());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_left).collect()
}

/// Where control groups with CPU times can be made, and whether they are of version 2.
fn mount() -> (PathBuf, bool) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let find = |wanted: &dyn Fn(&str) -> bool| {
        let line = mounts.lines().find(|line| line.split_once(" - ").is_some_and(|(_, kind)| wanted(kind)))?;
        Some(PathBuf::from(line.split(' ').nth(4)?))
    };
    let v2 = find(&|kind| kind.starts_with("cgroup2 ")).map(|dir| (dir, true));
    let v1 = || find(&|kind| kind.starts_with("cgroup ") && kind.contains("cpuacct")).map(|dir| (dir, false));
    v2.or_else(v1).expect("control groups are needed to measure CPU time, and none are mounted")
}
