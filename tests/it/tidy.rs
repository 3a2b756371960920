//! The house rules that a program can check: layers, lengths, heads, shell scripts, and that the papers are true.

mod rules;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::Wrong;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository that is ours, by its path from the top.
fn files() -> Vec<String> {
    fn walk(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if ![".git", "target"].iter().any(|skipped| path == top().join(skipped)) {
                    walk(&path, found);
                }
            } else {
                found.push(path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(top(), &mut found);
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn with_ending<'a>(files: &'a [String], ending: &'a str) -> impl Iterator<Item = &'a String> {
    files.iter().filter(move |path| path.ends_with(ending))
}

fn assert_none(wrong: &[(String, Wrong)]) {
    let said: String = wrong.iter().map(|(path, (line, what))| format!("{path}:{line}: {what}\n")).collect();
    assert!(said.is_empty(), "\n{said}");
}

#[test]
fn layers_hold() {
    let files = files();
    let sources: Vec<_> = with_ending(&files, ".rs").filter(|path| path.starts_with("src/")).collect();
    assert!(sources.len() > rules::LAYERS.len(), "the sources were not found");
    let mut test_files = BTreeSet::new();
    let mut product = Vec::new();
    for path in sources {
        match source::without_tests(&source::tokens(&read(path))) {
            None => drop(test_files.insert(PathBuf::from(path).with_extension(""))),
            Some((tokens, modules)) => {
                // `mod x;` in a/mod.rs is the file a/x.rs, in a/b.rs it is a/b/x.rs.
                let below = Path::new(path).with_extension("");
                let is_top = ["mod", "lib", "main"].iter().any(|name| below.ends_with(name));
                let below = if is_top { below.parent().unwrap().to_owned() } else { below };
                test_files.extend(modules.iter().map(|module| below.join(module)));
                product.push((path, tokens));
            }
        }
    }
    product.retain(|(path, _)| !Path::new(path).with_extension("").ancestors().any(|at| test_files.contains(at)));
    let wrong = product.iter().flat_map(|(path, tokens)| {
        rules::layers(path, tokens).into_iter().map(|wrong| ((*path).clone(), wrong)).collect::<Vec<_>>()
    });
    assert_none(&wrong.collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let files = files();
    let mut wrong = Vec::new();
    for path in with_ending(&files, ".rs") {
        let source = read(path);
        let all = [rules::head(path, &source), rules::length(&source), rules::forbidden(&source)].concat();
        wrong.extend(all.into_iter().map(|wrong| (path.clone(), wrong)));
    }
    for path in with_ending(&files, ".sh") {
        wrong.extend(rules::length(&read(path)).into_iter().map(|wrong| (path.clone(), wrong)));
    }
    assert_none(&wrong);
}

/// Shell scripts, by name or first line, with the dialect that they are written in.
fn scripts() -> Vec<(String, &'static str)> {
    let dialect = |path: &str| {
        let source = fs::read(top().join(path)).unwrap();
        let first = source.split(|&b| b == b'\n').next().unwrap_or_default();
        match std::str::from_utf8(first).unwrap_or_default() {
            line if line.starts_with("#!") && line.ends_with("bash") => Some("bash"),
            line if line.starts_with("#!") && line.ends_with("sh") => Some("sh"),
            // What runs on hosts may use `local`, which dash, bash and busybox ash have though POSIX has it not.
            "# shellcheck shell=dash" => Some("dash"),
            _ if path.ends_with(".sh") => Some("sh"),
            _ => None,
        }
    };
    files().into_iter().filter_map(|path| dialect(&path).map(|dialect| (path, dialect))).collect()
}

#[test]
fn shell_scripts_pass_shellcheck() {
    let scripts = scripts();
    assert!(scripts.iter().any(|(path, _)| path == "tests/run"), "the scripts were not found");
    if Command::new("shellcheck").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "shellcheck is missing: tests/setup installs it");
        println!("not checked: shellcheck is missing, tests/setup installs it");
        return;
    }
    let mut wrong = String::new();
    for (path, dialect) in scripts {
        wrong += &shellcheck(&top().join(path), dialect);
    }
    assert!(wrong.is_empty(), "\n{wrong}");

    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.sh");
    fs::write(&bad, "rm $1\n").unwrap();
    assert!(shellcheck(&bad, "sh").contains("SC2086"), "shellcheck must be able to object");
}

fn shellcheck(path: &Path, dialect: &str) -> String {
    let out = Command::new("shellcheck").args(["-f", "gcc", "-s", dialect]).arg(path).output().unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The pieces are joined: a second function of a name would take the first one's place, without a word.
#[test]
fn the_library_defines_each_function_once() {
    let mut seen = std::collections::BTreeMap::new();
    let mut wrong = Vec::new();
    for path in files().into_iter().filter(|path| path.starts_with("src/remote/shell/lib/")) {
        for (number, line) in read(&path).lines().enumerate() {
            let Some((name, _)) = line.split_once("()").filter(|(name, _)| name.starts_with("ks_")) else { continue };
            if let Some(first) = seen.insert(name.to_owned(), path.clone()) {
                wrong.push(format!("{path}:{}: {name} is in {first} too", number + 1));
            }
        }
    }
    assert!(seen.len() > 100, "they were found: {}", seen.len());
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_readme_names_every_dependency() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let mut missing = Vec::new();
    for table in ["dependencies", "dev-dependencies"] {
        missing.extend(not_named(&manifest, table, &read("README.md")));
    }
    assert!(missing.is_empty(), "README.md, \"Built with\", lacks {missing:?}");
    assert_eq!(
        not_named(&manifest, "dependencies", "- `tokio`: x").len(),
        manifest["dependencies"].as_table().unwrap().len() - 1
    );
}

/// The dependencies that have no place of their own in the README's list.
fn not_named(manifest: &toml::Table, table: &str, readme: &str) -> Vec<String> {
    let dependencies = manifest[table].as_table().unwrap().keys();
    let listed: BTreeSet<_> = readme
        .lines()
        .filter(|line| line.starts_with("- `") || line.starts_with("| `"))
        .flat_map(|line| line.split(['—', ':', '|']).find(|part| part.contains('`')))
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect();
    dependencies.filter(|name| !listed.contains(name.as_str())).cloned().collect()
}

#[test]
fn links_and_named_files_are_there() {
    let files = files();
    let mut wrong = Vec::new();
    for path in with_ending(&files, ".md") {
        let folder = top().join(path).parent().unwrap().to_owned();
        for (number, line) in read(path).lines().enumerate() {
            for target in links(line).filter(|target| !folder.join(target).exists()) {
                wrong.push((path.clone(), (number + 1, format!("{target} is not there"))));
            }
        }
    }
    assert_none(&wrong);
    assert_eq!(
        links("[a](b.md#c) [x](https://y) ![d](e/f.png) (g.md) [h](#i)").collect::<Vec<_>>(),
        ["b.md", "e/f.png"]
    );
}

/// The files that a line of Markdown links to.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then_some(target)
    })
}
