//! Logging in with what the [`Plan`] has, and what a refusal means.

use std::time::Duration;

use camino::Utf8Path;
use russh::MethodKind;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Asked};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::{Problem, clean};
use super::handler::Handler;
use super::limit::Limit;
use super::plan::{Plan, With};
use super::question::asks_for_password;
use super::stream::Fate;
use crate::remote::Leave;

/// sshd ends the connection at its sixth failure, and so does everything that copies its default.
const MAX_TRIES: usize = 5;

/// How long an agent may take to list its keys. (Signing may wait for a person; the limit of the login holds there.)
pub(super) const AGENT_LIMIT: Duration = Duration::from_secs(3);

/// How long a person may take to touch a security key; the limit of the login stands still meanwhile.
const TOUCH_LIMIT: Duration = Duration::from_secs(60);

/// An agent that is asked for the signature of the plain key where the certificate is not its own.
struct PlainKey<'a>(&'a mut AgentClient<UnixStream>);

impl russh::Signer for PlainKey<'_> {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let plain = match identity {
            AgentIdentity::Certificate { certificate, comment } => AgentIdentity::PublicKey {
                key: PublicKey::new(certificate.public_key().clone(), ""),
                comment: comment.clone(),
            },
            plain @ AgentIdentity::PublicKey { .. } => plain.clone(),
        };
        russh::Signer::auth_sign(self.0, &plain, hash, data).await
    }
}

