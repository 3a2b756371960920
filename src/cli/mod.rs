//! Arguments, commands, exit codes: the only room that knows the terminal, the environment and the process.

mod accept;
mod approve;
mod args;
mod ask;
mod audit;
mod demo;
mod errand;
mod error;
mod exec;
mod from_hosts;
mod hosts;
mod identity;
mod init;
mod inventory;
mod order;
#[cfg(test)]
mod papers_tests;
mod passwords;
#[cfg(debug_assertions)]
mod pause;
mod ping;
mod prompt;
mod propose;
mod proving;
mod report;
mod rerun;
mod resume;
mod retire;
mod rollback;
mod run;
mod runs;
mod said;
mod services;
mod session;
mod signals;
mod ssh_program;
mod telling;
mod token;
mod tools;
mod unlock;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::{Args, Command};
pub use error::CliError;
use session::Session;

/// Runs the program that the command line asks for.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            // clap's own code for bad usage is 2, which here means that a host failed.
            return if error.use_stderr() { ExitCode::from(error::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let session = Session::new(&args.global);
    match dispatch(&session, args.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            session.complain(&error);
            ExitCode::from(error.code())
        }
    }
}

/// Every host of a run keeps its connection from the first look to its end: the soft limit of open files, 1,024 on most
/// machines, is lifted to the hard one. Where that is refused, hosts beyond it are said to be out of reach.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn dispatch(session: &Session, command: Command) -> Result<u8, CliError> {
    // A secret in a core file would outlive everything that is done here to keep it out of files.
    crate::secret::forbid_core_dumps().map_err(|error| CliError::internal("cannot forbid core dumps", error))?;
    allow_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::internal("cannot start", error))?;
    let code = runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(session, &args).await,
            Command::Plan(args) => propose::plan(session, &args).await,
            Command::Approve(args) => approve::approve(session, &args).await,
            Command::Rollback(args) => rollback::rollback(session, &args).await,
            Command::Resume(args) => resume::resume(session, &args).await,
            Command::Runs(args) => runs::runs(session, &args).await,
            Command::Report(args) => report::report(session, &args),
            Command::Lint(args) => inventory::lint(session, &args),
            Command::Hosts(args) => hosts::hosts(session, &args).await,
            Command::Ping(args) => ping::ping(session, &args).await,
            Command::Exec(args) => exec::exec(session, &args).await,
            Command::Retire(args) => retire::retire(session, &args).await,
            Command::Audit(args) => audit::audit(session, &args).await,
            Command::Identity(args) => identity::identity(session, &args).await,
            Command::Unlock(args) => unlock::unlock(session, &args).await,
            Command::Demo(args) => Box::pin(demo::demo(session, &args)).await,
            Command::Sandbox(args) => Box::pin(demo::sandbox(session, &args)).await,
            Command::Init(args) => init::init(session, &args),
            Command::Schema { kind } => session.write(crate::load::schema::text(kind.into()).as_bytes()),
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Args::command(), "keyswap", &mut text);
                session.write(&text)
            }
            Command::Man { out: None } => {
                let mut text = Vec::new();
                // As the pages of a directory: `help` needs none.
                clap_mangen::Man::new(Args::command().disable_help_subcommand(true))
                    .render(&mut text)
                    .map_err(|error| CliError::internal("cannot write the manual page", error))?;
                session.write(&text)
            }
            Command::Man { out: Some(dir) } => {
                let wrong = |error| CliError::internal(&format!("cannot write manual pages into {dir}"), error);
                std::fs::create_dir_all(&dir).map_err(wrong)?;
                clap_mangen::generate_to(Args::command(), &dir).map_err(wrong)?;
                Ok(0)
            }
        }
    });
    // What still reads from a host that does not answer must not hold the operator up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code
}
