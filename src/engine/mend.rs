//! What a person types on a host that could not be put back.

use crate::model::{Become, RemotePath, RestartHow};
use crate::remote::shell::quote::words;
use crate::remote::{FileBefore, UndoRecord, UndoneRecord};

/// The commands that mend a dirty host, in order, each line only after the one before it has succeeded: first what removes the obstacle, then each record that was not undone.
///
/// `undone` says how the last undo went; where it is empty (nothing could be read), every record is written out.
#[must_use]
pub fn mend_commands(
    become_method: Become,
    state_dir: &str,
    run: &str,
    undo: &[UndoRecord],
    undone: &[UndoneRecord],
) -> Vec<String> {
    let prefix = match become_method {
        Become::None => "",
        Become::Sudo => "sudo ",
        Become::Doas => "doas ",
    };
    let mut out: Vec<String> = Vec::new();
    // What belongs together is one line, which stops at the first that fails.
    let mut push = |commands: &[String]| {
        let line: Vec<String> = commands.iter().map(|command| format!("{prefix}{command}")).collect();
        let line = line.join(" && ");
        if !out.contains(&line) {
            out.push(line);
        }
    };
    for fix in undone.iter().filter_map(|record| record.fix.clone()) {
        push(&[fix]);
    }
    let open = |record: &&UndoRecord| {
        undone.is_empty()
            || undone.iter().any(|done| {
                done.kind == record.kind()
                    && done.step == record.step()
                    && !matches!(done.status, crate::model::StepStatus::Ok | crate::model::StepStatus::Changed)
            })
    };
    for record in undo.iter().filter(open) {
        match record {
            UndoRecord::File { step, path, before, .. } | UndoRecord::Env { step, path, before: Some(before), .. } => {
                let [clear, copy, name] = put_back(state_dir, run, *step, path, before);
                push(&[clear, copy, name, sweep(path.parent(), run)]);
            }
            UndoRecord::Env { path, before: None, .. } | UndoRecord::Remove { path, .. } => {
                push(&[argv(&["rm", "-f", path.as_str()]), sweep(path.parent(), run)]);
            }
            UndoRecord::Rmdir { path, .. } => push(&[argv(&["rmdir", path.as_str()])]),
            UndoRecord::Command { script, .. } => push(&[argv(&["sh", "-c", script])]),
            UndoRecord::Service { how, was_up, .. } => push(&[service(how, *was_up)]),
            UndoRecord::Backup { id, .. } => push(&[argv(&["rm", "-rf", &format!("{state_dir}/backups/{id}")])]),
        }
    }
    out
}

/// Beside its destination, with owner and mode, and then by a rename: never a half-written file under the real name.
///
/// Others may write in that directory: what they planted under the new file's name is removed and not followed, and a
/// directory under the real name is not entered. Should it be interrupted, the sweep finds the new file by its name.
fn put_back(state_dir: &str, run: &str, step: u32, path: &RemotePath, before: &FileBefore) -> [String; 3] {
    let beside = format!("{}/.keyswap-{run}-mend.{step}", path.parent().trim_end_matches('/'));
    let (uid, gid, mode) = (before.uid.to_string(), before.gid.to_string(), format!("{:04o}", before.mode));
    let pre = format!("{state_dir}/runs/{run}/pre.{step}");
    [
        argv(&["rm", "-f", &beside]),
        argv(&["install", "-o", &uid, "-g", &gid, "-m", &mode, &pre, &beside]),
        argv(&["mv", "-fT", &beside, path.as_str()]),
    ]
}

/// What the run left beside a file: found by name, so that no shell needs to read a directory that it may not.
fn sweep(dir: &str, run: &str) -> String {
    argv(&["find", dir, "-maxdepth", "1", "-name", &format!(".keyswap-{run}*"), "-delete"])
}

fn service(how: &RestartHow, was_up: bool) -> String {
    let verb = if was_up { "restart" } else { "stop" };
    match how {
        RestartHow::Systemd { unit } => argv(&["systemctl", verb, unit]),
        RestartHow::Docker { container } => argv(&["docker", verb, container]),
        RestartHow::Compose { file, service } if was_up => {
            argv(&["docker", "compose", "-f", file.as_str(), "up", "-d", "--no-deps", "--force-recreate", service])
        }
        RestartHow::Compose { file, service } => argv(&["docker", "compose", "-f", file.as_str(), "stop", service]),
        RestartHow::Command { command, .. } => argv(&["sh", "-c", command]),
    }
}

/// Quoted where it must be, bare where it can be.
fn argv(parts: &[&str]) -> String {
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c));
    let quoted: Vec<String> =
        parts.iter().map(|part| if plain(part) { (*part).to_owned() } else { words(&[(*part).to_owned()]) }).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::StepStatus;

    #[test]
    fn a_read_only_directory_is_made_writable_first_and_the_rest_follows_in_order() {
        let before = FileBefore { sha: "aa".into(), uid: 1000, gid: 1000, mode: 0o600, size: 3 };
        let undo = [
            UndoRecord::File { step: 2, path: "/srv/it's/token".parse().unwrap(), before, post: "bb".into() },
            UndoRecord::Service {
                step: 4,
                how: RestartHow::Systemd { unit: "runner".into() },
                was_up: true,
                healthy: Duration::ZERO,
                timeout: Duration::ZERO,
            },
        ];
        let undone = [
            UndoneRecord {
                kind: "file".into(),
                step: 2,
                status: StepStatus::Failed,
                message: String::new(),
                fix: Some("mount -o remount,rw /srv".into()),
            },
            UndoneRecord {
                kind: "service".into(),
                step: 4,
                status: StepStatus::Skipped,
                message: String::new(),
                fix: None,
            },
        ];
        let run = "20260101-000000-abcdef";
        assert_eq!(
            mend_commands(Become::Sudo, "/var/lib/keyswap", run, &undo, &undone),
            [
                "sudo mount -o remount,rw /srv",
                "sudo rm -f '/srv/it'\\''s/.keyswap-20260101-000000-abcdef-mend.2' \
                 && sudo install -o 1000 -g 1000 -m 0600 /var/lib/keyswap/runs/20260101-000000-abcdef/pre.2 '/srv/it'\\''s/.keyswap-20260101-000000-abcdef-mend.2' \
                 && sudo mv -fT '/srv/it'\\''s/.keyswap-20260101-000000-abcdef-mend.2' '/srv/it'\\''s/token' \
                 && sudo find '/srv/it'\\''s' -maxdepth 1 -name '.keyswap-20260101-000000-abcdef*' -delete",
                "sudo systemctl restart runner",
            ]
        );
    }
}