impl Plan {
    /// Logs in; the answer names the key that the host accepted.
    pub(super) async fn login(
        &self,
        user: &str,
        endpoint: &str,
        handle: &mut Handle<Handler>,
        fate: &Fate,
        limit: &Limit,
    ) -> Result<String, Problem> {
        let mut skipped = self.skipped.clone();
        let mut agent_problem = None;
        let mut agent = match &self.agent {
            None => None,
            Some(socket) => match open_agent(socket, handle).await {
                Ok(agent) => Some(agent),
                Err(problem) => {
                    skipped.push(problem.to_string());
                    agent_problem = Some(problem);
                    None
                }
            },
        };
        let identities = agent.as_mut().map(|(_, identities)| std::mem::take(identities)).unwrap_or_default();
        let mut tries = self.tries(identities);
        if tries.len() > MAX_TRIES {
            skipped.push(format!("{} more keys, since hosts end the connection at the sixth", tries.len() - MAX_TRIES));
            tries.truncate(MAX_TRIES);
        }
        if tries.is_empty() && self.password.is_none() {
            return Err(self.nothing_to_try(agent_problem, skipped));
        }

        let mut tried = Vec::new();
        let mut remaining = Vec::new();
        let mut partial = false;
        for one in tries {
            let rsa_hash = match one.with.algorithm() {
                Algorithm::Rsa { .. } => match rsa_hash(handle).await {
                    Some(hash) => Some(hash),
                    None => {
                        skipped.push(format!("{}: the host takes RSA keys only with SHA-1", one.label));
                        continue;
                    }
                },
                _ => None,
            };
            let signer = agent.as_mut().map(|(client, _)| client);
            let touched = one.with.wants_a_touch();
            let answer = attempt(user, handle, one.with, rsa_hash, signer);
            let answer = if touched {
                let answered = limit.without(timeout(TOUCH_LIMIT, answer)).await;
                answered.unwrap_or_else(|_| Err("nobody touched the security key".to_owned()))
            } else {
                answer.await
            };
            match answer {
                Ok(AuthResult::Success) => return Ok(one.label),
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    tried.push(one.label);
                    if handle.is_closed() {
                        return Err(closed(fate, tried));
                    }
                    remaining = remaining_methods.iter().map(String::from).collect();
                    partial = partial_success;
                    if partial || !remaining_methods.contains(&MethodKind::PublicKey) {
                        break;
                    }
                }
                Err(_) if handle.is_closed() => return Err(closed(fate, tried)),
                Err(reason) => skipped.push(format!("{}: {reason}", one.label)),
            }
        }
        let Some((password, trial)) = &self.password else {
            return Err(Problem::LoginRefused { tried, skipped, remaining, partial });
        };
        // Where nothing was tried yet, nothing is known of what the host takes.
        let may = |method: &str| remaining.is_empty() || remaining.iter().any(|known| known == method);
        let (by_password, by_answer) = (may("password"), may("keyboard-interactive"));
        // Not the host's time: another one may be trying it first.
        let mut leave = match by_password || by_answer {
            false => None,
            true => match limit.without(trial.leave(endpoint)).await {
                Ok(leave) => Some(leave),
                Err(why) => {
                    skipped.push(format!("the password: {why}"));
                    return Err(Problem::LoginRefused { tried, skipped, remaining, partial });
                }
            },
        };
        let mut wrong = false;
        if by_password {
            match handle.authenticate_password(user, password.expose_secret()).await {
                Ok(AuthResult::Success) => {
                    leave.take().into_iter().for_each(Leave::taken);
                    return Ok("the password".to_owned());
                }
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    partial = partial_success;
                    // A host that knows passwords and still lists them has refused this one; one that hangs up, too.
                    wrong = !partial && (handle.is_closed() || remaining_methods.contains(&MethodKind::Password));
                    remaining = remaining_methods.iter().map(String::from).collect();
                    if partial {
                        // What it asks now is asked beside the password, which it has.
                        leave.take().into_iter().for_each(Leave::taken);
                    }
                }
                Err(error) => skipped.push(format!("the password: {error}")),
            }
            tried.push("the password".to_owned());
        }
        // Only where it was neither taken nor refused as a password already: nobody is to be locked out by us.
        let open = leave.is_some() && !remaining.iter().any(|known| known == "password");
        if open && remaining.iter().any(|known| known == "keyboard-interactive") && !handle.is_closed() {
            let (given, why) = match ask_back(user, handle, password).await {
                Answered::In => {
                    leave.take().into_iter().for_each(Leave::taken);
                    return Ok("the password".to_owned());
                }
                Answered::InPart(wanted) => {
                    leave.take().into_iter().for_each(Leave::taken);
                    (remaining, partial) = (wanted, true);
                    (true, None)
                }
                Answered::Refused(why) => {
                    wrong = true;
                    (true, Some(why))
                }
                Answered::Untold { given, why } => (given, Some(why)),
            };
            skipped.extend(why.map(|why| format!("the password: {why}")));
            if given {
                tried.push("the answer to a question".to_owned());
            }
        }
        if wrong {
            leave.take().into_iter().for_each(Leave::refused);
        }
        if handle.is_closed() {
            return Err(closed(fate, tried));
        }
        Err(Problem::LoginRefused { tried, skipped, remaining, partial })
    }
}

/// What became of a password that was to be the answer to a question.
enum Answered {
    /// Logged in.
    In,
    /// The host took it, and wants one of these beside it.
    InPart(Vec<String>),
    /// The host refused it.
    Refused(String),
    /// It was not given; or it was, and the host asks for something else without a word about it.
    Untold { given: bool, why: String },
}

