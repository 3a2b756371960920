//! The rules themselves, each a function from a file to what is wrong with it.

use super::source::{PathUse, Token, paths, tokens};

/// A module of the crate and the modules that it may use, which stand above it: so no two use each other.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("event", &["model"]),
    ("secret", &["model"]),
    ("journal", &["event", "model"]),
    ("load", &["model"]),
    ("report", &["event", "journal", "model", "secret"]),
    ("remote", &["model"]),
    ("service", &["model"]),
    ("step", &["model", "remote", "secret", "service"]),
    ("approval", &["model", "remote"]),
    ("plan", &["model", "remote", "step"]),
    ("engine", &["event", "journal", "model", "remote", "secret", "step"]),
    ("rollout", &["engine", "event", "journal", "model", "plan", "remote", "step"]),
    ("sandbox", &["model"]),
    (
        "cli",
        &[
            "approval", "engine", "event", "journal", "load", "model", "plan", "remote", "report", "rollout",
            "sandbox", "secret", "service", "step",
        ],
    ),
];

/// Crates, and the only places of `src` that know them.
const CRATES: &[(&str, &[&str])] = &[
    ("axum", &["src/sandbox/"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("reqwest", &["src/service/"]),
    ("russh", &["src/remote/ssh/", "src/sandbox/"]),
];

/// The process's own world: its environment, streams and exit. Ends of paths, for the edge only.
const WORLD: &[&[&str]] = &[
    &["std", "env"],
    &["process", "exit"],
    &["ExitCode"],
    &["io", "stdin"],
    &["io", "stdout"],
    &["io", "stderr"],
    &["anstream", "stdout"],
    &["anstream", "stderr"],
    &["stdio", "stdout"],
    &["stdio", "stderr"],
];
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];
const EDGE: &[&str] = &["src/cli/", "src/main.rs"];

/// The longest file.
pub(crate) const MOST_LINES: usize = 600;

/// What is wrong, and in which line.
pub(crate) type Wrong = (usize, String);

/// The layers hold, crates stay in their places, and only the edge knows the process's world. `path` is the file's from
/// the top of the repository, `source` its tokens without tests.
pub(crate) fn layers(path: &str, source: &[Token]) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let module = own_module(path);
    let own = module.first().map(String::as_str);
    let may_use = own.map(|own| LAYERS.iter().find(|(name, _)| *name == own).map(|(_, may_use)| *may_use));
    if may_use == Some(None) {
        wrong.push((1, format!("src/{} stands in no layer: say in LAYERS what it may use", own.unwrap_or_default())));
    }
    let is_edge = EDGE.iter().any(|edge| path.starts_with(edge));
    for used in paths(source) {
        if let (Some(Some(may_use)), Some(target)) = (may_use, target(&module, &used))
            && Some(target) != own
            && LAYERS.iter().any(|(name, _)| *name == target)
            && !may_use.contains(&target)
        {
            wrong.push((used.line, format!("{} may not use {target}", own.unwrap_or_default())));
        }
        for (name, places) in CRATES {
            if used.parts.first().is_some_and(|first| first == name) && !places.iter().any(|p| path.starts_with(p)) {
                wrong.push((used.line, format!("the crate {name} is for {} only", places.join(" and "))));
            }
        }
        if !is_edge {
            wrong.extend(world(&used).map(|what| (used.line, format!("{what} is for {} only", EDGE.join(" and ")))));
        }
    }
    wrong
}

/// The modules a file is in: `src/step/place.rs` is in `step`, `place`.
fn own_module(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).map(str::to_owned).collect()
}

/// The module of the crate that a path leads to.
fn target<'a>(module: &[String], used: &'a PathUse) -> Option<&'a str> {
    let supers = used.parts.iter().take_while(|part| *part == "super").count();
    let rooted = used.parts.first().is_some_and(|first| first == "crate") || (supers > 0 && supers == module.len());
    let at = if supers > 0 { supers } else { 1 };
    if rooted { used.parts.get(at).map(String::as_str) } else { None }
}

fn world(used: &PathUse) -> Option<String> {
    let text = used.parts.join("::");
    if used.is_macro && used.parts.last().is_some_and(|name| PRINTING.contains(&name.as_str())) {
        return Some(format!("{text}!"));
    }
    let holds = |end: &&[&str]| used.parts.windows(end.len()).any(|window| *window == **end);
    WORLD.iter().any(holds).then_some(text)
}

/// What no file may hold, test or not.
pub(crate) fn forbidden(source: &str) -> Vec<Wrong> {
    let all = tokens(source);
    let mut wrong = Vec::new();
    for used in paths(&all) {
        if used.is_macro && used.parts.last().is_some_and(|name| name == "todo" || name == "unimplemented") {
            wrong.push((used.line, format!("{}! is left", used.parts.join("::"))));
        }
    }
    for (at, token) in all.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |at| all[at].text.as_str());
        let after = all.get(at + 1).map_or("", |token| token.text.as_str());
        if token.text == "allow" && after == "(" && (before == "[" || before == ",") {
            wrong.push((token.line, "a lint is allowed: use #[expect(…, reason = \"…\")]".to_owned()));
        }
    }
    wrong
}

