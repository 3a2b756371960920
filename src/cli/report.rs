//! `keyswap report`: one run's story as a page or as JSON, from its journal alone.

use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{ArgGroup, Args as ClapArgs};
use jiff::Timestamp;

use super::CliError;
use super::session::Session;
use crate::report::{Source, Story, page};

/// The name of standard output.
const STDOUT: &str = "-";

#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("form").args(["html", "json"]).required(true).multiple(true)))]
pub(super) struct ReportArgs {
    /// The run: its id or a unique prefix; the latest if left out
    pub(super) run: Option<String>,
    /// Write one self-contained page; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<Utf8PathBuf>,
    /// Write the same as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<Utf8PathBuf>,
}

pub(super) fn report(session: &Session, args: &ReportArgs) -> Result<u8, CliError> {
    let is_out = |path: &Option<Utf8PathBuf>| path.as_ref().is_some_and(|path| path == STDOUT);
    if is_out(&args.html) && is_out(&args.json) {
        return Err(CliError::usage("only one of --html and --json can go to standard output"));
    }
    if args.html.is_some() && args.html == args.json {
        return Err(CliError::usage("--html and --json name the same file"));
    }
    let store = session.store()?;
    let run = store.find(args.run.as_deref())?;
    // Looked at first: a run that ends in between is then told as at work, and not as cut off.
    let at_work = store.dir(&run).is_locked();
    let log = store.read(&run)?;
    let source = Source { run: &run, log: &log, at_work, told: Timestamp::now() };
    let story = Story::of(&source).map_err(crate::journal::JournalError::from)?;
    if let Some(path) = &args.html {
        let page =
            page(&story, &session.redactor).map_err(|error| CliError::internal("cannot make the page", error))?;
        put(session, path, &page)?;
    }
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(&story.cleaned(&session.redactor))
            .map_err(|error| CliError::internal("cannot make the JSON", error))?;
        text.push('\n');
        put(session, path, &text)?;
    }
    Ok(0)
}

/// Writes through the redactor: to standard output, or into a file that is the old one or whole.
fn put(session: &Session, path: &Utf8Path, text: &str) -> Result<(), CliError> {
    if path == STDOUT {
        session.write(text.as_bytes())?;
        return Ok(());
    }
    let refused = |what: &str| CliError::usage(format!("{path}: {what}"));
    // A link is written through, and nothing but a plain file is replaced: not /dev/stdout, not a pipe.
    let target = match path.symlink_metadata() {
        Ok(_) => path.canonicalize_utf8().map_err(|error| refused(&error.to_string()))?,
        Err(_) => path.to_owned(),
    };
    if target.exists() && !target.is_file() {
        return Err(refused("it is there and is no plain file (`-` is standard output)"));
    }
    let dir = target.parent().filter(|dir| !dir.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".keyswap-").tempfile_in(dir)?;
        file.write_all(&session.redactor.redact_bytes(text.as_bytes()))?;
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|error| error.error)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|error| refused(&format!("it cannot be written: {error}")))
}
