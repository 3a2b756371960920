//! What every command needs of the process: environment, outputs, state directory, who is at work.

use std::io::{self, IsTerminal, Stdout};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use camino::Utf8PathBuf;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use super::CliError;
use super::args::{Color, Global, Output};
use super::inventory::word;
use super::passwords::{self, FromSources};
use super::prompt::Terminal;
use super::telling::{Beside, measure, on_panic, tell, tell_live};
use crate::event::{EventKind, Sink};
use crate::journal::{Operator, RunPhase, RunState, Store};
use crate::load::Context;
use crate::model::{RunId, RunStatus};
use crate::remote::ssh::{Dialer, DialerConfig, GLOBAL_KNOWN_HOSTS, Keepalive, Signers};
use crate::remote::{Connect, SshConnect, Trials};
use crate::report::{Human, Jsonl, Look, Plain, Printer, Reporter, Screen};
use crate::secret::{Environment, Redactor, Sources};

/// The process, as commands see it.
pub(super) struct Session {
    pub(super) global: Global,
    pub(super) redactor: Redactor,
    pub(super) sources: Sources,
    /// Standard output, where it is drawn on.
    pub(super) screen: Screen,
    /// How many of the events of the report under way were told.
    told: Arc<AtomicU64>,
    passwords: Arc<FromSources>,
    /// What is known of passwords that hosts have taken or refused.
    trials: Arc<Trials>,
    /// What `-K` asked for.
    become_password: Arc<OnceLock<SecretString>>,
    #[cfg(debug_assertions)]
    pause: Option<super::pause::Pause>,
}

impl Session {
    pub(super) fn new(global: &Global) -> Self {
        let environment = Environment::new(std::env::vars_os());
        let redactor = Redactor::new();
        let screen = Screen::new(Box::new(std::io::stdout()), &redactor);
        log(global.verbose, &redactor, &screen);
        on_panic(&screen);
        #[cfg(debug_assertions)]
        let pause = environment.get(super::pause::VARIABLE);
        let sources = Sources::new(environment, Arc::new(Terminal::new(&screen)));
        Self {
            global: global.clone(),
            screen,
            told: Arc::default(),
            passwords: FromSources::new(&sources, &redactor),
            trials: Arc::default(),
            become_password: Arc::default(),
            redactor,
            sources,
            #[cfg(debug_assertions)]
            pause: pause.and_then(|text| super::pause::Pause::parse(text.to_str()?)),
        }
    }

    /// The same process with other options.
    pub(super) fn with(&self, global: Global) -> Self {
        Self {
            global,
            redactor: self.redactor.clone(),
            sources: self.sources.clone(),
            screen: self.screen.clone(),
            told: Arc::clone(&self.told),
            passwords: Arc::clone(&self.passwords),
            trials: Arc::clone(&self.trials),
            become_password: Arc::clone(&self.become_password),
            #[cfg(debug_assertions)]
            pause: self.pause.clone(),
        }
    }

    fn var(&self, name: &str) -> Option<String> {
        let value = self.sources.environment().get(name)?.into_string().ok()?;
        (!value.is_empty()).then_some(value)
    }

    /// The operator's home directory. Where no variable names it (timers, cron) the password file does.
    fn known_home(&self) -> Result<Utf8PathBuf, CliError> {
        let from_passwd = || std::env::home_dir().and_then(|home| Utf8PathBuf::from_path_buf(home).ok());
        let home = self.var("HOME").map(Utf8PathBuf::from).or_else(from_passwd);
        home.filter(|home| home.is_absolute())
            .ok_or_else(|| CliError::usage("neither HOME nor the password file names your home directory: set HOME"))
    }

    /// The same for where it only says what may be read: nothing is there then.
    pub(super) fn home(&self) -> Utf8PathBuf {
        self.known_home().unwrap_or_else(|_| "/".into())
    }

