//! What a person sees in a real terminal: tmux runs the program at several sizes, and its screen is read.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KEYSWAP: &str = env!("CARGO_BIN_EXE_keyswap");

/// A terminal of a tmux server of its own, which ends with the test.
struct Tmux {
    dir: tempfile::TempDir,
}

impl Tmux {
    /// Runs a shell's command line; the terminal stays when it has ended, with `exit N` below what it said.
    fn run(width: u16, height: u16, line: &str) -> Self {
        let tmux = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(tmux.dir.path().join("conf"), "set -g history-limit 20000\nset -g status off\n").unwrap();
        let line = format!("trap : INT; unset CI NO_COLOR; {line}; echo exit $?; exec sleep 1000");
        let (width, height) = (width.to_string(), height.to_string());
        tmux.tell(&["new-session", "-d", "-x", &width, "-y", &height, "sh", "-c", &line]);
        tmux
    }

    fn tell(&self, args: &[&str]) -> String {
        let dir = self.dir.path();
        let out = Command::new("tmux")
            .args(["-u", "-S", dir.join("socket").to_str().unwrap(), "-f", dir.join("conf").to_str().unwrap()])
            .args(args)
            .env("TERM", "xterm-256color")
            .output()
            .expect("tmux can be run: tests/setup installs it");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What is on the screen now.
    fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }

    /// All that was ever on it and was not drawn over.
    fn all(&self) -> String {
        self.tell(&["capture-pane", "-p", "-J", "-S", "-"])
    }

