//! The story in words: the sentence, the moments, what is left to do.

use super::fold::{operator, reopen};
use super::{HostStory, Level, StepStory, Story, Task};
use crate::journal::{Entry, Record, RunPhase, RunState};
use crate::model::{HostName, RunStatus};

/// What a record says of the run as a whole, in a line; `None`: it is a host's, or told elsewhere.
pub(super) fn moment(entry: &Entry) -> Option<String> {
    Some(match &entry.record {
        Record::RunStarted { command, hosts, by, .. } => {
            format!("{} began `{command}` on {}", operator(by), hosts_of(hosts.len()))
        }
        Record::PlanApproved { what, approvals, .. } => match approvals.as_slice() {
            [] => format!("`{what}` follows a plan that was made before"),
            some => {
                let who: Vec<&str> = some.iter().map(|proof| proof.signer.as_str()).collect();
                format!("`{what}` was approved by {}", list(&who))
            }
        },
        Record::TokenRequested { identity_name, .. } => format!("a token of `{identity_name}` was asked for"),
        Record::TokenMinted { fingerprint, expires, .. } => {
            format!("the token came: {fingerprint}, until {}", expires.strftime("%Y-%m-%d %H:%M UTC"))
        }
        Record::TokenRevoked { detail, .. } => format!("its token is dead: {detail}"),
        Record::StepFinished { step, status, .. } if entry.host.is_none() => {
            format!("{step}: {}", status.as_str())
        }
        Record::CommitStarted { batch, hosts } => {
            format!("batch {batch} passed everything: {} let go on the new credential", are(hosts.len()))
        }
        Record::RetireStarted { revoke, by } => {
            let also = if *revoke { ", and the old token is to be revoked" } else { "" };
            format!("{} passed the point of no return{also}", operator(by))
        }
        Record::OldRevoked { fingerprint, detail, .. } => format!("the old token {fingerprint} is dead: {detail}"),
        Record::Retired => "no copy of the old credential that the run knows is left".to_owned(),
        Record::RunFinished { status, exit_code } => {
            let code = exit_code.map(|code| format!(", exit {code}")).unwrap_or_default();
            format!("it ended: {}{code}", status.as_str())
        }
        Record::RunReopened { command, by } => format!("{} went on with `{}`", operator(by), reopen(*command)),
        _ => return None,
    })
}

/// All of it in a sentence or two.
pub(super) fn sentence(story: &Story, state: &RunState) -> String {
    let all = story.hosts.len();
    let parts: Vec<String> = story.counts.iter().map(|count| told(count.status, count.hosts, all)).collect();
    let mut text = match (story.status, parts.as_slice()) {
        ("not-begun", _) => "The run was cut off before anything was done.".to_owned(),
        (_, [one]) => format!("{}.", capital(one)),
        (_, [.., _]) => {
            let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
            format!("Of {all} hosts, {}.", list(&refs))
        }
        (_, []) => "No host belongs to it.".to_owned(),
    };
    if story.status == "cut-off" {
        text.push_str(" It was cut off and is not settled.");
    } else if story.status == "at-work" {
        text.push_str(" It is still at work.");
    } else if story.status == "interrupted" {
        text.push_str(" The operator stopped it.");
    }
    match &state.retired {
        Some(retired) if retired.finished.is_some() => {
            text.push_str(" The old credential was retired: no copy that the run knows is left.");
        }
        Some(_) => text.push_str(" The retirement of the old credential was begun and is not done."),
        None => {}
    }
    let pressing = story.left.iter().filter(|task| task.level != Level::May).count();
    if !matches!(story.status, "at-work" | "not-begun") && pressing == 0 {
        text.push_str(" Nothing is left undone.");
    }
    text
}

/// So many hosts stand so, as the end of "Of N hosts …".
fn told(status: &str, hosts: usize, all: usize) -> String {
    let number = match (hosts, all) {
        (1, 1) => "the one host".to_owned(),
        (n, all) if n == all => format!("all {n} hosts"),
        (n, _) => n.to_string(),
    };
    let (is, has, was) = if hosts == 1 { ("is", "holds", "was") } else { ("are", "hold", "were") };
    match status {
        "changed" if hosts == all => format!("{number} {has} the new credential, read back from the host"),
        "changed" => format!("{number} {has} the new credential"),
        "ok" => format!("{number} had nothing to change"),
        "rolled-back" => format!("{number} {was} put back and {has} the old credential"),
        "held" => format!("{number} failed and {was} left on the new credential on purpose"),
        "failed" => format!("{number} failed before anything was changed"),
        "dirty" => format!("{number} {is} dirty (something could not be put back)"),
        "owed" => format!("{number} {is} owed (the end state could not be read)"),
        "unreachable" => format!("{number} could not be reached"),
        "skipped" => format!("{number} {was} left alone"),
        "at-work" => format!("{number} {is} being worked on"),
        _ => format!("{number} {was} not begun"),
    }
}