/// Gives the password to a host that asks for it as a question; other questions are not answered.
async fn ask_back(user: &str, handle: &mut Handle<Handler>, password: &SecretString) -> Answered {
    let mut given = false;
    let over = |given, why| if given { Answered::Refused(why) } else { Answered::Untold { given, why } };
    let mut asked = handle.authenticate_keyboard_interactive_start(user, None::<String>).await;
    // A host may send empty questions, but not for ever.
    for _ in 0..4 {
        let answers = match asked {
            Err(error) => return over(given, error.to_string()),
            Ok(Asked::Success) => return Answered::In,
            Ok(Asked::Failure { partial_success: true, remaining_methods }) if given => {
                return Answered::InPart(remaining_methods.iter().map(String::from).collect());
            }
            Ok(Asked::Failure { .. }) => return over(given, "the host refused it".to_owned()),
            Ok(Asked::InfoRequest { instructions, prompts, .. }) => match prompts.as_slice() {
                [] => Vec::new(),
                [one] if !one.echo && asks_for_password(&one.prompt, &instructions, user) => {
                    if given {
                        return over(given, "the host asks for it again".to_owned());
                    }
                    given = true;
                    vec![password.expose_secret().to_owned()]
                }
                all => {
                    let all: Vec<&str> = all.iter().map(|one| one.prompt.as_str()).collect();
                    let why = format!("the host asks another question: {}", clean(&all.join(" / ")));
                    return Answered::Untold { given, why };
                }
            },
        };
        asked = handle.authenticate_keyboard_interactive_respond(answers).await;
    }
    Answered::Untold { given, why: "the host asks without end".to_owned() }
}

async fn attempt(
    user: &str,
    handle: &mut Handle<Handler>,
    with: With,
    hash: Option<HashAlg>,
    agent: Option<&mut AgentClient<UnixStream>>,
) -> Result<AuthResult, String> {
    match (with, agent) {
        (With::Certificate(key, certificate), _) => {
            let answer = handle.authenticate_openssh_cert(user, key, (*certificate).clone()).await;
            answer.map_err(|e| e.to_string())
        }
        (With::Key(key), _) => {
            let answer = handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await;
            answer.map_err(|e| e.to_string())
        }
        (With::Agent(key), Some(agent)) => {
            let answer = handle.authenticate_publickey_with(user, key, hash, agent).await;
            answer.map_err(|e| format!("the agent did not sign ({e})"))
        }
        (With::AgentCertificate(certificate), Some(agent)) => {
            let answer = handle.authenticate_certificate_with(user, *certificate, hash, agent).await;
            answer.map_err(|e| format!("the agent did not sign ({e})"))
        }
        (With::KeyInAgent(certificate), Some(agent)) => {
            let answer = handle.authenticate_certificate_with(user, *certificate, hash, &mut PlainKey(agent)).await;
            answer.map_err(|e| format!("the agent did not sign ({e})"))
        }
        (_, None) => Err("the agent has gone".to_owned()),
    }
}

/// The hash to use with RSA keys: SHA-2 if the host takes it or does not say, nothing if it only takes SHA-1.
async fn rsa_hash(handle: &Handle<Handler>) -> Option<HashAlg> {
    match handle.best_supported_rsa_hash().await {
        Ok(Some(best)) => best,
        Ok(None) | Err(_) => Some(HashAlg::Sha256),
    }
}

/// What it means that the host has gone in the middle of the login: the library reports only a refusal.
fn closed(fate: &Fate, tried: Vec<String>) -> Problem {
    match fate.farewell() {
        Some(said) if said.contains("Too many authentication failures") => Problem::TooManyAttempts { tried },
        said => Problem::ClosedDuringLogin { said },
    }
}

pub(super) async fn connect_agent(socket: &Utf8Path) -> Result<AgentClient<UnixStream>, Problem> {
    let client = AgentClient::connect_uds(socket.as_std_path()).await;
    client.map_err(|e| Problem::Agent { socket: socket.to_owned(), reason: e.to_string() })
}

/// A connection to the agent for this one login, bound to it where the agent knows how.
async fn open_agent(
    socket: &Utf8Path,
    handle: &Handle<Handler>,
) -> Result<(AgentClient<UnixStream>, Vec<AgentIdentity>), Problem> {
    let mut agent = connect_agent(socket).await?;
    if let Some(binding) = handle.agent_session_binding()
        && let Err(e) = agent.bind_session(binding, false).await
    {
        tracing::debug!("the agent does not bind sessions: {e}");
    }
    let identities = agent.request_identities().await;
    let identities = identities.map_err(|e| Problem::Agent { socket: socket.to_owned(), reason: e.to_string() })?;
    Ok((agent, identities))
}
