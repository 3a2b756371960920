//! The library's lines, typed. A line is a tag, then TAB-separated `key=value` fields; lines with other tags are noise
//! from the programs of the system and are ignored.

use super::host::Fields;
use super::survey;
use crate::model::{Fingerprint, StepStatus};
use crate::remote::{
    Acted, Active, Answer, BackFact, BackupFact, BusyFact, CallError, EditFact, EnvFact, Fact, FailClass, Failure,
    FileBefore, FileFact, HostFacts, NowFact, Op, Probe, Ran, ReachFact, RecordedRun, Revealed, RoomFact, ServiceFact,
    SocketFact, StopLimit, Undone, UndoneRecord,
};

/// One line of an answer.
pub(super) struct Line {
    tag: String,
    fields: Fields,
}

impl Line {
    pub(super) fn is(&self, tag: &str) -> bool {
        self.tag == tag
    }

    /// A field that is not empty.
    pub(super) fn some(&self, key: &str) -> Option<String> {
        Some(self.get(key)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    pub(super) fn get(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.get(key).split_whitespace().map(str::to_owned).collect()
    }

    pub(super) fn number(&self, key: &str) -> Result<u32, CallError> {
        self.get(key).parse().map_err(|_| broken(&format!("`{key}` of `{}` is no number", self.tag)))
    }

    pub(super) fn fingerprint(&self, key: &str) -> Result<Option<Fingerprint>, CallError> {
        match self.get(key) {
            "" | "absent" => Ok(None),
            hex => hex.parse().map(Some).map_err(|_| broken(&format!("`{key}` of `{}` is no digest", self.tag))),
        }
    }

    fn fingerprints(&self, key: &str) -> Result<Vec<Fingerprint>, CallError> {
        let digests = self.get(key).split_ascii_whitespace();
        let read = |hex: &str| hex.parse().map_err(|_| broken(&format!("`{key}` of `{}` is no digest", self.tag)));
        digests.map(read).collect()
    }

    fn before(&self) -> Result<Option<FileBefore>, CallError> {
        if self.get("sha") == "absent" {
            return Ok(None);
        }
        let mode = u32::from_str_radix(self.get("mode"), 8).map_err(|_| broken("a mode that is no number"))?;
        let size = self.get("size").parse().map_err(|_| broken("a size that is no number"))?;
        Ok(Some(FileBefore {
            sha: self.get("sha").to_owned(),
            uid: self.number("uid")?,
            gid: self.number("gid")?,
            mode,
            size,
        }))
    }

    fn failure(&self) -> Failure {
        Failure {
            class: FailClass::from_word(self.get("class")),
            message: self.get("message").to_owned(),
            fix: Some(self.get("fix")).filter(|fix| !fix.is_empty()).map(str::to_owned),
        }
    }
}

pub(super) fn broken(message: &str) -> CallError {
    CallError::Failed(Failure { class: FailClass::Broken, message: message.to_owned(), fix: None })
}

/// Splits an answer into lines. A status other than 0 is a failure, told by its last `fail` line.
pub(super) fn lines(status: i32, text: &str) -> Result<Vec<Line>, CallError> {
    let lines: Vec<Line> = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.split('\t');
            let tag = parts.next()?.to_owned();
            let fields = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            Some(Line { tag, fields })
        })
        .collect();
    if status == 0 {
        return Ok(lines);
    }
    match lines.iter().rev().find(|line| line.tag == "fail") {
        Some(line) => Err(line.failure().into()),
        None => {
            let tail: String = text.chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            let tail = tail.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(broken(&format!("the host's shell failed with status {status}: {tail}")))
        }
    }
}