    /// Waits until the screen is as wanted, for at most a minute and a half.
    fn wait_for(&self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let screen = self.screen();
            if seen(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}:\n{}", self.all());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn resize(&self, width: u16, height: u16) {
        self.tell(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    fn cursor_is_seen(&self) -> bool {
        self.tell(&["display-message", "-p", "#{cursor_flag}"]).trim() == "1"
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.dir.path().join("socket");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

/// The line of the fleet with its bar, which is only seen live.
fn is_bar(line: &str) -> bool {
    line.contains(" hosts  [") || line.starts_with("looking at the hosts")
}

fn is_way_back(line: &str) -> bool {
    line.starts_with("Ctrl-C: stop") || line.contains("; Ctrl-C ends it")
}

fn count(text: &str, wanted: impl Fn(&str) -> bool) -> usize {
    text.lines().filter(|line| wanted(line)).count()
}

/// What holds of every run that is over: nothing that was live is left, what stays was said once.
fn assert_settled(tmux: &Tmux, last: &str) {
    tmux.wait_for("the end", |screen| screen.lines().any(|line| line.starts_with("exit ")));
    let all = tmux.all();
    assert_eq!(count(&all, is_bar) + count(&all, is_way_back), 0, "{all}");
    assert_eq!(count(&all, |line| line == "recap"), 1, "{all}");
    assert_eq!(count(&all, |line| line.starts_with(last)), 1, "{all}");
    assert!(tmux.cursor_is_seen());
}

fn demo(width: u16, height: u16) -> Tmux {
    Tmux::run(width, height, &format!("{KEYSWAP} demo --hosts 3"))
}

/// The demo's own story: one host, then the rest, of which one fails and goes back.
fn assert_demo(tmux: &Tmux) {
    let running = tmux.wait_for("the second batch", |screen| {
        screen.lines().any(|line| line.starts_with("batch 2/2, 1/4 hosts  [="))
            && screen.contains("4. Restart the runner")
    });
    let rows: Vec<&str> = running.lines().collect();
    let bar = rows.iter().position(|row| row.starts_with("batch 2/2, 1/4 hosts  [")).unwrap();
    assert!(rows[bar + 2].starts_with("Ctrl-C: stop, put this batch back"), "{running}");
    assert!(rows[bar + 3..].iter().all(|row| row.is_empty()), "it is the lowest: {running}");
    assert!(rows[..bar].iter().any(|row| row.starts_with("runner-")), "{running}");
    assert!(tmux.cursor_is_seen());
    assert_settled(tmux, "batch 2/2, 4/4 hosts: 3 changed, 1 rolled-back");
    let all = tmux.all();
    for once in [
        "runner-4  failed       4. Restart the runner: ",
        "runner-4  undo         rolling back: ",
        "batch 1/2 settled, 1/4 hosts",
    ] {
        assert_eq!(count(&all, |line| line.starts_with(once)), 1, "{once}: {all}");
    }
    // What went well was only seen live.
    assert_eq!(count(&all, |line| line.contains("changed      4. Restart the runner (")), 0, "{all}");
    assert_eq!(count(&all, |line| line == "exit 0"), 1, "{all}");
}

#[test]
fn the_demo_is_seen_live_at_80_by_24() {
    assert_demo(&demo(80, 24));
}

#[test]
fn the_demo_is_seen_live_at_160_by_50() {
    assert_demo(&demo(160, 50));
}

#[test]
fn a_window_that_changes_its_size_keeps_no_pieces() {
    let tmux = demo(100, 30);
    let bars = |screen: &str| count(screen, is_bar);
    for (width, height) in [(46, 16), (120, 40), (30, 8), (80, 24)] {
        tmux.wait_for("a frame", |screen| bars(screen) == 1);
        tmux.resize(width, height);
        let fits = |line: &str| line.chars().count() < usize::from(width);
        tmux.wait_for("a frame of the new size", |screen| {
            bars(screen) == 1 && screen.lines().filter(|l| is_way_back(l)).all(fits)
        });
    }
    assert_settled(&tmux, "batch 2/2, 4/4 hosts: 3 changed, 1 rolled-back");
}

/// Throw-away hosts, until this is dropped.
struct Sandbox {
    child: Child,
    run: String,
}

impl Sandbox {
    fn start(hosts: u16) -> Self {
        use std::io::BufRead;
        let mut child = Command::new(KEYSWAP)
            .args(["sandbox", "--hosts", &hosts.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let wanted = |line: &String| line.starts_with("  keyswap run ") && !line.contains("--check");
        let run = lines.into_iter().find(wanted).expect("it says what to try");
        let run = run.trim().strip_prefix("keyswap").unwrap().to_owned();
        Self { child, run: format!("{KEYSWAP}{run}") }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.child.wait();
    }
}

#[test]
fn a_question_is_the_last_line_and_ctrl_c_leaves_the_terminal_clean() {
    let sandbox = Sandbox::start(3);
    let tmux = Tmux::run(80, 24, &sandbox.run);
    let asked = tmux.wait_for("the question", |screen| screen.contains("Change 3 hosts? [y/N]"));
    assert_eq!(asked.trim_end().lines().last(), Some("Change 3 hosts? [y/N]"), "{asked}");
    assert_eq!(count(&asked, is_bar), 0, "{asked}");
    tmux.tell(&["send-keys", "y", "Enter"]);
    tmux.wait_for("a batch", |screen| screen.lines().any(|line| line.starts_with("batch ") && is_bar(line)));
    tmux.tell(&["send-keys", "C-c"]);
    tmux.wait_for("the end", |screen| screen.contains("exit 130"));
    let all = tmux.all();
    assert!(all.contains("warning      stopping: no new step begins"), "{all}");
    assert_settled(&tmux, "batch 1/2, 1/3 hosts: 2 skipped, 1 rolled-back");
}

/// Nothing was begun: there is no journal, and none is missed.
#[test]
fn a_no_is_no_alarm() {
    let sandbox = Sandbox::start(2);
    let tmux = Tmux::run(100, 40, &sandbox.run);
    tmux.wait_for("the question", |screen| screen.contains("Change 2 hosts? [y/N]"));
    tmux.tell(&["send-keys", "n", "Enter"]);
    tmux.wait_for("the end", |screen| screen.contains("exit 130"));
    let all = tmux.all();
    assert!(!all.contains("could not be written"), "{all}");
    assert_eq!(count(&all, |line| line.contains("settled: declined")), 2, "{all}");
}

/// Ctrl-C at a hidden question is a no: the terminal shows again what is typed.
#[test]
fn ctrl_c_at_a_hidden_question_leaves_the_terminal_as_it_was() {
    let sandbox = Sandbox::start(1);
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "words", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let words: Vec<&str> = sandbox.run.split(' ').collect();
    let inventory = words.iter().skip_while(|word| **word != "-i").nth(1).unwrap();
    let playbook = dir.path().join("play.toml");
    let text = std::fs::read_to_string(words[2]).unwrap();
    let (head, tail) = text.split_once("[secrets.token]\n").unwrap();
    let (_, tail) = tail.split_once("\n\n").unwrap();
    std::fs::write(&playbook, format!("{head}[secrets.token]\nfrom = \"prompt\"\n\n{tail}")).unwrap();
    let (key, playbook) = (key.display(), playbook.display());
    for (line, question, said) in [
        (
            format!("{KEYSWAP} run {playbook} -i {inventory} --state-dir {}", dir.path().display()),
            "token`: ",
            "was not answered",
        ),
        (format!("{} -K", sandbox.run), "(sudo) on the hosts: ", "declined; nothing was changed"),
        (format!("{KEYSWAP} ping -i {inventory} --private-key {key}"), "Passphrase for ", ""),
    ] {
        let tmux = Tmux::run(160, 50, &format!("{line}; echo exit $?; stty -a"));
        tmux.wait_for(question, |screen| screen.contains(question.trim_end()));
        tmux.tell(&["send-keys", "test-token-typed", "C-c"]);
        tmux.wait_for("the end", |screen| screen.contains("exit 130") && screen.contains("echoke"));
        let all = tmux.all();
        let modes: Vec<&str> = all.split_whitespace().collect();
        for mode in ["echo", "icanon", "isig"] {
            assert!(modes.contains(&mode), "{line}: {mode}: {all}");
        }
        assert!(all.contains(said) && !all.contains("test-token-typed") && !all.contains("hint: "), "{line}: {all}");
    }
}

/// What a run writes whose one host refuses the connection: to a terminal (`script`) or a pipe.
fn written(terminal: bool, vars: &[(&str, &str)], args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("key"), "test-token-on-a-terminal\n").unwrap();
    std::fs::set_permissions(at("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(at("inventory.toml"), "[groups.runners]\nhosts = [\"runner-01\"]\n[hosts.runner-01]\naddress = \"127.0.0.1\"\nport = 1\nuser = \"ops\"\nbecome = \"none\"\n").unwrap();
    let playbook = "name = \"Rotate\"\nhosts = \"runners\"\n[secrets.token]\nfrom = \"file\"\npath = \"key\"\n[[steps]]\nname = \"Place\"\nplace = { secret = \"token\", path = \"/srv/token\", mode = \"0600\" }\n";
    std::fs::write(at("play.toml"), playbook).unwrap();
    let line = format!("{KEYSWAP} run play.toml -i inventory.toml --check --state-dir state {}", args.join(" "));
    let mut command = match terminal {
        true => Command::new("script"),
        false => Command::new("sh"),
    };
    let args: &[&str] = if terminal { &["-qec", &line, "typescript"] } else { &["-c", &line] };
    let out = command
        .args(args)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .env_remove("CI")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .envs(vars.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("runner-01") && text.contains("unreachable") && text.contains("exit 4"), "{text:?}");
    text.replace("\r\n", "\n")
}

#[test]
fn control_codes_are_for_terminals_that_want_them() {
    let codes = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
    let coloured = |text: &str| text.contains("\u{1b}[1m");
    let drawn = |text: &str| text.contains("\u{1b}[J");
    let usual = written(true, &[], &[]);
    assert!(drawn(&usual) && coloured(&usual), "{usual:?}");
    for (terminal, vars, args) in [
        (false, vec![], vec![]),
        (true, vec![("TERM", "dumb")], vec![]),
        (true, vec![("CI", "true")], vec![]),
        (true, vec![], vec!["--output", "plain"]),
    ] {
        let text = written(terminal, &vars, &args);
        assert!(!codes(&text), "{vars:?} {args:?}: {text:?}");
    }
    let text = written(true, &[("NO_COLOR", "1")], &[]);
    assert!(drawn(&text) && !coloured(&text), "{text:?}");
    let text = written(true, &[], &["--color", "never"]);
    assert!(drawn(&text) && !coloured(&text), "{text:?}");
    // Asked for, a pipe gets colours, and never anything that moves a cursor.
    let text = written(false, &[], &["--color", "always"]);
    assert!(!drawn(&text) && coloured(&text), "{text:?}");
}