    /// The operator's login name.
    fn known_user(&self) -> Result<String, CliError> {
        self.var("USER")
            .or_else(|| self.var("LOGNAME"))
            .or_else(|| self.user_by_id())
            .ok_or_else(|| CliError::usage("neither USER nor LOGNAME nor the password file names your user: set USER"))
    }

    /// As `id` tells it, which asks directory services, too.
    fn user_by_id(&self) -> Option<String> {
        let mut id = std::process::Command::new("id");
        id.args(["-u", "-r", "-n"]).env_clear().stdin(std::process::Stdio::null());
        let said = id.env("PATH", self.var("PATH").unwrap_or_else(|| "/usr/bin:/bin".to_owned())).output().ok()?;
        let name = String::from_utf8(said.stdout).ok()?.trim().to_owned();
        // Without a name some print the number.
        (said.status.success() && !name.is_empty() && name.parse::<u32>().is_err()).then_some(name)
    }

    /// Who is at work, in any case.
    fn user(&self) -> String {
        self.known_user().unwrap_or_else(|_| format!("uid-{}", rustix::process::getuid().as_raw()))
    }

    pub(super) fn context(&self) -> Result<Context, CliError> {
        let cwd = std::env::current_dir().map_err(|error| CliError::internal("cannot tell where I am", error))?;
        let cwd = Utf8PathBuf::from_path_buf(cwd)
            .map_err(|path| CliError::usage(format!("{} is not UTF-8", path.display())))?;
        Ok(Context { home: self.known_home()?, cwd, user: self.known_user()? })
    }

    /// Where runs are journaled.
    pub(super) fn store(&self) -> Result<Store, CliError> {
        let dir = match (&self.global.state_dir, self.var("XDG_STATE_HOME")) {
            (Some(dir), _) => PathBuf::from(dir),
            (None, Some(base)) if base.starts_with('/') => PathBuf::from(base).join("keyswap"),
            _ => PathBuf::from(self.known_home()?.join(".local/state/keyswap")),
        };
        let store = Store::open(&dir)?;
        #[cfg(debug_assertions)]
        let store = match self.pause.clone() {
            Some(pause) => {
                let mut store = store;
                store.wrap(move |medium| pause.medium(medium));
                store
            }
            None => store,
        };
        Ok(store)
    }

    /// Logs in and escalates; `inventory` is what the operator gave as `-i`, for hints. With `-K` the password is asked for
    /// now, once for the process.
    pub(super) fn ssh(&self, inventory: &str) -> Result<SshConnect, CliError> {
        if self.global.ask_become_pass && self.become_password.get().is_none() {
            // Only the first answer counts, and nobody else asks at the same time.
            let _ = self.become_password.set(passwords::ask(&self.terminal(), &self.redactor)?);
        }
        let connect = SshConnect::new(self.dialer(), inventory.to_owned());
        Ok(connect.with_passwords(self.passwords.clone(), self.become_password.get().cloned()))
    }

    /// Makes connections for one run.
    pub(super) fn connect(&self, inventory: &str) -> Result<Arc<dyn Connect>, CliError> {
        let connect: Arc<dyn Connect> = Arc::new(self.ssh(inventory)?);
        #[cfg(debug_assertions)]
        let connect = match &self.pause {
            Some(pause) => pause.connect(connect),
            None => connect,
        };
        Ok(connect)
    }