/// The answer to an operation.
pub(super) fn answer(op: &Op, lines: &[Line]) -> Result<Answer, CallError> {
    let one = |tag: &str| {
        lines.iter().find(|line| line.tag == tag).ok_or_else(|| broken(&format!("there is no `{tag}` in the answer")))
    };
    match op {
        Op::Hello => Ok(Answer::Hello(Box::new(hello(one("hello")?)?))),
        Op::Look(probes) => facts(probes, lines).map(Answer::Facts),
        Op::Prepare { .. } => one("prepared").map(|_| Answer::Done),
        Op::Takeover { .. } | Op::Renew { .. } => Ok(Answer::Done),
        Op::Unlock { .. } => one("unlocked").map(|_| Answer::Done),
        Op::Act { .. } | Op::Peek { .. } | Op::Wait { .. } => {
            let line = one("did")?;
            Ok(Answer::Acted(Acted {
                already: line.get("how") == "already",
                left_stopped: line.get("how") == "stopped",
                process_unchecked: line.get("process") == "unchecked",
                process: line.some("process").filter(|process| process != "unchecked"),
                cut: line.get("cut").trim().to_owned(),
                output: line.get("output").to_owned(),
            }))
        }
        Op::Exec { .. } => {
            let ran = one("ran")?;
            let output = lines.iter().filter(|line| line.tag == "out").map(|line| line.get("text").to_owned());
            Ok(Answer::Ran(Ran {
                status: ran.number("status")?,
                timed_out: ran.get("timeout") == "yes",
                output: output.collect(),
                cut: ran.get("cut") == "yes",
            }))
        }
        Op::Undo { .. } => {
            let settled = one("settled")?;
            let records = lines.iter().filter(|line| line.tag == "undone").map(undone).collect::<Result<_, _>>()?;
            Ok(Answer::Undone(Undone { records, clean: settled.get("phase") == "old" }))
        }
        // What is no run's id was not made by us.
        Op::Recorded { .. } => {
            Ok(Answer::Recorded(lines.iter().filter(|line| line.tag == "recorded").filter_map(recorded).collect()))
        }
        Op::Now { .. } | Op::Commit { .. } => {
            if matches!(op, Op::Commit { .. }) {
                one("committed")?;
            }
            let now = lines
                .iter()
                .filter(|line| line.tag == "now")
                .map(|line| Ok(NowFact { path: line.get("path").to_owned(), fingerprint: line.fingerprint("fp")? }));
            now.collect::<Result<_, CallError>>().map(Answer::Now)
        }
        Op::Survey(surveys) => survey::seen(surveys, lines).map(Answer::Surveyed),
        Op::Copies { .. } => {
            one("copies")?;
            survey::copies(lines).map(Answer::Copies)
        }
        Op::Reveal { .. } => Ok(Answer::Revealed(Revealed(one("value")?.get("value").to_owned().into()))),
    }
}

fn hello(line: &Line) -> Result<HostFacts, CallError> {
    Ok(HostFacts {
        uid: line.number("uid")?,
        login: line.get("login").to_owned(),
        login_uid: line.number("login_uid")?,
        shell: line.get("shell").to_owned(),
        os: line.get("os").to_owned(),
        machine: line.get("machine").to_owned(),
        boot: line.get("boot").to_owned(),
        state_dir: line.get("state").to_owned(),
        phase: line.get("phase").to_owned(),
        run: line.get("run").to_owned(),
        by_guard: line.get("by_guard") == "yes",
        by: line.get("by").to_owned(),
        busy: line.get("busy") == "yes",
        head: line.get("head").to_owned(),
        missing: line.list("missing"),
        have: line.list("have"),
    })
}