/// A file says at its head what it is for. A module's `tests.rs` says it by its name.
pub(crate) fn head(path: &str, source: &str) -> Vec<Wrong> {
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let first = source.lines().next().unwrap_or_default();
    let said = first.strip_prefix("//!").is_some_and(|text| text.trim().len() > 8);
    if said { Vec::new() } else { vec![(1, "the file does not begin by saying what it is for (//! …)".to_owned())] }
}

/// No file is longer than can be read.
pub(crate) fn length(source: &str) -> Vec<Wrong> {
    let lines = source.lines().count();
    if lines <= MOST_LINES { Vec::new() } else { vec![(lines, format!("{lines} lines, {MOST_LINES} are the most"))] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer_faults(path: &str, source: &str) -> Vec<String> {
        layers(path, &tokens(source)).into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    #[test]
    fn no_two_layers_use_each_other() {
        for (at, (name, may_use)) in LAYERS.iter().enumerate() {
            let above = |used: &&str| LAYERS[..at].iter().any(|(name, _)| name == used);
            assert!(may_use.iter().all(above), "{name} may use only what stands above it");
        }
    }

    #[test]
    fn an_upward_use_is_wrong_however_it_is_written() {
        for source in [
            "use crate::engine::Saga;",
            "use crate::{model::A, engine};",
            "use super::super::engine::Saga;",
            "fn f(x: crate::engine::Saga) {}",
            "pub(crate) use crate::{\n    engine::Saga,\n};",
        ] {
            assert_eq!(layer_faults("src/step/place.rs", source).len(), 1, "{source}");
        }
        assert_eq!(layer_faults("src/step/mod.rs", "use super::engine::Saga;"), ["1: step may not use engine"]);
        assert_eq!(layer_faults("src/a/b.rs", "").len(), 1, "a module without a layer");
    }

    #[test]
    fn a_downward_or_inner_use_is_right() {
        for source in [
            "use crate::{model::A, remote::Host, secret};",
            "use super::engine::Own;",
            "use crate::step::engine;",
            "// crate::engine\nlet x = \"crate::engine\";",
            "mod engine {}",
        ] {
            assert_eq!(layer_faults("src/step/place.rs", source), [""; 0], "{source}");
        }
        assert_eq!(
            layer_faults("src/cli/run.rs", "use crate::engine; use std::env; println!(); use clap::Parser;").len(),
            0
        );
        assert_eq!(layer_faults("src/remote/ssh/auth.rs", "use russh::client;").len(), 0);
        assert_eq!(layer_faults("src/main.rs", "use keyswap::cli; use std::process::ExitCode;").len(), 0);
    }

    #[test]
    fn crates_and_the_world_stay_in_their_places() {
        for (path, source) in [
            ("src/remote/host.rs", "use russh::client::Handle;"),
            ("src/remote/host.rs", "fn f() -> ::russh::Error {}"),
            ("src/step/http.rs", "reqwest::get(x)"),
            ("src/model/name.rs", "#[derive(clap::ValueEnum)] enum A {}"),
            ("src/secret/mod.rs", "let x = std::env::var(y);"),
            ("src/secret/mod.rs", "use std::{env, fs};"),
            ("src/report/mod.rs", "println!(\"{x}\");"),
            ("src/report/mod.rs", "anstream::eprintln!(\"{x}\");"),
            ("src/report/mod.rs", "let out = std::io::stdout();"),
            ("src/report/mod.rs", "use std::io::{self, stderr};"),
            ("src/engine/mod.rs", "std::process::exit(3)"),
            ("src/lib.rs", "println!()"),
        ] {
            assert_eq!(layer_faults(path, source).len(), 1, "{path}: {source}");
        }
        assert_eq!(layer_faults("src/engine/mod.rs", "let a = out.stdout; env!(\"X\"); x.clap();").len(), 0);
    }

    #[test]
    fn what_is_forbidden_is_seen() {
        for source in [
            "#[allow(dead_code)] fn f() {}",
            "#![allow(dead_code)]",
            "#[cfg_attr(test, allow(dead_code))] fn f() {}",
            "fn f() { todo!() }",
            "fn f() { std::unimplemented!(\"x\") }",
        ] {
            assert_eq!(forbidden(source).len(), 1, "{source}");
        }
        assert_eq!(
            forbidden("#[expect(dead_code, reason = \"x\")] // #[allow(x)] todo!()\nfn allow() { s.allow(1) }"),
            []
        );
    }

    #[test]
    fn heads_and_lengths_are_seen() {
        assert_eq!(head("src/a.rs", "//! What it is for.\n"), []);
        assert_eq!(head("src/a.rs", "//! x\n").len(), 1);
        assert_eq!(head("src/a.rs", "use a;\n//! What it is for.\n").len(), 1);
        assert_eq!(head("src/a.rs", "").len(), 1);
        assert_eq!(length(&"x\n".repeat(MOST_LINES)), []);
        assert_eq!(length(&"x\n".repeat(MOST_LINES + 1)).len(), 1);
    }
}
