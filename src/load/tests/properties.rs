//! Any text at all: no panic, and never a word of a secret.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::model::Vars;

const SIGNATURE: &str = "c2lnbmF0dXJlLW9mLWEtdGVzdA";
const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2lnbmF0dXJlLW9mLWEtdGVzdA";

/// Everything that can be said about a text, as an inventory, a playbook, variables or a pattern.
fn everything(text: &str) -> String {
    let mut said = String::new();
    let mut say = |error: &dyn std::fmt::Display, debug: &dyn std::fmt::Debug| {
        write!(said, "{error}\n{debug:?}\n").unwrap();
    };
    match inventory(&[("i.toml", text)]) {
        Ok(inventory) => {
            if let Err(error) = crate::load::select(&inventory, text, Some("all")) {
                say(&error, &error);
            }
        }
        Err(error) => {
            say(&error.render(true), &error);
            error.messages().for_each(|message| say(&message, &""));
        }
    }
    match playbook(text) {
        Ok(playbook) => {
            let hosts = inventory(&[("i.toml", "[hosts.h]\nvars = { x = '{{ y }}', y = 1 }")]).unwrap();
            if let Err(error) = playbook.steps_for(&hosts.hosts[0], &Vars::new()) {
                say(&error, &error);
            }
        }
        Err(error) => say(&error.render(true), &error),
    }
    if let Err(error) = crate::load::extra_vars(&[text.to_owned()], &context()) {
        say(&error, &error);
    }
    said
}

/// Pieces that make texts which come far.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("hosts = \"all\"\n".to_owned()),
        Just("[[steps]]\nname = \"x\"\n".to_owned()),
        Just("[secrets.token]\nfrom = \"prompt\"\n".to_owned()),
        Just("[groups.g]\nhosts = [\"h-[1:3]\"]\n".to_owned()),
        Just("[hosts.h]\njump = \"h\"\n".to_owned()),
        Just("[vars]\n".to_owned()),
        Just("vars = { x = \"{{ x }}\" }\n".to_owned()),
        Just("place = { secret = \"token\", path = \"{{ x }}\" }\n".to_owned()),
        Just("command = { run = \"a {{ x }} '{{ y }}'\", undo = [\"{{ x | upper }}\"] }\n".to_owned()),
        Just("when = \"x and\"\n".to_owned()),
        Just("token = ".to_owned()),
        Just("[services.forge]\nurl = ".to_owned()),
        Just("{ from = ".to_owned()),
        Just(" }\n".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("'".to_owned()),
        Just("\\\n  ".to_owned()),
        "[a-z_]{1,8} = ",
        "[\"'\\[\\]{}=,.#\\\\\n -]{1,4}",
        "\\PC{0,12}",
        any::<String>(),
    ]
}

/// Pieces of command lines: what shells take for more than itself, and words that name no program.
const SPECIAL: &[&str] = &[
    "'",
    "\"",
    "\\",
    "\\\n",
    "\n",
    "\r",
    "\u{a0}",
    "#",
    "$",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "`",
    "<",
    "<<x",
    ">",
    "|",
    "&",
    ";",
    "=",
    ":-",
    "$(",
    "${",
    "$((",
    "((",
    "))",
    "$'",
    "[[ ",
    " ]]",
    "[ ",
    " ]",
    "a[",
    "]=",
    "a=(",
    "case a in a) ",
    ";; esac",
    "\"$(",
    ")\"",
    "\"${a:-",
    "}\"",
    " ",
    " ",
    " ",
    "a",
    "a",
    "x",
    "x\n",
    ": ",
    " #",
];

fn line() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(SPECIAL), 0..9).prop_map(|pieces| pieces.concat())
}

