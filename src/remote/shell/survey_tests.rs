//! What an audit hears and what a retirement removes, in every shell: nothing of a token but its fingerprint and its claims.

use std::fs;
use std::path::Path;

use super::file_tests::{in_every_shell, run};

const SHORT: &str = "test-token-short";

/// A token in three parts; the middle one says whose it is.
fn token() -> String {
    "eyJhbGciOiJIUzI1NiJ9.eyJpZGVudGl0eUlkIjoiaSJ9.test-token-signature".to_owned()
}

fn fingerprint(text: &str) -> String {
    crate::model::Fingerprint::of(text.as_bytes()).hex().to_owned()
}

/// The value of a field in the line with this tag.
fn field(said: &str, tag: &str, key: &str) -> String {
    let line =
        said.lines().find(|line| line.split('\t').next() == Some(tag)).unwrap_or_else(|| panic!("{tag}: {said}"));
    let prefix = format!("{key}=");
    line.split('\t').find_map(|part| part.strip_prefix(&prefix)).unwrap_or_default().to_owned()
}

#[test]
fn only_a_token_s_claims_come_home() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, claims) in [
            ("jwt", format!("{}\n", token()), "eyJpZGVudGl0eUlkIjoiaSJ9"),
            ("crlf", format!("{}\r\n", token()), "eyJpZGVudGl0eUlkIjoiaSJ9"),
            ("short", SHORT.to_owned(), ""),
            ("four", format!("{}.x", token()), ""),
            ("odd", token().replace("test-", "te st-"), ""),
            ("lines", format!("a\n{}", token()), ""),
        ] {
            fs::write(dir.path().join(name), &text).unwrap();
            let (said, _) = run(shell, dir.path(), &format!("ks_survey_file 0 \"$PWD/{name}\""));
            assert_eq!(field(&said, "file", "claims"), claims, "{shell:?} {name}: {said}");
            assert_eq!(field(&said, "file", "fp"), fingerprint(&text), "{shell:?} {name}");
            assert!(!said.contains("test-token") && !said.contains("signature"), "{shell:?} {name}: {said}");
            assert!(field(&said, "file", "age").parse::<u64>().unwrap() < 600, "{shell:?} {name}: {said}");
        }
    });
}

#[test]
fn keys_that_outrank_a_pointer_are_named_and_no_value_is() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, SHORT).unwrap();
        let text = format!("FILE={}\nINFISICAL_TOKEN={SHORT}\n# TOKEN=x\n", path.display());
        fs::write(dir.path().join("env"), text).unwrap();
        let script = "ks_survey_env 0 \"$PWD/env\" dotenv FILE 'INFISICAL_TOKEN TOKEN'";
        let (said, _) = run(shell, dir.path(), script);
        assert_eq!(field(&said, "env", "outrank"), "INFISICAL_TOKEN", "{shell:?}: {said}");
        assert_eq!(field(&said, "env", "value"), path.to_str().unwrap(), "{shell:?}: {said}");
        assert_eq!(field(&said, "target", "fp"), fingerprint(SHORT), "{shell:?}: {said}");
        assert!(!said.contains(SHORT), "{shell:?}: {said}");
        let (said, _) = run(shell, dir.path(), "ks_survey_env 0 \"$PWD/env\" dotenv INFISICAL_TOKEN ''");
        assert_eq!(field(&said, "env", "value"), "(not shown)", "{shell:?}: {said}");
    });
}

#[test]
fn copies_are_found_whatever_their_line_ends_and_names() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("in/deep dir");
        fs::create_dir_all(&below).unwrap();
        for (name, end) in [("plain", ""), ("line", "\n"), ("dos", "\r\n"), ("it's\there", "\n")] {
            fs::write(below.join(name), format!("{SHORT}{end}")).unwrap();
        }
        fs::write(below.join("other"), "test-token-other").unwrap();
        let script = format!("ks_survey_search 0 \"$PWD/in\" {}", fingerprint(SHORT).get(..12).unwrap());
        let (said, _) = run(shell, dir.path(), &script);
        let found = said.lines().filter(|line| line.starts_with("found\t")).count();
        assert_eq!((found, field(&said, "searched", "whole").as_str()), (4, "yes"), "{shell:?}: {said}");
        assert!(said.contains("(unprintable)") && !said.contains(SHORT), "{shell:?}: {said}");
    });
}

/// A state directory after two runs: the second is retired.
fn state(dir: &Path) {
    let state = dir.join("state");
    for run in ["20260101-000000-aaaaaa", "20260102-000000-bbbbbb", "20260103-000000-cccccc"] {
        fs::create_dir_all(state.join("runs").join(run)).unwrap();
        fs::write(state.join("runs").join(run).join("pre.1"), format!("{SHORT}\n")).unwrap();
        fs::write(state.join("runs").join(run).join("pre.2"), format!("INFISICAL_TOKEN={SHORT}\n")).unwrap();
        let backup = state.join("backups").join(format!("{run}.1"));
        fs::create_dir_all(&backup).unwrap();
        let kept = if run.ends_with('c') { "test-token-later" } else { SHORT };
        fs::write(backup.join("content"), kept).unwrap();
        fs::write(backup.join("meta"), format!("/srv/token\nsha\n{}\n0 0 600\n", fingerprint(kept))).unwrap();
    }
    fs::create_dir(state.join("cas")).unwrap();
    fs::write(state.join("cas/3.1.new.20260103-000000-cccccc.-.boot.0"), "").unwrap();
    fs::write(dir.join("superseded"), SHORT).unwrap();
    fs::write(dir.join("in-use"), "test-token-later").unwrap();
    let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    fs::set_permissions(&state, private).unwrap();
}

#[test]
fn copies_go_up_to_the_run_and_no_further() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        state(dir.path());
        let words = format!("{} \"$PWD/superseded\" \"$PWD/in-use\"", fingerprint(SHORT));
        let script = |verb: &str| format!("K=$PWD/state; ks_copies 20260102-000000-bbbbbb {verb} {words}");
        let (looked, _) = run(shell, dir.path(), &script("look"));
        let count = |said: &str| said.lines().filter(|line| line.starts_with("copy\t")).count();
        assert_eq!(count(&looked), 7, "{shell:?}: {looked}");
        assert!(dir.path().join("superseded").exists());
        let (removed, _) = run(shell, dir.path(), &script("remove"));
        assert_eq!(count(&removed), 7, "{shell:?}: {removed}");
        let (again, _) = run(shell, dir.path(), &script("remove"));
        assert_eq!((count(&again), field(&again, "copies", "run").is_empty()), (0, false), "{shell:?}: {again}");
        let there = |path: &str| dir.path().join(path).exists();
        assert!(!there("superseded") && there("in-use"), "{shell:?}");
        assert!(!there("state/runs/20260101-000000-aaaaaa/pre.2"), "{shell:?}");
        assert!(there("state/runs/20260102-000000-bbbbbb/retired"), "{shell:?}");
        assert!(there("state/runs/20260103-000000-cccccc/pre.1"), "{shell:?}: a later run's way back stays");
        assert!(there("state/backups/20260103-000000-cccccc.1/meta"), "{shell:?}");
        let (no, _) = run(shell, dir.path(), "K=$PWD/state; ks_takeover 20260102-000000-bbbbbb 0 any");
        assert!(no.contains("was retired"), "{shell:?}: {no}");
    });
}
