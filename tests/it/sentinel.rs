//! The sentinel finds a planted leak of each kind, and nothing where there is none.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::real_host::RealHost;
use crate::support::sentinel::trace::parse;
use crate::support::sentinel::{Finding, Form, Kind, Sentinel, Trace, needles};

/// Every character of it is written differently by some encoder.
const ODD: &str = "test-token/odd+\"quo'ted\" <&$\\> ünd\tso~fort";
const PLAIN: &str = "test-token-plain-0123456789abcdefABCDEF";

fn sentinel() -> Sentinel {
    Sentinel::new([("odd", ODD), ("plain", PLAIN)])
}

/// What is found in one output.
fn found(bytes: &[u8]) -> Vec<(String, Form)> {
    let sentinel = sentinel();
    let mut sweep = sentinel.sweep();
    sweep.output("stdout", bytes);
    assert!(sweep.findings().iter().all(|f| f.kind == Kind::Output && f.place == "stdout"));
    sweep.findings().iter().map(|f| (f.secret.clone(), f.form)).collect()
}

fn one(secret: &str, form: Form) -> Vec<(String, Form)> {
    vec![(secret.to_owned(), form)]
}

/// Another program's encoding, not our own: it encodes its standard input.
fn encoded_by(program: &[&str], input: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), input).unwrap();
    let stdin = fs::File::open(dir.path().join("in")).unwrap();
    let out = Command::new(program[0]).args(&program[1..]).stdin(stdin).output().unwrap();
    assert!(out.status.success(), "{program:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn finds_the_raw_value_in_output() {
    assert_eq!(found(format!("before {PLAIN} after").as_bytes()), one("plain", Form::Raw));
    assert_eq!(found(ODD.as_bytes()), one("odd", Form::Raw));
}

#[test]
fn finds_base64_at_every_alignment_and_width() {
    for secret in [ODD, PLAIN] {
        let label = if secret == ODD { "odd" } else { "plain" };
        for before in 0..7 {
            for after in 0..4 {
                let longer = [&vec![b'<'; before], secret.as_bytes(), &vec![b'>'; after]].concat();
                for width in ["0", "76", "19"] {
                    let text = encoded_by(&["base64", "-w", width], &longer);
                    let forms = found(&text);
                    assert!(forms.contains(&(label.to_owned(), Form::Base64)), "{before} {after} {width}: {forms:?}");
                }
            }
        }
    }
}

#[test]
fn finds_base64_of_the_url_alphabet() {
    // `~` and `?` at the right places give the characters in which the alphabets differ.
    let secret = "test-token-~~~~???>>>>";
    let sentinel = Sentinel::new([("token", secret)]);
    for before in 0..3 {
        let longer = [&vec![b'<'; before], secret.as_bytes()].concat();
        let text = encoded_by(&["basenc", "--base64url", "-w0"], &longer);
        let mut sweep = sentinel.sweep();
        sweep.output("stdout", &text);
        assert_eq!(sweep.findings().first().map(|f| f.form), Some(Form::Base64Url), "{before}");
    }
}

#[test]
fn finds_hex_of_both_cases() {
    let lower = encoded_by(&["od", "-An", "-v", "-tx1"], PLAIN.as_bytes());
    assert_eq!(found(&lower), one("plain", Form::HexLower));
    let upper = String::from_utf8(lower).unwrap().to_uppercase().replace([' ', '\n'], "");
    assert_eq!(found(upper.as_bytes()), one("plain", Form::HexUpper));
}

#[test]
fn finds_percent_escapes() {
    // As Python's `quote`, `quote_plus` and JavaScript's `encodeURI` write it, and with every byte escaped.
    for text in [
        "test-token/odd%2B%22quo%27ted%22%20%3C%26%24%5C%3E%20%C3%BCnd%09so~fort".replace('/', "%2F"),
        "test-token%2Fodd%2B%22quo%27ted%22+%3C%26%24%5C%3E+%C3%BCnd%09so~fort".to_owned(),
        "test-token/odd+%22quo'ted%22%20%3C&$%5C%3E%20%C3%BCnd%09so~fort".to_owned(),
        "test-token%2fodd%2b%22quo%27ted%22%20%3c%26%24%5c%3e%20%c3%bcnd%09so~fort".to_owned(),
        ODD.bytes().map(|b| format!("%{b:02x}")).collect(),
    ] {
        assert_eq!(found(text.as_bytes()), one("odd", Form::Percent), "{text}");
    }
}

