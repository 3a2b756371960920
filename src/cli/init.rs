//! `keyswap init`: the shipped examples, written into a directory of the operator's. What is there already stays.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::CliError;
use super::args::Output;
use super::session::{Session, told};
use crate::load::schema;

/// Where they go.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The directory; it is made if it is not there
    #[arg(default_value = ".")]
    dir: Utf8PathBuf,
}

/// The files as they are shipped, by their path from the directory.
const FILES: &[(&str, &str)] = &[
    ("inventory/example.toml", include_str!("../../inventory/example.toml")),
    ("inventory/allowed_signers", include_str!("../../inventory/allowed_signers")),
    (
        "inventory/identities/forgejo-docker-publish.toml",
        include_str!("../../inventory/identities/forgejo-docker-publish.toml"),
    ),
    ("playbooks/rotate-token.toml", include_str!("../../playbooks/rotate-token.toml")),
    ("playbooks/mint-token.toml", include_str!("../../playbooks/mint-token.toml")),
    ("playbooks/emergency-token.toml", include_str!("../../playbooks/emergency-token.toml")),
    ("playbooks/rollback-token.toml", include_str!("../../playbooks/rollback-token.toml")),
];

pub(super) fn init(session: &Session, args: &InitArgs) -> Result<u8, CliError> {
    let schemas = schema::Kind::ALL.map(|kind| (format!("schemas/{}.json", kind.as_str()), schema::text(kind)));
    let files = FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).chain(schemas);
    let mut out = session.out();
    let mut say = |path: &Utf8Path, written: bool| {
        let word = if written { "written" } else { "kept" };
        if session.global.output == Output::Jsonl {
            out.json(&json!({ "event": "file", "status": word, "path": path }));
        } else {
            out.line(&format!("{word}: {path}{}", if written { "" } else { " (it was there already)" }));
        }
    };
    for (name, text) in files {
        let path = if args.dir == "." { Utf8PathBuf::from(&name) } else { args.dir.join(&name) };
        let written =
            write(&path, &text).map_err(|error| CliError::internal(&format!("cannot write {path}"), error))?;
        say(&path, written);
    }
    if session.global.output != Output::Jsonl {
        let into = if args.dir == "." { String::new() } else { format!("cd {} && ", word(args.dir.as_str())) };
        out.line("");
        out.line("next: put your own names into the inventory, then");
        out.line(&format!("  {into}keyswap lint playbooks/rotate-token.toml -i inventory/example.toml"));
        out.line(&format!("  {into}keyswap ping -i inventory/example.toml"));
    }
    told(out, 0)
}

/// Writes a file that is not there yet; whether it was written.
fn write(path: &Utf8Path, text: &str) -> std::io::Result<bool> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// A word as a shell reads it.
fn word(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}