    /// Who is at work, for the journal and for whoever finds a host held.
    pub(super) fn operator(&self) -> Operator {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Operator { user: self.user(), host, pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// The operator as one word a part: what is left on the hosts.
    pub(super) fn owner(&self) -> String {
        let operator = self.operator();
        format!("{}@{} pid {}", operator.user, operator.host, operator.pid)
    }

    /// Logs in for one run.
    pub(super) fn dialer(&self) -> Arc<Dialer> {
        Arc::new(Dialer::new(DialerConfig {
            home: self.home(),
            global_known_hosts: GLOBAL_KNOWN_HOSTS.map(Utf8PathBuf::from).to_vec(),
            agent_socket: self.var("SSH_AUTH_SOCK").map(Utf8PathBuf::from),
            passphrase: Arc::new(self.terminal()),
            passwords: self.passwords.clone(),
            trials: Arc::clone(&self.trials),
            keepalive: Keepalive::default(),
        }))
    }

    /// Who may sign: key files, whose passphrases are asked for here, and the agent.
    pub(super) fn signers(&self) -> Signers {
        Signers { passphrase: Arc::new(self.terminal()), agent: self.var("SSH_AUTH_SOCK").map(Utf8PathBuf::from) }
    }

    /// Says something that the operator should know, beside what was asked for.
    pub(super) fn warn(&self, text: &str) {
        let _hold = self.screen.hold();
        Printer::new(std::io::stderr(), &self.redactor).line(&format!("warning: {text}"));
    }

    /// Whether this is a terminal that obeys control codes, and not one that a CI job pretends to have.
    fn is_lively(&self, is_terminal: bool) -> bool {
        let ci = self.var("CI").is_some_and(|value| value != "false" && value != "0");
        is_terminal && !ci && self.var("TERM").is_some_and(|term| term != "dumb")
    }

    fn colour(&self, is_terminal: bool) -> bool {
        match self.global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.is_lively(is_terminal) && self.var("NO_COLOR").is_none(),
        }
    }

    /// How a command's own lines look on standard output.
    pub(super) fn look(&self) -> Look {
        let person = self.global.output == Output::Human;
        let is_terminal = std::io::stdout().is_terminal();
        Look {
            colour: person && self.colour(is_terminal),
            width: (person && self.is_lively(is_terminal)).then(|| measure().width),
        }
    }

    /// Standard output, behind the redactor.
    pub(super) fn out(&self) -> Printer<Stdout> {
        Printer::new(std::io::stdout(), &self.redactor)
    }

    /// Writes a whole text to standard output.
    pub(super) fn write(&self, text: &[u8]) -> Result<u8, CliError> {
        let mut out = self.out();
        // Our own text, whose blanks and tabs count.
        for line in String::from_utf8_lossy(text).lines() {
            out.styled(line);
        }
        told(out, 0)
    }

    /// Starts the run's report; [`Report::finish`] ends it.
    pub(super) fn report(&self, run: &RunId) -> (Sink, Report) {
        let (sink, events) = Sink::new(run.clone());
        let is_terminal = std::io::stdout().is_terminal();
        let (lively, colour) = (self.is_lively(is_terminal), self.colour(is_terminal));
        let mut live = false;
        let reporter: Box<dyn Reporter> = match self.global.output {
            Output::Jsonl => Box::new(Jsonl::new(self.out())),
            Output::Human if lively || colour => {
                let human =
                    Human::new(self.screen.clone(), colour, self.global.verbose > 0).typed_with(&self.same_state());
                live = lively;
                Box::new(if lively { human.live(Box::new(measure)) } else { human })
            }
            Output::Human | Output::Plain => Box::new(Plain::new(self.out()).typed_with(&self.same_state())),
        };
        self.told.store(0, Ordering::Release);
        let told = Arc::clone(&self.told);
        let screen = self.screen.clone();
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| live);
        let thread = std::thread::spawn(move || match runtime {
            Some(runtime) => runtime.block_on(tell_live(reporter, events, &told, &screen)),
            None => tell(reporter, events, &told),
        });
        (sink, Report { thread })
    }

