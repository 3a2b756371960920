//! The stand-in's answers, in each server's words.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::world::{Package, Repo, Run, Version};

/// A time that has not come is the Unix epoch.
fn moment(time: Option<Timestamp>) -> String {
    time.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn page(base: &str, run: &Run) -> String {
    format!("{base}/{}/actions/runs/{}", run.dispatched.repo, run.dispatched.number)
}

/// The short name of a branch or tag.
fn short(git_ref: &str) -> &str {
    git_ref.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/")
}

/// A repository.
pub(super) fn repo(repo: &Repo, write: bool) -> Value {
    let name = repo.full_name.split('/').nth(1).unwrap_or_default();
    json!({
        "id": 1, "name": name, "full_name": repo.full_name, "private": repo.private, "archived": repo.archived,
        "has_actions": repo.actions, "default_branch": "main",
        "permissions": {"admin": write, "push": write, "pull": true},
    })
}

/// A run.
pub(super) fn run(version: Version, base: &str, run: &Run) -> Value {
    if version.is_forgejo() { forgejo_run(base, run) } else { gitea_run(base, run) }
}

fn forgejo_run(base: &str, run: &Run) -> Value {
    let d = &run.dispatched;
    let lasted = run.started.map(|from| run.stopped.unwrap_or(from).duration_since(from).as_nanos());
    let payload = json!({"inputs": d.inputs, "ref": d.git_ref, "workflow": d.workflow}).to_string();
    let mut value = json!({
        "id": d.id, "title": "Docker", "repository": {"full_name": d.repo}, "workflow_id": d.workflow,
        "index_in_repo": d.number, "trigger_user": {"id": 2, "login": run.actor}, "ScheduleID": 0,
        "prettyref": short(&d.git_ref), "is_ref_deleted": false, "commit_sha": d.commit,
        "is_fork_pull_request": false, "need_approval": run.need_approval, "approved_by": 0, "event": run.event,
        "event_payload": payload, "trigger_event": run.event, "status": run.status,
        "started": moment(run.started), "stopped": moment(run.stopped), "created": moment(Some(run.created)),
        "updated": moment(run.stopped.or(run.started)), "html_url": page(base, run),
    });
    if let (Some(nanos), Some(object)) = (lasted.filter(|nanos| *nanos != 0), value.as_object_mut()) {
        object.insert("duration".to_owned(), json!(i64::try_from(nanos).unwrap_or(i64::MAX)));
    }
    value
}

/// Gitea's pair of words for a status.
fn pair(status: &str) -> (&str, &str) {
    match status {
        "waiting" => ("queued", ""),
        "blocked" => ("waiting", ""),
        "running" => ("in_progress", ""),
        done => ("completed", done),
    }
}

fn gitea_run(base: &str, run: &Run) -> Value {
    let d = &run.dispatched;
    let (status, conclusion) = pair(run.status);
    let mut value = json!({
        "id": d.id, "url": format!("{base}/api/v1/repos/{}/actions/runs/{}", d.repo, d.id), "html_url": page(base, run),
        "display_title": "Docker", "path": format!("{}@{}", d.workflow, d.git_ref), "event": run.event,
        "run_attempt": 1, "run_number": d.number, "repository_id": 1, "head_sha": d.commit,
        "head_branch": short(&d.git_ref), "status": status, "actor": {"login": run.actor},
        "trigger_actor": {"login": run.actor}, "started_at": moment(run.started),
        "completed_at": moment(run.stopped),
    });
    if let (false, Some(object)) = (conclusion.is_empty(), value.as_object_mut()) {
        object.insert("conclusion".to_owned(), json!(conclusion));
    }
    value
}

/// A run's tasks: one for each job, once a runner has taken it. Their times are their own, not the run's.
pub(super) fn tasks(base: &str, run: &Run) -> Vec<Value> {
    let d = &run.dispatched;
    let task = |(index, name): (usize, &String)| {
        json!({
            "id": d.task + index as u64, "name": name, "head_branch": short(&d.git_ref), "head_sha": d.commit,
            "run_number": d.number, "event": run.event, "display_title": "Docker", "status": run.task_status,
            "workflow_id": d.workflow, "url": page(base, run), "created_at": moment(run.started),
            "updated_at": moment(run.stopped.or(run.started)), "run_started_at": moment(run.started),
        })
    };
    let jobs = run.jobs.iter().enumerate().filter(|(_, name)| run.taken && !run.left.contains(name));
    jobs.map(task).collect()
}

/// A run's jobs.
pub(super) fn jobs(version: Version, base: &str, run: &Run) -> Vec<Value> {
    let d = &run.dispatched;
    let taken = |name: &String| run.taken && !run.left.contains(name);
    let state = |name: &String| {
        if taken(name) {
            run.task_status
        } else if run.is_final() {
            run.status
        } else {
            "waiting"
        }
    };
    let forgejo = |(index, name): (usize, &String)| {
        json!({
            "id": d.task + index as u64 + 5000, "run_id": d.id, "attempt": 1, "handle": "", "repo_id": 1,
            "owner_id": 1, "name": name, "needs": null, "runs_on": run.labels,
            "task_id": if taken(name) { d.task + index as u64 } else { 0 }, "status": state(name),
        })
    };
    let gitea = |(index, name): (usize, &String)| {
        let (status, conclusion) = pair(state(name));
        json!({
            "id": d.task + index as u64 + 5000, "run_id": d.id, "name": name, "labels": run.labels,
            "run_attempt": 1, "head_sha": d.commit, "status": status, "conclusion": conclusion,
            "runner_id": if taken(name) { 3 } else { 0 }, "runner_name": if taken(name) { run.runner.as_str() } else { "" },
            "html_url": page(base, run), "created_at": moment(Some(run.created)),
            "started_at": moment(run.started), "completed_at": moment(run.stopped),
        })
    };
    let jobs = run.jobs.iter().enumerate();
    if version.is_forgejo() { jobs.map(forgejo).collect() } else { jobs.map(gitea).collect() }
}

/// A package's version.
pub(super) fn package(package: &Package) -> Value {
    json!({
        "id": package.id, "owner": {"login": package.owner}, "repository": null, "creator": {"login": package.creator},
        "type": "container", "name": package.name, "version": package.tag, "html_url": "",
        "created_at": moment(Some(package.created)),
    })
}