#[test]
fn finds_json_escapes_once_and_twice() {
    let once = serde_json::to_string(ODD).unwrap();
    assert_eq!(found(once.as_bytes()), one("odd", Form::Json));
    assert_eq!(found(serde_json::to_string(&once).unwrap().as_bytes()), one("odd", Form::Json));
    let ascii = r#""test-token/odd+\"quo'ted\" <&$\\> \u00fcnd\tso~fort""#;
    assert_eq!(found(ascii.as_bytes()), one("odd", Form::Json));
    let html = r#""test-token/odd+\"quo'ted\" \u003c\u0026$\\\u003e ünd\tso~fort""#;
    assert_eq!(found(html.as_bytes()), one("odd", Form::Json));
    let base64 = encoded_by(&["base64", "-w", "20"], PLAIN.as_bytes());
    let event = serde_json::json!({ "tail": String::from_utf8(base64).unwrap() }).to_string();
    assert_eq!(found(event.as_bytes()), one("plain", Form::Base64), "wrapped base64 inside of JSON");
}

#[test]
fn finds_shell_quoting() {
    let secret = "test-token's $own";
    let sentinel = Sentinel::new([("token", secret)]);
    for quoted in [r"'test-token'\''s $own'", r#""test-token's \$own""#, r"test-token\'s\ \$own"] {
        let mut sweep = sentinel.sweep();
        sweep.output("stderr", quoted.as_bytes());
        assert_eq!(sweep.findings().first().map(|f| f.form), Some(Form::Shell), "{quoted}");
    }
    let printf = Command::new("bash").args(["-c", r#"printf %q "$1""#, "-", secret]).output().unwrap();
    let mut sweep = sentinel.sweep();
    sweep.output("stdout", &printf.stdout);
    assert_eq!(sweep.findings().len(), 1);
}

#[test]
fn finds_what_a_careless_debug_shows() {
    assert_eq!(found(format!("{ODD:?}").as_bytes()).first(), one("odd", Form::Json).first());
    for text in [format!("{:?}", PLAIN.as_bytes()), format!("{:#?}", PLAIN.as_bytes())] {
        assert_eq!(found(text.as_bytes()), one("plain", Form::ByteList), "{text}");
    }
    let quiet = "test-token-\u{200b}-unseen";
    let sentinel = Sentinel::new([("token", quiet)]);
    let mut sweep = sentinel.sweep();
    sweep.output("stdout", format!("{quiet:?}").as_bytes());
    assert_eq!(sweep.findings().first().map(|f| f.form), Some(Form::RustDebug));
}

#[test]
fn finds_half_of_it() {
    assert_eq!(found(&PLAIN.as_bytes()[..PLAIN.len() - 9]), one("plain", Form::Half));
    assert_eq!(found(&PLAIN.as_bytes()[9..]), one("plain", Form::Half));
}

#[test]
fn finds_nothing_where_there_is_nothing() {
    for clean in ["", "test-token-", "sha256:3f1c09b2a4de", "dGVzdC10b2tlbi0=", &PLAIN[..15], &"x".repeat(1 << 20)] {
        assert_eq!(found(clean.as_bytes()), [], "{clean:.40}");
    }
}

#[test]
fn finds_every_form_wherever_a_stream_is_cut() {
    for (form, needle) in needles::forms(ODD.as_bytes()) {
        for at in 0..=needle.len() {
            let matcher = super::support::sentinel::scan::Matcher::new([needle.as_slice()].into_iter());
            let mut scanner = matcher.scanner();
            scanner.feed(b"before it ");
            scanner.feed(&needle[..at]);
            scanner.feed(&needle[at..]);
            scanner.feed(b" after it");
            assert!(scanner.finish().contains(&0), "{form:?} cut at {at}");
            if at > 40 {
                break;
            }
        }
    }
}

#[test]
fn finds_files_names_and_links_but_not_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let deep = root.join("a/b");
    fs::create_dir_all(&deep).unwrap();
    fs::write(root.join("clean"), "nothing here").unwrap();
    fs::write(deep.join("token"), PLAIN).unwrap();
    // Across the border of the pieces in which a big file is read.
    fs::write(root.join("big"), [vec![b'.'; (1 << 18) - 20], PLAIN.as_bytes().to_vec(), vec![0; 1 << 19]].concat())
        .unwrap();
    fs::write(root.join(format!("name-{PLAIN}")), "").unwrap();
    symlink(format!("/nowhere/{PLAIN}"), root.join("link")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("token"), PLAIN).unwrap();
    symlink(outside.path(), root.join("way-out")).unwrap();

    let sentinel = sentinel();
    let mut sweep = sentinel.sweep();
    sweep.files(root);
    let mut seen: Vec<_> = sweep.findings().iter().map(|f| (f.kind, f.form, relative(f, root))).collect();
    seen.sort();
    let name = format!("name-{PLAIN}");
    let expected = [
        (Kind::Content, Form::Raw, "a/b/token"),
        (Kind::Content, Form::Raw, "big"),
        (Kind::Name, Form::Raw, &name),
        (Kind::Link, Form::Raw, "link"),
    ];
    assert_eq!(seen, expected.map(|(kind, form, place)| (kind, form, place.to_owned())));
    assert_eq!(sweep.looked().files, 9);
    assert!(sweep.looked().bytes > 3 << 18);
    assert!(std::panic::catch_unwind(|| sweep.assert_clean()).is_err());

    let mut sweep = sentinel.sweep();
    sweep.allow(deep.join("token"), "plain").files(root.join("a")).assert_clean();
    let mut sweep = sentinel.sweep();
    sweep.allow(deep.join("token"), "odd").files(root.join("a"));
    assert_eq!(sweep.findings().len(), 1, "the allowance is for another secret");
}

fn relative(finding: &Finding, root: &Path) -> String {
    Path::new(&finding.place).strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn objects_to_what_it_could_not_search() {
    let sentinel = sentinel();
    let mut sweep = sentinel.sweep();
    sweep.files("/nonexistent/place");
    assert_eq!(sweep.blind_spots().len(), 1);
    assert!(std::panic::catch_unwind(|| sweep.assert_clean()).is_err());
    assert!(std::panic::catch_unwind(|| sentinel.sweep().assert_clean()).is_err(), "it was shown nothing");
}

#[test]
fn finds_argv_and_environment_of_running_processes() {
    let token = "test-token-of-a-running-process";
    let sentinel = Sentinel::new([("token", token)]);
    let mut sleeper = Command::new("sh")
        .args(["-c", "echo ready; read -r line", "-", token])
        .env("LEAK", encoded_by(&["base64", "-w0"], token.as_bytes()).escape_ascii().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sleeper.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();

    let mut sweep = sentinel.sweep();
    sweep.processes();
    let mut allowed = sentinel.sweep();
    allowed.allow_process(sleeper.id()).processes();
    drop(sleeper.stdin.take());
    sleeper.wait().unwrap();

    let place = |file| format!("/proc/{}/{file}", sleeper.id());
    let seen: Vec<_> = sweep.findings().iter().map(|f| (f.kind, f.form, f.place.clone())).collect();
    assert_eq!(seen, [(Kind::Argv, Form::Raw, place("cmdline")), (Kind::Environment, Form::Base64, place("environ"))]);
    assert!(sweep.looked().processes > 1);
    allowed.assert_clean();
}

#[test]
fn traces_every_start_with_its_whole_argv_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let trace = Trace::to(dir.path().join("trace"));
    let long = "x".repeat(100_000);
    let output = trace
        .command("sh")
        .args(["-c", r#"env -i "VAR=$2" true "$1"; (exec /nonexistent/program) 2>/dev/null; true"#, "-"])
        .args([ODD, "a\"b\\c\n1\u{7}2"])
        .env("LONG", &long)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let starts = trace.starts().unwrap();
    assert_eq!(starts[0].pid, trace.pid().unwrap());
    assert!(starts[0].env.contains(&format!("LONG={long}").into_bytes()));
    let inner = starts.iter().find(|start| start.argv[0] == b"true").expect("the inner start");
    assert_eq!(inner.argv, [b"true", ODD.as_bytes()]);
    assert_eq!(inner.env, ["VAR=a\"b\\c\n1\u{7}2".as_bytes()]);
    assert!(starts.iter().any(|start| start.program == b"/nonexistent/program"), "a start that failed");

    let sentinel = sentinel();
    let mut sweep = sentinel.sweep();
    sweep.starts(&starts);
    assert!(sweep.findings().iter().any(|f| f.kind == Kind::Argv && f.secret == "odd" && f.form == Form::Raw));
    assert!(sweep.findings().iter().all(|f| f.kind == Kind::Argv));
}

#[test]
fn traces_what_running_processes_start_later() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new("mkfifo").arg(dir.path().join("in")).status().unwrap().success());
    // A parent with a child that is there already: both start programs once they are told to.
    let mut parent = Command::new("sh")
        .args(["-c", "sh -c 'read -r x <in; env ODD=\"$x\" true' & echo ready; read -r x; true; wait"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    parent.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let attached = Trace::attach(dir.path().join("trace"), &[parent.id()]).unwrap();
    fs::write(dir.path().join("in"), format!("{PLAIN}\n")).unwrap();
    drop(parent.stdin.take());
    parent.wait().unwrap();

    let starts = attached.detach().unwrap();
    let sentinel = sentinel();
    let mut sweep = sentinel.sweep();
    sweep.starts(&starts);
    let kinds: Vec<_> = sweep.findings().iter().map(|f| (f.kind, f.form)).collect();
    assert!(kinds.contains(&(Kind::Argv, Form::Raw)), "{kinds:?}");
    assert!(kinds.contains(&(Kind::Environment, Form::Raw)), "{kinds:?}");
}

#[test]
fn sees_all_of_a_real_host() {
    let token = "test-token-on-a-real-host";
    let host = RealHost::start();
    let init = host.root().iter().nth(2).unwrap().to_str().unwrap().parse().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let attached = Trace::attach(logs.path().join("trace"), &[init]).unwrap();
    let ssh = Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-p", &host.port().to_string(), "-i"])
        .arg(host.identity())
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", host.known_hosts().display()))
        .arg("ops@127.0.0.1")
        .arg(format!("umask 077; sudo -n /bin/echo {token}; echo {token} >leak; sudo -n cp leak /srv/leak"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ssh.status.success(), "{}", String::from_utf8_lossy(&ssh.stderr));
    let starts = attached.detach().unwrap();

    let sentinel = Sentinel::new([("token", token)]);
    let mut sweep = sentinel.sweep();
    sweep.allow(host.root().join("srv/leak"), "token");
    for dir in ["etc", "home", "root", "run", "srv", "tmp", "var"] {
        sweep.files(host.root().join(dir));
    }
    sweep.starts(&starts).processes();
    let places: Vec<_> = sweep.findings().iter().map(|f| f.place.clone()).collect();
    let file = host.root().join("home/ops/leak").display().to_string();
    assert!(places.contains(&file), "{places:?}");
    assert!(!places.iter().any(|place| place.contains("srv/leak") && place.starts_with("/proc")), "{places:?}");
    for program in ["/bin/echo", "/usr/bin/sudo"] {
        let seen = sweep.findings().iter().any(|f| f.kind == Kind::Argv && f.place.contains(program));
        assert!(seen, "{program}: {places:?}");
    }
    assert_eq!(sweep.blind_spots(), [""; 0]);
}

#[test]
fn refuses_to_attach_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Trace::attach(dir.path().join("trace"), &[u32::MAX]).is_err());
}

#[test]
fn refuses_a_trace_with_a_hole() {
    for (line, why) in [
        (r#"7 execve("/bin/true", ["true"...], []) = 0"#, "list cut"),
        (r#"7 execve("/bin/true", ["tr"..., "x"], []) = 0"#, "text cut"),
        (r#"7 execve("/bin/true", ["true"], 0x7ffe /* 9 vars */) = 0"#, "environment not shown"),
        (r#"7 execve("/bin/true", ["true", 0x10], []) = 0"#, "address"),
        (r#"7 execve("/bin/true", ["tr"#, "torn line"),
        ("strace: something went wrong", "not a start"),
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{why}");
    }
    let hidden = b"7 ???( <unfinished ...>\n7 <... execve resumed>) = 0\n";
    assert!(parse(hidden).is_err(), "a start whose arguments were not shown");
    let fine = "7 execve(\"/bin/true\", [\"true\"], [] <unfinished ...>\n8 execveat(3, \"\", [\"\\1\\0012\\x41\"], NULL, \
                AT_EMPTY_PATH) = 0\n7 <... execve resumed>) = 0\n7 +++ exited with 0 +++\n\
                9 ???( <detached ...>\n";
    let starts = parse(fine.as_bytes()).unwrap();
    assert_eq!(starts.len(), 2);
    assert_eq!(starts[1].argv, [b"\x01\x012A"]);
}
