//! Reading a secret from where the playbook says it is.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::value::MAX_BYTES;
use super::{BadValue, Environment, SecretValue};
use crate::model::SecretSource;

/// Room for the value and a line end, and one byte more to see that there was more.
const READ_LIMIT: usize = MAX_BYTES + 3;

/// Asks a person for a value without showing what is typed. `cli` implements it; below it nobody has a terminal.
pub trait Prompt: Send + Sync {
    /// Shows the question and reads one line without echo.
    ///
    /// # Errors
    /// When there is no terminal, the person gave up, or reading failed.
    fn ask_hidden(&self, question: &str) -> Result<Zeroizing<String>, PromptError>;
}

/// Why a person could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Nobody to ask: a matter of usage.
    #[error("there is no terminal to ask on")]
    NoTerminal,
    /// Ctrl-C or end of input.
    #[error("the question was not answered")]
    Declined,
    /// The terminal failed.
    #[error("cannot read from the terminal")]
    Io(#[source] io::Error),
}

/// A secret that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot get secret `{name}` from {origin}")]
pub struct SecretError {
    /// The secret's name in the playbook or inventory.
    pub name: String,
    /// Where it should have come from, in a few words.
    pub origin: String,
    /// Why not.
    #[source]
    pub fault: SecretFault,
}

/// Why a secret could not be had. None of these holds any of the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// Nobody could be asked.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The second answer was another one.
    #[error("the two answers differ")]
    Mismatch,
    /// The file is not safe to read, or cannot be read.
    #[error(transparent)]
    File(#[from] FileFault),
    /// The variable is not set.
    #[error("the variable is not set")]
    NotSet,
    /// There is no program in `argv`.
    #[error("`argv` is empty")]
    NoProgram,
    /// The program could not be started.
    #[error("the program cannot be started")]
    Start(#[source] io::Error),
    /// The program's output could not be read.
    #[error("the program's output cannot be read")]
    Output(#[source] io::Error),
    /// The program said by its status that it failed.
    #[error("the program ended with {0}")]
    Status(String),
    /// The program took too long and was killed.
    #[error("the program did not end within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// What came is no credential.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// A token is minted by `run`, once; nobody can read it again.
    #[error("a token is minted once, by `run`, and cannot be had again")]
    Minted,
}

/// Why a secret's file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It cannot be opened.
    #[error("the file cannot be opened")]
    Open(#[source] io::Error),
    /// It is a symbolic link.
    #[error("the path is a symbolic link")]
    Link,
    /// It is a directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// Others can use it.
    #[error("group or others have access to the file (mode {0:04o}); `chmod 600` it")]
    Exposed(u32),
    /// Somebody else can change it.
    #[error("the file belongs to user {0}, neither to you nor to root")]
    Owner(u32),
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
}

impl SecretFault {
    /// Whether the fault lies in how keyswap was called (exit code 5): a question with nobody to answer it.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Prompt(PromptError::NoTerminal))
    }

    /// Whether the operator gave up (exit code 130).
    #[must_use]
    pub fn is_declined(&self) -> bool {
        matches!(self, Self::Prompt(PromptError::Declined))
    }
}

/// Everything that reading secrets needs.
#[derive(Clone)]
pub struct Sources {
    environment: Environment,
    prompt: Arc<dyn Prompt>,
    command_limit: Duration,
}

impl Sources {
    /// Reads from this environment and asks through this prompt.
    #[must_use]
    pub fn new(environment: Environment, prompt: Arc<dyn Prompt>) -> Self {
        Self { environment, prompt, command_limit: Duration::from_secs(120) }
    }

    /// The limit for the program of a `command` source; two minutes if not said.
    #[must_use]
    pub fn with_command_limit(mut self, limit: Duration) -> Self {
        self.command_limit = limit;
        self
    }

    /// The environment that programs are started with.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Reads one secret. The caller registers it with the [`Redactor`](super::Redactor) before anything else.
    ///
    /// # Errors
    /// When the source cannot be read safely, or what it gives is no credential.
    pub async fn read(&self, name: &str, source: &SecretSource) -> Result<SecretValue, SecretError> {
        let read = match source {
            SecretSource::Prompt => self.ask(name).await,
            SecretSource::File { path } => read_file(path.clone()).await,
            SecretSource::Env { name } => self.environment.secret(name).ok_or(SecretFault::NotSet),
            SecretSource::Command { argv } => self.run(argv).await,
            SecretSource::Infisical { .. } => Err(SecretFault::Minted),
        };
        read.and_then(|bytes| Ok(SecretValue::new(bytes)?)).map_err(|fault| SecretError {
            name: name.to_owned(),
            origin: origin(source),
            fault,
        })
    }

    async fn ask(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
        let prompt = Arc::clone(&self.prompt);
        let name = name.to_owned();
        let ask = move || {
            let first = prompt.ask_hidden(&format!("secret `{name}`"))?;
            let again = prompt.ask_hidden(&format!("secret `{name}` again"))?;
            if *first == *again { Ok(Zeroizing::new(first.as_bytes().to_vec())) } else { Err(SecretFault::Mismatch) }
        };
        blocking(ask).await.unwrap_or_else(|error| Err(PromptError::Io(error).into()))
    }

    async fn run(&self, argv: &[String]) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
        let (program, args) = argv.split_first().ok_or(SecretFault::NoProgram)?;
        let mut child = self
            .environment
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(SecretFault::Start)?;
        let mut stdout = child.stdout.take();
        let work = async {
            let mut value = Zeroizing::new(Vec::with_capacity(READ_LIMIT));
            if let Some(stdout) = &mut stdout {
                let mut limited = stdout.take(READ_LIMIT as u64);
                while limited.read_buf(&mut *value).await.map_err(SecretFault::Output)? > 0 {}
            }
            if value.len() >= READ_LIMIT {
                return Err(BadValue::TooLong.into());
            }
            let status = child.wait().await.map_err(SecretFault::Output)?;
            if status.success() { Ok(value) } else { Err(SecretFault::Status(status.to_string())) }
        };
        tokio::time::timeout(self.command_limit, work).await.unwrap_or(Err(SecretFault::TimedOut(self.command_limit)))
    }
}

