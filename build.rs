//! What `keyswap --version` says of its build: commit, target, compiler. No time, no path: the same sources give the same program.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEYSWAP_COMMIT");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // Who builds from an archive may say the commit. Work builds do without, so that a commit does not build everything anew.
    let commit = match variable("KEYSWAP_COMMIT") {
        said if !said.is_empty() => said,
        _ if variable("PROFILE") == "release" => commit(),
        _ => String::new(),
    };
    let rustc = said(Command::new(variable("RUSTC")).arg("--version"));
    let or_unknown = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    println!("cargo::rustc-env=KEYSWAP_COMMIT={}", or_unknown(commit));
    println!("cargo::rustc-env=KEYSWAP_TARGET={}", or_unknown(variable("TARGET")));
    println!("cargo::rustc-env=KEYSWAP_RUSTC={}", or_unknown(rustc));
}

/// The commit of this very directory, where it is a clone.
fn commit() -> String {
    if !Path::new(".git").exists() {
        return String::new();
    }
    for file in [".git/HEAD", ".git/logs/HEAD"].iter().filter(|file| Path::new(file).exists()) {
        println!("cargo::rerun-if-changed={file}");
    }
    said(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))
}

/// A program's first line; empty where it cannot be run.
fn said(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}
