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
        for (name, text) in [("undo", "end\n"), ("ready", "1\n"), ("ended", "new\n")] {
            fs::write(state.join("runs").join(run).join(name), text).unwrap();
        }
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

/// A host that the run had no part in, and one whose later run has an id that sorts before: nothing of a later run goes.
#[test]
fn what_a_later_run_needs_stays_whatever_its_id() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        state(dir.path());
        let words = fingerprint("test-token-elsewhere");
        let copies = |run: &str| {
            let script = format!("K=$PWD/state; ks_copies {run} remove {words}");
            self::run(shell, dir.path(), &script).0
        };
        let there = |path: &str| dir.path().join("state/runs").join(path).exists();
        let said = copies("20260104-000000-dddddd");
        assert!(said.contains("copies\trun=") && !said.contains("preimage"), "{shell:?}: {said}");
        // The last run here, as the host's own state says.
        let cas = dir.path().join("state/cas");
        let name = fs::read_dir(&cas).unwrap().next().unwrap().unwrap().path();
        fs::rename(name, cas.join("9.9.new.20260101-000000-aaaaaa.-.boot.0")).unwrap();
        let said = copies("20260103-000000-cccccc");
        assert!(said.contains("copies\trun="), "{shell:?}: {said}");
        assert!(there("20260101-000000-aaaaaa/pre.1"), "{shell:?}: {said}");
        assert!(!there("20260102-000000-bbbbbb/pre.1") && !there("20260103-000000-cccccc/pre.1"), "{shell:?}: {said}");
    });
}

/// A run that was taken back here, or of which nobody knows that it was not, is not retired; who lost the race for the state is told.
#[test]
fn only_a_run_that_ended_new_is_sealed() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        state(dir.path());
        let run_dir = dir.path().join("state/runs/20260102-000000-bbbbbb");
        let seal = |verb: &str, words: &str| {
            let script = format!("K=$PWD/state; {words} ks_copies 20260102-000000-bbbbbb {verb} x");
            self::run(shell, dir.path(), &script).0
        };
        for ended in ["old\n", "dirty\n", ""] {
            fs::write(run_dir.join("ended"), ended).unwrap();
            for verb in ["look", "seal", "remove"] {
                let said = seal(verb, "");
                assert!(said.contains("did not end new"), "{shell:?} {verb}: {said}");
            }
        }
        assert!(!run_dir.join("retired").exists() && run_dir.join("pre.1").exists(), "{shell:?}");
        fs::write(run_dir.join("ended"), "new\n").unwrap();
        // Somebody else is faster, between the look and the rename.
        let lost = "ks_boot() { KS_BOOT=b; mv \"$K/cas/$KS_CUR\" \"$K/cas/9.1.armed.x.1-1-1.b.0\"; };";
        let said = seal("seal", lost);
        assert!(said.contains("gone on meanwhile"), "{shell:?}: {said}");
        assert!(!run_dir.join("retired").exists(), "{shell:?}: {said}");
        let held = seal("remove", "");
        assert!(held.contains("class=held"), "{shell:?}: {held}");
        let cas = dir.path().join("state/cas");
        fs::rename(cas.join("9.1.armed.x.1-1-1.b.0"), cas.join("9.2.new.x.-.b.0")).unwrap();
        let said = seal("seal", "");
        assert!(said.contains("copies\trun=") && run_dir.join("retired").exists(), "{shell:?}: {said}");
        let after = fs::read_dir(&cas).unwrap().next().unwrap().unwrap().file_name();
        assert!(after.to_str().unwrap().starts_with("10.3.new.x."), "{shell:?}: another epoch: {after:?}");
        assert!(run_dir.join("pre.1").exists(), "{shell:?}");
    });
}

/// Not only whole files: tokens among other words, through a link, and never a word of what is not looked for.
#[test]
fn tokens_are_found_inside_other_text_and_by_their_real_names() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir_all(real.join("sub")).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let other = token().replace("signature", "another");
        let filler = "x".repeat(40_000);
        for (name, text) in [
            ("env", format!("A=1\nINFISICAL_TOKEN=\"{}\" # note\n", token())),
            ("json", format!("{{\"token\":\"{}\"}}", token())),
            ("large", format!("{filler}\n{}\n{filler}", token())),
            ("other", format!("T={other}")),
            ("longer", format!("T={}more", token())),
        ] {
            fs::write(real.join("sub").join(name), text).unwrap();
        }
        let script = format!("ks_survey_search 0 \"$PWD/link\" {}", fingerprint(&token()));
        let (said, _) = run(shell, dir.path(), &script);
        let found: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("found\t"))
            .filter_map(|line| line.split("path=").nth(1))
            .collect();
        let at = |name: &str| real.join("sub").join(name).display().to_string();
        assert_eq!(found.len(), 3, "{shell:?}: {said}");
        for name in ["env", "json", "large"] {
            assert!(
                found.iter().any(|found| found.starts_with(&format!("{}\t", at(name)))),
                "{shell:?} {name}: {said}"
            );
        }
        assert_eq!(field(&said, "searched", "whole"), "yes", "{shell:?}: {said}");
        assert!(!said.contains("eyJ"), "{shell:?}: {said}");
    });
}

/// What find says of a directory that it cannot enter makes the search less than whole. (As root everything can be read.)
#[test]
fn a_search_that_could_not_look_everywhere_says_so() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/plain"), SHORT).unwrap();
        let search = |words: &str| {
            let script = format!("{words} ks_survey_search 0 \"$PWD/in\" {}", fingerprint(SHORT));
            field(&run(shell, dir.path(), &script).0, "searched", "whole")
        };
        assert_eq!(search(""), "yes", "{shell:?}");
        let says = |what: &str| format!("ks_bounded() {{ shift; \"$@\"; echo \"find: ./x: {what}\" >&2; return 1; }};");
        assert_eq!(search(&says("No such file or directory")), "yes", "{shell:?}");
        assert_eq!(search(&says("Permission denied")), "no", "{shell:?}");
        assert_eq!(search("ks_bounded() { return 124; };"), "no", "{shell:?}");
    });
}

/// A run that was taken back left nothing; of each it is told how it ended.
#[test]
fn of_each_run_it_is_known_how_it_ended() {
    in_every_shell(|shell| {
        let dir = tempfile::tempdir().unwrap();
        state(dir.path());
        for run in ["20260101-000000-aaaaaa", "20260102-000000-bbbbbb", "20260103-000000-cccccc"] {
            let text = "'file' '1' '/srv/token' 'pre' '0' '0' '600' '4' 'post'\n'service' '2' 'no' '1' '2' 'systemd' 'r' '-' '-'\nend\n";
            fs::write(dir.path().join("state/runs").join(run).join("undo"), text).unwrap();
        }
        fs::write(dir.path().join("state/runs/20260102-000000-bbbbbb/ended"), "old\n").unwrap();
        fs::remove_file(dir.path().join("state/runs/20260101-000000-aaaaaa/ended")).unwrap();
        let (said, _) = run(shell, dir.path(), "K=$PWD/state; ks_survey_known 0");
        let ended: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("kind=file"))
            .filter_map(|line| line.split('\t').find_map(|part| part.strip_prefix("ended=")))
            .collect();
        assert_eq!(ended, ["", "old", "new"], "{shell:?}: {said}");
        assert!(
            said.lines().filter(|line| line.contains("kind=service")).all(|line| line.ends_with("was=no")),
            "{said}"
        );
    });
}