    /// Waits until everything that was said so far stands where it belongs. An output that takes nothing is not waited for.
    pub(super) async fn caught_up(&self, events: &Sink) {
        const LONGEST: Duration = Duration::from_secs(2);
        let count = events.count();
        let told = async {
            while self.told.load(Ordering::Acquire) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(LONGEST, told).await;
    }

    /// A command as it must be typed to find what this one left: with the state directory, if that was given.
    pub(super) fn typed(&self, command: &str) -> String {
        format!("{command}{}", self.same_state())
    }

    /// What every command needs to find the same runs; nothing where it would look there anyway.
    pub(super) fn same_state(&self) -> String {
        let dir = self.global.state_dir.as_ref().map(|dir| format!(" --state-dir {}", word(dir.as_str())));
        dir.unwrap_or_default()
    }

    /// The person at the terminal.
    pub(super) fn terminal(&self) -> Terminal {
        Terminal::new(&self.screen)
    }

    /// Says of a run that there is nothing to do about it. Programs get it as events, which end as those of every run do.
    pub(super) fn nothing_to_do(&self, run: &RunId, state: &RunState, text: &str) {
        if self.global.output != Output::Jsonl {
            self.out().line(text);
            return;
        }
        let (events, report) = self.report(run);
        events.warn(None, text);
        let status = match state.phase {
            RunPhase::Finished(status) => status,
            RunPhase::Fresh | RunPhase::Open => RunStatus::Interrupted,
        };
        let hosts = state.hosts.values().filter_map(|host| host.result.clone()).collect();
        events.emit(None, None, EventKind::RunFinished { status, exit_code: 0, hosts });
        report.finish(&events);
    }

    /// Says why a command failed: what, why, and what to do.
    pub(super) fn complain(&self, error: &CliError) {
        let _hold = self.screen.hold();
        let mut err = Printer::new(std::io::stderr(), &self.redactor);
        if let CliError::Files(diagnostics) = error {
            for line in diagnostics.render(self.colour(std::io::stderr().is_terminal())).lines() {
                err.styled(line);
            }
            return;
        }
        let text = error.to_string();
        let mut lines = text.lines();
        err.line(&format!("error: {}", lines.next().unwrap_or_default()));
        // Commands that lead on stand each on its own line, and are not taken for lines of ours.
        lines.for_each(|line| err.line(&format!("  {line}")));
        let mut source = std::error::Error::source(error);
        // Transparent variants give their cause's own text.
        while let Some(cause) = source {
            err.line(&format!("caused by: {cause}"));
            source = cause.source();
        }
        if let Some(hint) = error.hint() {
            err.line(&format!("hint: {hint}"));
        }
    }
}

/// A run's report, being written.
pub(super) struct Report {
    thread: JoinHandle<std::io::Result<()>>,
}

impl Report {
    /// Says that nothing comes any more, and waits until all is written.
    pub(super) fn finish(self, events: &Sink) {
        // A closed pipe is the reader's choice; the run's end stands in the journal and in the exit code.
        let _ = self.told(events);
    }

    /// The same, of what stands nowhere but in the output.
    pub(super) fn told(self, events: &Sink) -> io::Result<()> {
        events.close();
        self.thread.join().unwrap_or(Ok(()))
    }
}

/// Ends a command's own output, and so the command: with its code, unless what it had to say could not be said.
pub(super) fn told(mut out: Printer<Stdout>, code: u8) -> Result<u8, CliError> {
    unless_unsaid(out.finish(), code)
}

/// The code, unless the output takes nothing. Who closes a pipe has read enough: that is his choice.
pub(super) fn unless_unsaid(written: io::Result<()>, code: u8) -> Result<u8, CliError> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(code),
    }
}

/// Diagnostics to standard error, through the redactor.
fn log(verbose: u8, redactor: &Redactor, screen: &Screen) {
    let screen = screen.clone();
    let filter = match verbose {
        0 => "keyswap=warn,russh=error",
        1 => "keyswap=info,russh=warn",
        2 => "keyswap=debug,russh=warn",
        _ => "keyswap=trace,russh=info",
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(redactor.make_writer(move || Beside::new(&screen)))
        .with_ansi(false)
        .finish();
    // Only a second call in one process can fail, and the first one's filter is as good.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