/// What is left to do, the most pressing first.
pub(super) fn left(story: &Story, state: &RunState, at_work: bool) -> Vec<Task> {
    if at_work {
        return Vec::new();
    }
    let run = &story.run;
    let mut tasks: Vec<Task> =
        story.hosts.iter().filter(|host| host.status == "dirty").map(|host| dirty(host, run.as_str())).collect();
    let standing = |status: &str| -> Vec<String> {
        story.hosts.iter().filter(|host| host.status == status).map(|host| host.name.clone()).collect()
    };
    let mut add = |level: Level, hosts: Vec<String>, (title, text): (String, &str), here: &[String]| {
        tasks.push(Task { level, title, text: text.to_owned(), hosts, there: Vec::new(), here: here.to_vec() });
    };
    let owed = standing("owed");
    if state.phase == RunPhase::Open {
        let title = "The run was cut off: settle it".to_owned();
        let text = "`resume` goes forward where that is safe, `resume --back` puts the old credential back. Both look at each host first.";
        add(
            Level::Must,
            owed,
            (title, text),
            &[format!("keyswap resume {run}"), format!("keyswap resume --back {run}")],
        );
    } else if !owed.is_empty() {
        let title = format!("{} owed: look when it can be reached", capital(&are(owed.len())));
        let text =
            "The host was touched and its end state could not be read. A guard, if it has one, puts it back by itself.";
        add(Level::Must, owed, (title, text), &[format!("keyswap resume {run}")]);
    }
    if let Some(token) = state.owed_token() {
        let title = "A token may be alive although no host holds it".to_owned();
        add(
            Level::Must,
            Vec::new(),
            (title, &format!("It is {}. `resume` revokes it.", token.describe())),
            &[format!("keyswap resume {run}")],
        );
    }
    if let Some(retired) = state.retired.as_ref().filter(|retired| retired.finished.is_none()) {
        let revoke = if retired.revoke { " --revoke" } else { "" };
        let title = "The retirement was begun and is not done".to_owned();
        add(
            Level::Must,
            Vec::new(),
            (title, "It can be asked for again; there is no way back from it."),
            &[format!("keyswap retire{revoke} {run}")],
        );
    }
    let debt = unrestarted(story);
    if !debt.is_empty() {
        let title = format!("Restart the runner on {}", hosts_of(debt.len()));
        let text = "Its files were changed and no restart after that was seen: the running process may still hold the old credential. `audit` tells.";
        add(Level::Should, debt, (title, text), &["keyswap audit -i INVENTORY".to_owned()]);
    }
    let again = [
        ("unreachable", "unreachable", "could not be reached", "Nothing was changed there."),
        (
            "held",
            "failed",
            "failed and stayed new",
            "That was asked for (`on_failure`). Mend the cause and run again, or take the run back.",
        ),
        ("failed", "failed", "failed", "Nothing was changed there. The reason stands with each host."),
        (
            "rolled-back",
            "rolled-back",
            "went back to the old credential",
            "The reason stands with each host. Mend it, then run again.",
        ),
    ];
    for (status, word, what, text) in again {
        let hosts = standing(status);
        // Who asked for the way back wants nothing run again.
        let wanted = status == "rolled-back" && story.sittings.last().is_some_and(|last| last.command == "rollback");
        if hosts.is_empty() || wanted || story.command != "run" {
            continue;
        }
        let title = format!("{} {what}", hosts_of(hosts.len()));
        let again = format!("keyswap run PLAYBOOK -i INVENTORY --rerun {word} {run}");
        let here = if status == "held" { vec![again, format!("keyswap rollback {run}")] } else { vec![again] };
        add(Level::Should, hosts, (title, text), &here);
    }
    let ended_well = state.phase == RunPhase::Finished(RunStatus::Succeeded) && state.retired.is_none();
    let new: Vec<&HostName> = state.may_hold_new().collect();
    if ended_well && story.command == "run" && !new.is_empty() {
        let text = "The run can still be taken back: copies of the old credential lie on the hosts for that. When you are sure, `retire` removes them; there is no way back from there.";
        add(
            Level::May,
            Vec::new(),
            ("The old credential is not retired yet".to_owned(), text),
            &[format!("keyswap retire {run}")],
        );
    }
    tasks.sort_by_key(|task| task.level);
    tasks
}

fn dirty(host: &HostStory, run: &str) -> Task {
    let text = match host.mend.is_empty() {
        true => "Something could not be put back. Look at the host, then settle it.",
        false => "Something could not be put back. Type this on the host, in this order, then settle it.",
    };
    Task {
        level: Level::Must,
        title: format!("Mend {}", host.name),
        text: text.to_owned(),
        hosts: vec![host.name.clone()],
        there: host.mend.clone(),
        here: vec![format!("keyswap resume --back {run}")],
    }
}

/// Hosts that stay new, whose files were changed, and whose runner was to be restarted and was not after that.
fn unrestarted(story: &Story) -> Vec<String> {
    let is =
        |step: &StepStory, actions: &[&str]| step.action.as_deref().is_some_and(|action| actions.contains(&action));
    let restarts = |host: &HostStory| host.steps.iter().any(|step| is(step, &["restart"]));
    if !story.hosts.iter().any(restarts) {
        // A playbook without restarts means files that only jobs read.
        return Vec::new();
    }
    let owes = |host: &&HostStory| {
        let changed = |step: &StepStory| is(step, &["place", "point", "restore"]) && step.status == "changed";
        let last = host.steps.iter().rposition(changed);
        let done = |step: &StepStory| is(step, &["restart"]) && matches!(step.status, "changed" | "ok");
        last.is_some_and(|last| !host.steps.iter().skip(last).any(done))
    };
    let new = story.hosts.iter().filter(|host| matches!(host.status, "changed" | "held"));
    new.filter(owes).map(|host| host.name.clone()).collect()
}

pub(super) fn hosts_of(count: usize) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
}

fn are(count: usize) -> String {
    if count == 1 { "1 host is".to_owned() } else { format!("{count} hosts are") }
}

fn list(parts: &[&str]) -> String {
    match parts {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [one, other] => format!("{one} and {other}"),
        [head @ .., last] => format!("{}, and {last}", head.join(", ")),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
