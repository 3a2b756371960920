//! Steps that are done once: for a batch, and for the whole run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::bench::{Fleet, Playbook, words};
use crate::support::runner_host::Said;
use crate::support::wait_until;

/// A server that steps ask. It keeps what was asked, and how the hosts stood at that moment.
struct Web {
    port: u16,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
}

/// What it answers; `Good` where nothing was said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
    Never,
}

impl Web {
    fn start(fleet: &Fleet) -> Self {
        let hosts: Vec<PathBuf> = fleet.sandbox().hosts().iter().map(|host| host.dir().to_owned()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, answers) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let (log, how) = (Arc::clone(&asked), Arc::clone(&answers));
        std::thread::spawn(move || {
            let mut never = Vec::new();
            for link in listener.incoming() {
                let Ok(mut link) = link else { return };
                let Some(path) = path_of(&link) else { continue };
                let answer = how.lock().unwrap().get(&path).copied().unwrap_or(Answer::Good);
                log.lock().unwrap().push((path, hosts.iter().map(|dir| letter(dir)).collect()));
                let status = match answer {
                    Answer::Good => "200 OK",
                    Answer::Bad => "404 Not Found",
                    Answer::Never => {
                        never.push(link);
                        continue;
                    }
                };
                let _ = write!(link, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { port, asked, answers }
    }

    fn answers(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// A step that asks it.
    fn step(&self, name: &str, once: &str) -> String {
        let url = format!("http://127.0.0.1:{}/{name}", self.port);
        format!("[[steps]]\nname = \"{name}\"\nonce = \"{once}\"\nhttp = {{ url = \"{url}\" }}\n")
    }

    /// How the hosts stood each time that it was asked for this.
    fn asked(&self, name: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let path = format!("/{name}");
        asked.iter().filter(|(asked, _)| *asked == path).map(|(_, stood)| stood.clone()).collect()
    }
}

fn path_of(link: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(link).lines();
    let first = lines.next()?.ok()?;
    for line in lines {
        if line.ok()?.is_empty() {
            break;
        }
    }
    first.split(' ').nth(1).map(|path| path.trim_start_matches('/')).map(|path| format!("/{path}"))
}

/// The phase of a host's state, by its first letter: `-` nothing was ever done there, `a`rmed, `n`ew, `o`ld.
fn letter(dir: &Path) -> char {
    let Ok(mut names) = fs::read_dir(dir.join("state/cas")) else { return '-' };
    let name = names.next().map(|entry| entry.unwrap().file_name().into_string().unwrap()).unwrap_or_default();
    name.split('.').nth(2).and_then(|phase| phase.chars().next()).unwrap_or('?')
}

/// Three hosts in batches of one and two, with a step of each kind around those of the rotation.
fn staged(web: &Web, rollout: &str) -> Playbook {
    let mut playbook = Playbook::new(rollout);
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[1, 2]");
    playbook.first = web.step("open", "run");
    playbook.late = format!("{}{}{}", web.step("batch", "batch"), web.step("close", "run"), web.step("last", "run"));
    playbook
}

/// The detail of a run's step that was skipped.
fn skipped(said: &Said, step: &str) -> Option<String> {
    let skipped = said.events.iter().find(|event| {
        event["event"] == "step-finished" && event["status"] == "skipped" && event["step"].to_string().contains(step)
    });
    skipped.map(|event| event["detail"].as_str().unwrap().to_owned())
}

#[test]
fn a_step_of_the_run_is_done_before_any_host_is_touched_or_before_the_last_batch_is_let_go() {
    let fleet = Fleet::start(3, &[]);
    let web = Web::start(&fleet);
    let said = fleet.run(&staged(&web, ""), &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    fleet.assert("NNN", &said);
    assert_eq!(web.asked("open"), ["---"], "{}", said.all());
    assert_eq!(web.asked("batch"), ["a--", "naa"], "{}", said.all());
    assert_eq!(web.asked("close"), ["naa"], "{}", said.all());
    assert_eq!(web.asked("last"), ["naa"], "{}", said.all());

    // There is nothing to verify where nothing changes.
    let again = fleet.run(&staged(&web, ""), &[]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert_eq!((web.asked("open").len(), web.asked("close").len()), (1, 1), "{}", again.all());
}

#[test]
fn a_first_step_of_the_run_that_fails_leaves_every_host_alone() {
    let fleet = Fleet::start(3, &[]);
    let web = Web::start(&fleet);
    web.answers("/open", Answer::Bad);
    let said = fleet.run(&staged(&web, "max_failures = 5"), &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(said.last()["status"], "failed", "{}", said.all());
    assert_eq!(words(&said), "skipped skipped skipped", "{}", said.all());
    fleet.assert("UUU", &said);
    assert!(web.asked("batch").is_empty() && web.asked("close").is_empty(), "{}", said.all());
    assert!(skipped(&said, "close").unwrap().contains("step 1. open"), "{}", said.all());
}

#[test]
fn a_last_step_of_the_run_that_fails_goes_as_far_back_as_the_scope_says() {
    for (scope, stands, status) in [
        ("rollback-host", "NOO", "rolled-back"),
        ("rollback-batch", "NOO", "rolled-back"),
        ("rollback-all", "OOO", "rolled-back"),
        ("hold", "NNN", "failed"),
    ] {
        let fleet = Fleet::start(3, &[]);
        let web = Web::start(&fleet);
        web.answers("/close", Answer::Bad);
        // No budget bears it: it is not the failure of one host or two.
        let said = fleet.run(&staged(&web, &format!("max_failures = 5\non_failure = \"{scope}\"")), &[]);
        assert_eq!(said.code, Some(2), "{scope}: {}", said.all());
        assert_eq!(said.last()["status"], status, "{scope}: {}", said.all());
        fleet.assert(stands, &said);
        assert_eq!(web.asked("close").len(), 1, "{scope}: {}", said.all());
        assert!(web.asked("last").is_empty(), "{scope}: {}", said.all());
    }
}

#[test]
fn a_step_of_the_run_is_done_where_no_host_of_the_last_batch_is_left() {
    // Both hosts of the last batch fail, and that is borne: what the first batch left new is verified.
    let fleet = Fleet::start(3, &[2, 3]);
    let web = Web::start(&fleet);
    let said = fleet.run(&staged(&web, "max_failures = 2"), &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    fleet.assert("NOO", &said);
    assert_eq!(web.asked("close").len(), 1, "{}", said.all());

    // After a stop it is not, and that is said.
    let fleet = Fleet::start(3, &[2, 3]);
    let web = Web::start(&fleet);
    let said = fleet.run(&staged(&web, ""), &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    fleet.assert("NOO", &said);
    assert!(web.asked("close").is_empty(), "{}", said.all());
    assert!(skipped(&said, "close").unwrap().contains("not run: runner-"), "{}", said.all());
}

#[test]
fn a_run_that_goes_on_does_not_repeat_a_step_of_the_run_and_goes_back_as_a_whole() {
    let fleet = Fleet::start(3, &[]);
    let web = Web::start(&fleet);
    web.answers("/last", Answer::Never);
    let work = fleet.begin(&staged(&web, "on_failure = \"rollback-all\""), &[]);
    wait_until("the last step waits", || !web.asked("last").is_empty());
    work.signal("KILL");
    work.end();
    web.answers("/last", Answer::Bad);
    let said = fleet.say(&["resume"]);
    assert_eq!((web.asked("open").len(), web.asked("close").len()), (1, 1), "{}", said.all());
    assert_eq!(web.asked("last").len(), 2, "{}", said.all());
    // The first batch was let go by the run that was cut off.
    assert_eq!(said.code, Some(2), "{}", said.all());
    fleet.assert("OOO", &said);
}

#[test]
fn a_step_of_a_batch_that_fails_takes_that_batch_back() {
    let fleet = Fleet::start(12, &[]);
    let web = Web::start(&fleet);
    let mut playbook = Playbook::new("on_failure = \"rollback-batch\"");
    playbook.late = web.step("batch", "batch");
    let gate = fleet.sandbox().dir().join("gate");
    // Between the first batch and the second the server changes its mind.
    playbook.early = format!(
        "[[steps]]\nname = \"gate\"\ncommand = {{ run = 'i=0; while [ ! -e {} ] && [ $i -lt 1000 ]; do sleep 0.05; i=$((i + 1)); done', changes = false }}\n",
        gate.display()
    );
    playbook.early = playbook
        .early
        .replace("[[steps]]\n", "[[steps]]\nwhen = '''home != \"{first}\"'''\n")
        .replace("{first}", &fleet.host(1).dir().display().to_string());
    let work = fleet.begin(&playbook, &[]);
    wait_until("the first batch was verified", || !web.asked("batch").is_empty());
    web.answers("/batch", Answer::Bad);
    fs::write(gate, "").unwrap();
    let said = work.end();
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(said.last()["status"], "rolled-back", "{}", said.all());
    fleet.assert("N OOO UUUUUUUU", &said);
    let skipped = ["skipped"; 8].join(" ");
    assert_eq!(words(&said), format!("changed rolled-back rolled-back rolled-back {skipped}"), "{}", said.all());
    assert_eq!(web.asked("batch"), ["a-----------", "naaa--------"], "{}", said.all());
}
