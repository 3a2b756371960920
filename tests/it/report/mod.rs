//! `keyswap report`: the page of a real run, and of runs in which everything happens, in a real browser.
//!
//! `tests/shots report DIR` keeps the pictures that are taken here.

mod scene;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::browser::Browser;
use scene::{Stage, many, mixed};

const BASICS: &str = include_str!("basics.js");

/// Where pictures are kept, if somebody asked for them.
fn keep(name: &str, bytes: &[u8]) {
    if let Some(dir) = std::env::var_os("KEYSWAP_SHOTS") {
        fs::write(PathBuf::from(dir).join(name), bytes).unwrap();
    }
}

/// On every screen: nothing wrong with the basics, nothing wider than the screen, no request, no complaint; closed and
/// with everything open.
#[track_caller]
fn look_at(browser: &mut Browser, page: &Path, name: &str) {
    let mut grounds = Vec::new();
    for (screen, width, phone, scheme) in [
        ("phone", 390, true, "light"),
        ("phone-dark", 390, true, "dark"),
        ("desktop", 1280, false, "light"),
        ("desktop-dark", 1280, false, "dark"),
    ] {
        browser.screen(width, phone, scheme);
        browser.open(page);
        for opened in [false, true] {
            if opened {
                browser.ask("document.querySelectorAll('details').forEach((at) => { at.open = true; })");
            }
            let at = format!("{name} on {screen}{}", if opened { ", all open" } else { "" });
            assert_eq!(browser.ask(BASICS), Value::Array(Vec::new()), "{at}");
            let widths = browser.ask("[document.documentElement.scrollWidth, window.innerWidth]");
            // A phone's window grows with what does not fit into it.
            assert_eq!(widths[1], width, "{at}");
            assert!(widths[0].as_u64().unwrap() <= u64::from(width), "{at}: {widths}");
            let picture = browser.picture(if phone { 4000 } else { 6000 });
            assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{at}");
            keep(&format!("{name}-{screen}{}.png", if opened { "-open" } else { "" }), &picture);
        }
        grounds.push(browser.ask("getComputedStyle(document.body).backgroundColor"));
        assert_eq!(browser.asked_for(), [format!("file://{}", page.display())], "it asks for nothing but itself");
        assert_eq!(browser.complaints(), [""; 0]);
    }
    assert_ne!(grounds[2], grounds[3], "dark is another colour");
    let printed = browser.printed();
    assert!(printed.starts_with(b"%PDF") && printed.len() > 10_000);
    keep(&format!("{name}.pdf"), &printed);
}

#[test]
fn a_real_run_is_told_on_every_screen() {
    let stage = Stage::approved_run_with_one_that_fails();
    let (page, json) = (stage.path("report.html"), stage.path("report.json"));
    let said = stage.say(&["report", "--html", "report.html", "--json", "report.json"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""), "{}", said.all());
    stage.no_token_in(&["report.html", "report.json"]);

    let story: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((&story["status"], &story["exit_code"]), (&"rolled-back".into(), &2.into()));
    let sentence = "Of 3 hosts, 1 was put back and holds the old credential and 2 hold the new credential.";
    assert_eq!(story["sentence"], sentence);
    assert_eq!(story["approvals"][0]["by"][0]["signer"], "alice");
    assert_eq!(story["approvals"][0]["by"][0]["comment"], "looks right");
    let proof = |what: &str| {
        let proofs = story["proofs"].as_array().unwrap();
        let found = proofs.iter().find(|proof| proof["what"].as_str().unwrap().starts_with(what));
        found.unwrap_or_else(|| panic!("{what}: {proofs:#?}")).clone()
    };
    assert_eq!(proof("Secret `token`")["verdict"], "pass");
    assert!(proof("Secret `token`")["rows"].as_array().unwrap().len() > 5);
    assert_eq!(proof("The new credential was read back")["said"], "on all 2 hosts");
    assert_eq!(proof("The old credential was read back")["said"], "on the one host");
    assert!(proof("The running process")["said"].as_str().unwrap().contains("it sees there what was placed"));
    // The stand-in forge does not tell whose runner it was: the step went on, and that is said.
    assert_eq!(proof("Verify that publishing")["verdict"], "could-not-look");

    // The run's own id, and standard output, give the same.
    let run = story["run"].as_str().unwrap();
    let out = stage.say(&["report", run, "--json", "-"]);
    let mut again: Value = serde_json::from_str(&out.stdout).unwrap();
    again["told"] = story["told"].clone();
    assert!(again == story, "another story: {again:#}");

    let mut browser = Browser::start();
    look_at(&mut browser, &page, "run");
    let lead = browser.ask("document.querySelector('.lead').innerText");
    assert_eq!(lead, story["sentence"], "the sentence is what is read first");
    let rows = browser.ask("document.querySelectorAll('.host:not(.run)').length");
    assert_eq!(rows, 3, "each host has its row");
    files(&stage);
}