fn origin(source: &SecretSource) -> String {
    match source {
        SecretSource::Prompt => "the prompt".to_owned(),
        SecretSource::File { path } => format!("file `{path}`"),
        SecretSource::Env { name } => format!("environment variable `{name}`"),
        SecretSource::Command { argv } => format!("command `{}`", argv.first().map_or("", String::as_str)),
        SecretSource::Infisical { identity } => format!("Infisical for identity `{identity}`"),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

async fn read_file(path: Utf8PathBuf) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    let read = blocking(move || read_file_now(&path)).await;
    Ok(read.unwrap_or_else(|error| Err(FileFault::Read(error)))?)
}

/// Opens once and judges what was opened, so that nothing can be swapped between look and read.
fn read_file_now(path: &Utf8Path) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    // NONBLOCK: opening a pipe must not wait for somebody to write to it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd: OwnedFd = rustix::fs::open(path.as_std_path(), flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::LOOP => FileFault::Link,
        other => FileFault::Open(other.into()),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| FileFault::Read(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileFault::NotRegular);
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileFault::Exposed(mode));
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(FileFault::Owner(stat.st_uid));
    }
    let mut value = Zeroizing::new(Vec::with_capacity(READ_LIMIT));
    let file = std::fs::File::from(fd);
    file.take(READ_LIMIT as u64).read_to_end(&mut value).map_err(FileFault::Read)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Mutex;

    use super::*;

    struct Answers(Mutex<Vec<&'static str>>);

    impl Prompt for Answers {
        fn ask_hidden(&self, _: &str) -> Result<Zeroizing<String>, PromptError> {
            self.0.lock().unwrap().pop().map(|a| Zeroizing::new(a.to_owned())).ok_or(PromptError::NoTerminal)
        }
    }

    fn sources(answers: &[&'static str]) -> Sources {
        let env = [("PATH", std::env::var("PATH").unwrap()), ("TOKEN", "test-token-env".to_owned())];
        let answers = answers.iter().rev().copied().collect();
        Sources::new(Environment::new(env.map(|(n, v)| (n.into(), v.into()))), Arc::new(Answers(Mutex::new(answers))))
    }

    async fn fault(sources: &Sources, source: SecretSource) -> SecretFault {
        sources.read("token", &source).await.unwrap_err().fault
    }

    fn command(argv: &[&str]) -> SecretSource {
        SecretSource::Command { argv: argv.iter().map(|&a| a.to_owned()).collect() }
    }

    #[tokio::test]
    async fn a_prompt_asks_twice() {
        let value = sources(&["test-token-1", "test-token-1"]).read("token", &SecretSource::Prompt).await.unwrap();
        assert_eq!(value.expose(), b"test-token-1");
        let differ = fault(&sources(&["test-token-1", "test-token-2"]), SecretSource::Prompt).await;
        assert!(matches!(differ, SecretFault::Mismatch), "{differ}");
        assert!(fault(&sources(&[]), SecretSource::Prompt).await.is_usage());
    }

    #[tokio::test]
    async fn only_a_private_regular_file_of_ours_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.join(name);
            std::fs::write(&path, "test-token-file\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let sources = sources(&[]);
        let good = file("good", 0o600);
        let value = sources.read("token", &SecretSource::File { path: good.clone() }).await.unwrap();
        assert_eq!(value.expose(), b"test-token-file");

        for mode in [0o640, 0o604, 0o620, 0o602, 0o610] {
            let path = file("open", mode);
            let fault = fault(&sources, SecretSource::File { path }).await;
            assert!(matches!(fault, SecretFault::File(FileFault::Exposed(m)) if m == mode), "{mode:o}: {fault}");
        }
        symlink(&good, dir.join("link")).unwrap();
        let link = fault(&sources, SecretSource::File { path: dir.join("link") }).await;
        assert!(matches!(link, SecretFault::File(FileFault::Link)), "{link}");
        let pipe = dir.join("pipe");
        assert!(std::process::Command::new("mkfifo").args(["-m", "600", pipe.as_str()]).status().unwrap().success());
        for path in [pipe, dir.clone()] {
            let fault = fault(&sources, SecretSource::File { path }).await;
            assert!(matches!(fault, SecretFault::File(FileFault::NotRegular)), "{fault}");
        }
        let absent = fault(&sources, SecretSource::File { path: dir.join("absent") }).await;
        assert!(matches!(absent, SecretFault::File(FileFault::Open(_))), "{absent}");
        if rustix::process::geteuid().is_root() {
            let path = file("foreign", 0o600);
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let fault = fault(&sources, SecretSource::File { path }).await;
            assert!(matches!(fault, SecretFault::File(FileFault::Owner(12345))), "{fault}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_variable_is_read_and_withheld() {
        let sources = sources(&[]);
        let value = sources.read("token", &SecretSource::Env { name: "TOKEN".into() }).await.unwrap();
        assert_eq!(value.expose(), b"test-token-env");
        let child = sources.read("token", &command(&["sh", "-c", "echo ${TOKEN-withheld}"])).await.unwrap();
        assert_eq!(child.expose(), b"withheld");
        let unset = fault(&sources, SecretSource::Env { name: "ABSENT".into() }).await;
        assert!(matches!(unset, SecretFault::NotSet), "{unset}");
    }

    #[tokio::test]
    async fn a_command_gives_its_output_within_bounds() {
        let sources = sources(&[]).with_command_limit(Duration::from_millis(500));
        let value = sources.read("token", &command(&["printf", "%s\\n", "test-token $(id)"])).await.unwrap();
        assert_eq!(value.expose(), b"test-token $(id)", "no shell looks at the words");
        let failed = fault(&sources, command(&["sh", "-c", "echo test-token-1; exit 3"])).await;
        assert_eq!(failed.to_string(), "the program ended with exit status: 3");
        let endless = fault(&sources, command(&["yes", "test-token-1"])).await;
        assert!(matches!(endless, SecretFault::Value(BadValue::TooLong)), "{endless}");
        let hangs = fault(&sources, command(&["sleep", "60"])).await;
        assert!(matches!(hangs, SecretFault::TimedOut(_)), "{hangs}");
        let absent = fault(&sources, command(&["/nonexistent/program"])).await;
        assert!(matches!(absent, SecretFault::Start(_)), "{absent}");
        assert!(matches!(fault(&sources, command(&[])).await, SecretFault::NoProgram));
    }
}