fn recorded(line: &Line) -> Option<RecordedRun> {
    Some(RecordedRun {
        run: line.get("run").parse().ok()?,
        held: line.get("held") == "yes",
        ended: line.get("ended").to_owned(),
        head: line.get("head").to_owned(),
        manifest: Some(line.get("manifest")).filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

fn undone(line: &Line) -> Result<UndoneRecord, CallError> {
    let status = match line.get("status") {
        "ok" => StepStatus::Ok,
        "changed" => StepStatus::Changed,
        "skipped" => StepStatus::Skipped,
        _ => StepStatus::Failed,
    };
    Ok(UndoneRecord {
        kind: line.get("kind").to_owned(),
        step: line.number("step")?,
        status,
        message: line.get("message").to_owned(),
        fix: line.failure().fix,
    })
}

/// Which of so many questions were refused, and why.
pub(super) fn refusals(count: usize, lines: &[Line]) -> Vec<Option<Failure>> {
    let mut refused: Vec<Option<Failure>> = vec![None; count];
    let mut last_fail = None;
    for line in lines {
        match line.tag.as_str() {
            "fail" => last_fail = Some(line.failure()),
            "refused" => {
                let failure = last_fail.take().unwrap_or_else(|| Failure {
                    class: FailClass::Broken,
                    message: "the host's shell failed while it looked".to_owned(),
                    fix: None,
                });
                if let Some(slot) = line.number("n").ok().and_then(|n| refused.get_mut(n as usize)) {
                    *slot = Some(failure);
                }
            }
            _ => {}
        }
    }
    refused
}

/// One fact a probe. The lines of a probe carry its number; a refusal is its `fail` line and then `refused`.
fn facts(probes: &[Probe], lines: &[Line]) -> Result<Vec<Fact>, CallError> {
    let refused = refusals(probes.len(), lines);
    probes
        .iter()
        .zip(refused)
        .enumerate()
        .map(|(n, (probe, refused))| {
            if let Some(failure) = refused {
                return Ok(Fact::Refused(failure));
            }
            let n = n.to_string();
            let mine = |tag: &'static str| {
                let n = n.clone();
                lines.iter().filter(move |line| line.tag == tag && line.get("n") == n)
            };
            let first = |tag: &'static str| {
                mine(tag).next().ok_or_else(|| broken(&format!("probe {n} was not answered with `{tag}`")))
            };
            Ok(match probe {
                Probe::Room => Fact::Room(room(first("room")?)?.ok_or_else(|| broken("a room of no size"))?),
                Probe::Busy { .. } => {
                    let line = first("busy")?;
                    Fact::Busy(BusyFact {
                        looked: line.list("looked"),
                        jobs: line.list("jobs"),
                        blind: line.some("blind"),
                        stop: match line.get("stop") {
                            "infinity" => Some(StopLimit::None),
                            number => number.parse().ok().map(StopLimit::Seconds),
                        },
                    })
                }
                Probe::Back { .. } => Fact::Back(match first("back")?.get("said") {
                    "yes" => BackFact::Connected,
                    "starting" => BackFact::Starting,
                    "no" => BackFact::Silent,
                    "unregistered" => BackFact::Unregistered,
                    "unread" => BackFact::Unread,
                    _ => return Err(broken("a connection in no known words")),
                }),
                Probe::Task { .. } => {
                    let line = first("task")?;
                    let found = line.list("found").into_iter().map(|task| task.parse());
                    let found = found.collect::<Result<_, _>>().map_err(|_| broken("a task that is no number"))?;
                    Fact::Tasks(Some(found).filter(|_| line.get("read") == "yes"))
                }
                Probe::File { .. } => {
                    let line = first("file")?;
                    Fact::File(FileFact {
                        path: line.get("path").to_owned(),
                        before: line.before()?,
                        fingerprint: line.fingerprint("fp")?,
                        claims: line.some("claims"),
                        want_uid: line.number("want_uid")?,
                        want_gid: line.number("want_gid")?,
                        room: room(line)?,
                    })
                }
                Probe::Env { .. } => {
                    let line = first("env")?;
                    let edits = mine("edit")
                        .map(|edit| {
                            Ok(EditFact {
                                count: edit.number("count")?,
                                old: Some(edit.get("old")).filter(|old| !old.is_empty()).map(str::to_owned),
                                old_fingerprint: edit.fingerprint("old_fp")?,
                                gone: edit.number("gone")?,
                                held: edit.fingerprints("held")?,
                                post: edit.get("post").to_owned(),
                            })
                        })
                        .collect::<Result<_, CallError>>()?;
                    let mkdir = Some(line.get("mkdir")).filter(|dir| *dir != "-").map(str::to_owned);
                    Fact::Env(EnvFact {
                        path: line.get("path").to_owned(),
                        before: line.before()?,
                        mkdir,
                        edits,
                        room: room(line)?,
                    })
                }
                Probe::Service { .. } => Fact::Service(service(first("service")?)?),
                Probe::Backups { .. } => Fact::Backups(
                    mine("backup")
                        .map(|line| {
                            let fingerprint = line.fingerprint("fp")?.ok_or_else(|| broken("a backup of nothing"))?;
                            Ok(BackupFact {
                                id: line.get("id").to_owned(),
                                sha: line.get("sha").to_owned(),
                                fingerprint,
                                meta: meta(line.get("meta")),
                                restored: line.get("restored") == "yes",
                            })
                        })
                        .collect::<Result<_, CallError>>()?,
                ),
            })
        })
        .collect()
}

/// `OWNER GROUP MODE`
fn meta(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(' ');
    let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((uid, gid, u32::from_str_radix(parts.next()?, 8).ok()?))
}

fn room(line: &Line) -> Result<Option<RoomFact>, CallError> {
    if line.get("blocks").is_empty() {
        return Ok(None);
    }
    let number = |key: &str| {
        line.get(key).parse::<u64>().map_err(|_| broken(&format!("`{key}` of `{}` is no number", line.tag)))
    };
    Ok(Some(RoomFact {
        bytes: number("blocks")?.saturating_mul(number("block")?),
        inodes: (number("of")? > 0).then_some(number("inodes")?),
        system: line.get("system").to_owned(),
    }))
}

fn reach(line: &Line) -> Result<Option<ReachFact>, CallError> {
    if line.get("owner").is_empty() {
        return Ok(None);
    }
    let groups = line.list("groups").iter().map(|gid| gid.parse()).collect::<Result<_, _>>();
    let sockets = line.list("sockets").iter().map(|text| socket(text)).collect::<Option<_>>();
    Ok(Some(ReachFact {
        uid: line.number("owner")?,
        groups: groups.map_err(|_| broken("a group that is no number"))?,
        here: line.get("here") == "yes",
        sockets: sockets.ok_or_else(|| broken("a socket that cannot be read"))?,
    }))
}

/// `OWNER.GROUP.MODE`
fn socket(text: &str) -> Option<SocketFact> {
    let mut parts = text.split('.');
    let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(SocketFact { uid, gid, mode: u32::from_str_radix(parts.next()?, 8).ok()? })
}

fn service(line: &Line) -> Result<ServiceFact, CallError> {
    let pid = line.number("pid").ok().filter(|pid| *pid != 0);
    Ok(ServiceFact {
        active: Active::from_word(line.get("active")),
        pid,
        process: pid.map(|pid| format!("{pid}-{}", line.get("start"))),
        stale: line.get("stale") == "yes",
        pointed: match line.get("pointed") {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        },
        detail: line.get("detail").to_owned(),
        reach: reach(line)?,
    })
}