/// Files are replaced whole or not at all, and nothing but a plain file is.
fn files(stage: &Stage) {
    let report = |args: &[&str]| stage.say(&[&["report"], args].concat());
    assert_eq!(report(&[]).code, Some(5), "it must be told where to");
    assert_eq!(report(&["--html", "-", "--json", "-"]).code, Some(5));
    assert_eq!(report(&["--html", "one", "--json", "one"]).code, Some(5));
    assert_eq!(report(&["19990101", "--html", "one"]).code, Some(5), "no such run");
    assert!(!stage.path("one").exists());

    fs::write(stage.path("old.html"), "old").unwrap();
    std::os::unix::fs::symlink("old.html", stage.path("link.html")).unwrap();
    assert_eq!(report(&["--html", "link.html"]).code, Some(0));
    assert!(stage.path("link.html").is_symlink(), "a link stays one");
    let made = fs::read_to_string(stage.path("old.html")).unwrap();
    assert!(made.starts_with("<!DOCTYPE html>") && made.trim_end().ends_with("</html>"));
    let fifo = stage.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for there in ["pipe", ".", "/dev/null", "missing/report.html"] {
        let said = report(&["--html", there]);
        assert_eq!(said.code, Some(5), "{there}: {}", said.all());
        assert!(said.stderr.contains(there), "{}", said.all());
    }
    let left: Vec<_> = fs::read_dir(stage.dir()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".keyswap-")), "{left:?}");
}

#[test]
fn what_got_into_the_page_all_the_same_can_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/seen", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // Who connects is counted and sent away. The thread ends with the process.
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let planted = format!(
        "<script>document.title = 'taken'</script><img src='{url}' onerror=\"document.title = 'taken'\">\
         <style>@import '{url}'; body {{ background: url('{url}') }}</style><link rel=stylesheet href='{url}'>\
         <p id=planted style='color: red'>x</p></main>"
    );
    let clean = mixed();
    let poisoned = clean.replace("</main>", &planted);
    assert_ne!(poisoned, clean);
    let mut browser = Browser::start();
    let file = dir.path().join("page.html");
    fs::write(&file, &poisoned).unwrap();
    browser.open(&file);
    let colour = "getComputedStyle(document.querySelector('#planted')).color";
    assert_ne!(browser.ask("document.title"), "taken");
    assert_ne!(browser.ask(colour), "rgb(255, 0, 0)");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody was asked");
    assert!(browser.complaints().len() >= 4, "the browser says what it refused: {:?}", browser.complaints());

    // Without the policy all of it would have worked: the test can fail.
    let start = poisoned.find("<meta http-equiv=").unwrap();
    let end = start + poisoned[start..].find('\n').unwrap();
    fs::write(&file, format!("{}{}", &poisoned[..start], &poisoned[end..])).unwrap();
    browser.open(&file);
    assert_eq!(browser.ask("document.title"), "taken");
    assert_eq!(browser.ask(colour), "rgb(255, 0, 0)");
    crate::support::wait_until("somebody is asked", || asked.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_night_in_which_everything_happens_and_a_thousand_hosts_are_readable() {
    let dir = tempfile::tempdir().unwrap();
    let mut browser = Browser::start();
    let file = dir.path().join("mixed.html");
    fs::write(&file, mixed()).unwrap();
    look_at(&mut browser, &file, "mixed");

    // By keyboard: each stop is seen.
    browser.screen(1280, false, "light");
    browser.open(&file);
    for stop in 0..12 {
        browser.press("Tab", 9);
        let ring = browser.ask(
            "(() => { const at = document.activeElement, of = getComputedStyle(at);
                return [at.tagName, of.outlineStyle, parseFloat(of.outlineWidth) >= 2]; })()",
        );
        assert_ne!(ring[0], "BODY", "stop {stop}");
        assert_eq!((&ring[1], &ring[2]), (&"solid".into(), &true.into()), "stop {stop}: {ring}");
    }

    // Of a thousand hosts those that went wrong stand first, and the others are folded up.
    let file = dir.path().join("many.html");
    let page = many(1000);
    assert!(page.len() < 8_000_000, "{} bytes", page.len());
    fs::write(&file, page).unwrap();
    browser.screen(390, true, "light");
    browser.open(&file);
    let look = browser.ask(
        "[document.querySelectorAll('.host:not(.run)').length, document.documentElement.scrollWidth,
          document.documentElement.scrollHeight < 20 * innerHeight, document.querySelectorAll('.group .host').length]",
    );
    assert_eq!(look, serde_json::json!([1000, 390, true, 997]));
    assert_eq!(browser.ask(BASICS), Value::Array(Vec::new()));
    keep("many-phone.png", &browser.picture(4000));
    browser.screen(1280, false, "light");
    keep("many-desktop.png", &browser.picture(4000));
}
