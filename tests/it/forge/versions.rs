//! Each version from dispatch to verdict, with the endpoints that it lacks answering 404: printed as a table. Simulated
//! servers; which version has what is written here once more, from the servers' source, and not asked of the client.

use keyswap::sandbox::forge::{Ending, Outcome, StandIn, Version};
use keyswap::service::forge::{Published, VerifyError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{TOKEN, on_runner, stand_in, verify};

const VERSIONS: [Version; 11] = [
    Version::Forgejo(11),
    Version::Forgejo(12),
    Version::Forgejo(13),
    Version::Forgejo(14),
    Version::Forgejo(15),
    Version::Forgejo(16),
    Version::Forgejo(17),
    Version::Gitea(24),
    Version::Gitea(25),
    Version::Gitea(26),
    Version::Gitea(27),
];

/// An endpoint: its column, method and path, and since when Forgejo and Gitea have it (0: not at all).
type Endpoint = (&'static str, &'static str, &'static str, u32, u32);

const ENDPOINTS: [Endpoint; 9] = [
    ("dispatch", "POST", "/workflows/docker-publish.yml/dispatches", 8, 24),
    ("tasks", "GET", "/tasks", 8, 23),
    ("runs", "GET", "/runs", 12, 25),
    ("run", "GET", "/runs/RUN", 12, 25),
    ("jobs", "GET", "/runs/RUN/jobs", 16, 25),
    ("log", "GET", "/jobs/JOB/logs", 16, 24),
    ("cancel", "POST", "/runs/RUN/cancel", 16, 0),
    ("runners", "GET", "/runners", 15, 24),
    ("queue", "GET", "/runners/jobs?labels=docker", 11, 0),
];

/// Status and body of an answer.
async fn ask(forge: &StandIn, method: &str, path: &str) -> (u16, String) {
    let address = forge.url().trim_start_matches("http://").to_owned();
    let body = if method == "POST" { r#"{"ref":"refs/heads/main"}"# } else { "" };
    let request = format!(
        "{method} /api/v1/repos/owner/repo/actions{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: token {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn has(version: Version, forgejo: u32, gitea: u32) -> bool {
    match version {
        Version::Forgejo(number) => number >= forgejo,
        Version::Gitea(minor) => gitea != 0 && minor >= gitea,
    }
}

/// What a verdict says of where it ran, in a word.
fn verdict(outcome: Result<Published, VerifyError>) -> String {
    match outcome {
        Ok(published) => {
            let runner = published.jobs.iter().find_map(|job| job.runner.clone());
            let task = published.jobs.iter().find_map(|job| job.task);
            let by = runner.map(|_| "runner named").or(task.map(|_| "task for the host's log"));
            format!("published, {}", by.unwrap_or("where is not told"))
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn each_version_from_dispatch_to_verdict_without_what_it_lacks() {
    let heads: Vec<String> = ENDPOINTS.iter().map(|(name, ..)| format!("{name:>8}")).collect();
    println!("{:<12}{}  verdict", "simulated", heads.concat());
    let mut missing = 0;
    for version in VERSIONS {
        let image = format!("{}:latest", "owner/name");
        let pushed = image.clone();
        let forge =
            stand_in(version, move |_: &_| Outcome::success().on("rs2000").pushing(&pushed, &"b".repeat(64))).await;
        let spec = keyswap::model::VerifyPublish { image: Some(image), ..on_runner() };
        let verdict = verdict(verify(&forge, &spec).await.0);
        let said = forge.requests();
        let (run, job) = {
            let world = forge.world();
            (world.runs[0].dispatched.id.to_string(), (world.runs[0].dispatched.task + 5000).to_string())
        };
        let mut row = String::new();
        for (name, method, path, forgejo, gitea) in ENDPOINTS {
            let path = path.replace("RUN", &run).replace("JOB", &job);
            let (status, body) = ask(&forge, method, &path).await;
            let there = has(version, forgejo, gitea);
            assert_eq!(status != 404 || !body.starts_with("404 page"), there, "{version:?} {name}: {status} {body}");
            assert!(status != 404 || !there, "{version:?} {name}: what is there answers: {body}");
            missing += usize::from(!there);
            row += &format!("{status:>8}");
            // What is not there was not tried either: behaviour is chosen by the version.
            let bare = path.split('?').next().unwrap();
            let tried =
                said.iter().any(|request| request.split('?').next().unwrap().ends_with(&format!("actions{bare}")));
            assert!(there || !tried, "{version:?} {name}: {said:?}");
        }
        let name = match version {
            Version::Forgejo(number) => format!("Forgejo {number}"),
            Version::Gitea(minor) => format!("Gitea 1.{minor}"),
        };
        println!("{name:<12}{row}  {verdict}");
        assert!(verdict.starts_with("published"), "{version:?}: {verdict}");
    }
    println!("{} versions, {missing} missing endpoints answered 404 and were not asked for", VERSIONS.len());
}

/// A failure ends as one on each of them.
#[tokio::test]
async fn a_failed_run_is_a_failure_on_each_version() {
    for version in VERSIONS {
        let forge = super::ending(version, Ending::Failure).await;
        let verdict = verdict(verify(&forge, &on_runner()).await.0);
        assert!(verdict.contains("failed"), "{version:?}: {verdict}");
    }
}