/// Values that run something where their quotes do not hold: the file of this name is made.
const RUNS: &[&str] = &[
    "$(: >ran)\n: >ran\n",
    "'$(: >ran)\n: >ran\n'",
    "\"$(: >ran)\n: >ran\n\"",
    "`: >ran`;: >ran;",
    "\\'\n: >ran\n",
    "' \"\n: >ran\nx",
];

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in text()) {
        everything(&text);
    }

    #[test]
    fn a_planted_token_is_never_repeated(before in text(), after in text(), quoted in any::<bool>()) {
        let token = if quoted { format!("\"{JWT}\"") } else { JWT.to_owned() };
        let said = everything(&format!("{before}{token}{after}"));
        prop_assert!(!said.contains(SIGNATURE), "{}", said);
        prop_assert!(said.contains("secret") || said.contains("web token"), "it is refused: {}", said);
    }

    #[test]
    fn a_password_is_never_repeated_behind_its_key(
        before in text(),
        key in prop_oneof![Just("password"), Just("token"), Just("client_secret"), Just("forge_token")],
        value in prop_oneof![Just("\"hunter2hunter2\""), Just("hunter2hunter2"), Just("[\n\"hunter2hunter2\"]"), Just("\"hunter2hunter2")],
        after in text(),
    ) {
        let said = everything(&format!("{before}\n{key} = {value}\n{after}"));
        prop_assert!(!said.contains("hunter2"), "{}", said);
    }

    #[test]
    fn what_is_inserted_into_a_command_line_stays_one_word(value in "[^\0]{0,20}") {
        let vars = std::collections::BTreeMap::from([(
            "x",
            crate::load::template::Var { value: serde_json::json!({ "raw": value }), place: None },
        )]);
        // Templates inside the value are not the subject.
        prop_assume!(!crate::load::template::has_markup(&value));
        let scope = crate::load::template::Scope::new(vars);
        let line = scope.fill("a --b={{ x.raw }} {{ x.raw }}", crate::load::template::Mode::Shell).unwrap();
        let words = shlex::split(&line).unwrap();
        prop_assert_eq!(words, vec!["a".to_owned(), format!("--b={value}"), value]);
    }
}

proptest! {
    // Few lines are taken, and few of these are twisted: more are drawn than elsewhere.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases.saturating_mul(16),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_shell_runs_what_is_inserted(before in line(), after in line(), value in prop::sample::select(RUNS)) {
        let raw = format!("{before}{{{{ x.raw }}}}{after}");
        let vars = std::collections::BTreeMap::from([(
            "x",
            crate::load::template::Var { value: serde_json::json!({ "raw": value }), place: None },
        )]);
        let scope = crate::load::template::Scope::new(vars);
        // What is refused is not the subject; what stands around it may be no whole command.
        if let Ok(line) = scope.fill(&raw, crate::load::template::Mode::Shell) {
            let dir = tempfile::tempdir().unwrap();
            for shell in [&["dash"][..], &["bash"], &["busybox", "ash"]] {
                let program = std::path::Path::new(if shell[0] == "dash" || shell[0] == "bash" { "/bin" } else { "/usr/bin" });
                let mut command = std::process::Command::new(program.join(shell[0]));
                command.args(&shell[1..]).args(["-c", &line]).current_dir(dir.path());
                // No program is found.
                command.env_clear().env("PATH", dir.path()).stdin(std::process::Stdio::null());
                command.output().unwrap();
                prop_assert!(!dir.path().join("ran").exists(), "{shell:?} {line:?}");
            }
        }
    }
}

#[test]
fn large_and_twisted_files_are_answered_in_time() {
    let start = std::time::Instant::now();
    let size = 200_000;
    for piece in
        ["eyJ", "= ", "[a]\n", "x = 1\n", "[[steps]]\n", "deadbeefdeadbeefdeadbeefdeadbeef ", "[", "{{", "token="]
    {
        everything(&piece.repeat(size / piece.len()));
    }
    let chain: String = (0..5000).map(|n| format!("[groups.g{n}]\nchildren = ['g{}']\n", n + 1)).collect();
    let chain = format!("{chain}[groups.g5000]\n");
    assert!(everything(&chain).contains("deep"));
    assert!(start.elapsed() < std::time::Duration::from_secs(120), "{:?}", start.elapsed());
}
