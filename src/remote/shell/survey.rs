//! Surveys to calls of the library, its lines to what was seen.

use super::host::format_word;
use super::parse::{Line, broken, refusals};
use super::quote::call;
use crate::model::{EnvFormat, Fingerprint, RestartHow};
use crate::remote::{
    Active, CallError, Copy, KnownPlace, KnownWhat, Seen, SeenEnv, SeenFile, SeenService, SeenState, Survey,
};

/// The request for these surveys.
pub(super) fn calls(surveys: &[Survey]) -> String {
    super::host::looks(surveys.iter().enumerate().map(|(n, survey)| one(&n.to_string(), survey)))
}

fn one(n: &str, survey: &Survey) -> String {
    let key = |key: &Option<String>| key.clone().unwrap_or_else(|| "-".to_owned());
    match survey {
        Survey::File { path } => call("ks_survey_file", [n, path.as_str()]),
        Survey::Env { path, format, key: pointer, outranking } => {
            let (pointer, outranking) = (key(pointer), outranking.join(" "));
            let words = [n, path.as_str(), format_word(*format), &pointer, &outranking];
            call("ks_survey_env", words)
        }
        Survey::Service { how, key: pointer, outranking } => {
            let [kind, a, b, _] = super::host::service_words(how);
            let (pointer, outranking) = (key(pointer), outranking.join(" "));
            call("ks_survey_service", [n, kind, a, b, &pointer, &outranking])
        }
        Survey::State => call("ks_survey_state", [n]),
        Survey::Known => call("ks_survey_known", [n]),
        Survey::Search { dir, prefixes } => call("ks_survey_search", [n, dir.as_str(), &prefixes.join(" ")]),
    }
}

/// What was seen, one for each survey.
pub(super) fn seen(surveys: &[Survey], lines: &[Line]) -> Result<Vec<Seen>, CallError> {
    let mut refused = refusals(surveys.len(), lines);
    let mut out = Vec::with_capacity(surveys.len());
    for (at, survey) in surveys.iter().enumerate() {
        if let Some(failure) = refused.get_mut(at).and_then(Option::take) {
            out.push(Seen::Refused(failure));
            continue;
        }
        let mine: Vec<&Line> = lines.iter().filter(|line| line.get("n") == at.to_string()).collect();
        let first = |tag: &str| {
            let found = mine.iter().find(|line| line.is(tag)).copied();
            found.ok_or_else(|| broken(&format!("survey {at} was not answered with `{tag}`")))
        };
        out.push(match survey {
            Survey::File { .. } => Seen::File(file(first("file")?)?),
            Survey::Env { .. } => {
                let target = mine.iter().find(|line| line.is("target"));
                Seen::Env(env(first("env")?, target.copied())?)
            }
            Survey::Service { .. } => Seen::Service(service(first("service")?)),
            Survey::State => {
                let line = first("state")?;
                let copies =
                    mine.iter().filter(|line| line.is("copy")).map(|line| copy(line)).collect::<Result<_, _>>()?;
                let word = |key: &str| line.get(key).to_owned();
                Seen::State(SeenState {
                    phase: word("phase"),
                    run: word("run"),
                    dirs: (word("dir"), word("real")),
                    copies,
                })
            }
            Survey::Known => {
                Seen::Known(mine.iter().filter(|line| line.is("known")).filter_map(|line| known(line)).collect())
            }
            Survey::Search { .. } => {
                let whole = first("searched")?.get("whole") == "yes";
                let stray = |line: &&Line| {
                    let (at, fingerprint) = (line.get("path").to_owned(), line.fingerprint("fp")?);
                    Ok(Copy { kind: "stray".to_owned(), at, fingerprint, age: None, of_env: false })
                };
                let found = mine.iter().filter(|line| line.is("found")).map(stray).collect::<Result<_, CallError>>()?;
                Seen::Search(found, whole)
            }
        });
    }
    Ok(out)
}

/// The copies that an answer lists.
pub(super) fn copies(lines: &[Line]) -> Result<Vec<Copy>, CallError> {
    lines.iter().filter(|line| line.is("copy")).map(copy).collect()
}

fn copy(line: &Line) -> Result<Copy, CallError> {
    Ok(Copy {
        kind: line.get("kind").to_owned(),
        at: line.get("at").to_owned(),
        fingerprint: line.fingerprint("fp")?,
        age: line.get("age").parse().ok(),
        of_env: line.get("env") == "yes",
    })
}

fn file(line: &Line) -> Result<SeenFile, CallError> {
    let fingerprint: Option<Fingerprint> = line.fingerprint("fp")?;
    let there = fingerprint.is_some();
    let number = |key: &str| if there { line.number(key) } else { Ok(0) };
    let mode = if there { u32::from_str_radix(line.get("mode"), 8).ok() } else { Some(0) };
    Ok(SeenFile {
        path: line.get("path").to_owned(),
        sha: there.then(|| line.get("sha").to_owned()),
        fingerprint,
        uid: number("uid")?,
        gid: number("gid")?,
        mode: mode.ok_or_else(|| broken("a mode that is no number"))?,
        age: line.get("age").parse().ok(),
        claims: line.some("claims"),
    })
}

fn env(line: &Line, target: Option<&Line>) -> Result<SeenEnv, CallError> {
    Ok(SeenEnv {
        path: line.get("path").to_owned(),
        is_there: line.get("there") == "yes",
        value: line.some("value"),
        target: match target {
            Some(target) => target.fingerprint("fp")?,
            None => None,
        },
        target_claims: target.and_then(|target| target.some("claims")),
        outranking: line.list("outrank"),
    })
}

fn service(line: &Line) -> SeenService {
    SeenService {
        active: Active::from_word(line.get("active")),
        pid: line.get("pid").parse().ok().filter(|pid| *pid != 0),
        age: line.get("age").parse().ok(),
        uid: line.get("uid").parse().ok(),
        stale: line.get("stale") == "yes",
        value: line.some("value"),
        sha: line.some("sha"),
        outranking: line.list("outrank"),
        detail: line.get("detail").to_owned(),
    }
}

/// A place that a run was about; `None` for what this version does not know.
fn known(line: &Line) -> Option<KnownPlace> {
    let path = || line.get("path").parse().ok();
    let what = match line.get("kind") {
        "file" => KnownWhat::File { path: path()?, post: line.get("post").to_owned() },
        "env" => {
            let format = match line.get("format") {
                "dropin" => EnvFormat::SystemdDropin,
                _ => EnvFormat::Dotenv,
            };
            KnownWhat::Env { path: path()?, format, keys: line.list("keys") }
        }
        "service" => {
            let (a, b) = (line.get("a").to_owned(), line.get("b"));
            let word = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
            let how = match line.get("how") {
                "systemd" => RestartHow::Systemd { unit: a },
                "docker" => RestartHow::Docker { container: a },
                "compose" => RestartHow::Compose { file: a.parse().ok()?, service: b.to_owned() },
                "command" => RestartHow::Command {
                    // Only looked at: nothing is restarted by what a host says.
                    command: String::new(),
                    check: word(&a),
                    pid_file: word(b).and_then(|path| path.parse().ok()),
                },
                _ => return None,
            };
            KnownWhat::Service { how, was_up: line.get("was") != "no" }
        }
        _ => return None,
    };
    Some(KnownPlace { run: line.get("run").to_owned(), ended: line.get("ended").to_owned(), what })
}
