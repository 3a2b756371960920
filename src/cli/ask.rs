//! The step `approve`: a run waits for a person at the terminal, or for the signatures that `[approval]` demands.
//!
//! Where signatures are demanded nobody can say yes in their place, at the terminal or by `--yes`.

use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde_json::json;

use super::order::Warrant;
use super::prompt::Terminal;
use crate::approval::{Kind, Sealed};
use crate::journal::{Operator, Store};
use crate::model::ApprovalPolicy;
use crate::report::sanitize;
use crate::step::{Consent, Question};

/// How often the place where approvals are laid is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Who is asked.
pub(super) struct Asker {
    policies: Vec<ApprovalPolicy>,
    store: Store,
    by: Operator,
    terminal: Terminal,
    /// One question at a time at the terminal.
    turn: tokio::sync::Mutex<()>,
}

impl Asker {
    pub(super) fn new(policies: Vec<ApprovalPolicy>, store: Store, by: Operator, terminal: Terminal) -> Self {
        Self { policies, store, by, terminal, turn: tokio::sync::Mutex::new(()) }
    }

    /// Whether there is anybody who could answer.
    ///
    /// # Errors
    /// That there is not.
    pub(super) fn could_answer(policies: &[ApprovalPolicy]) -> Result<(), String> {
        if policies.is_empty() && !Terminal::is_there() {
            return Err(
                "it waits for a person's word: run it on a terminal, or say in [approval] whose signature counts"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Asks, and waits for as long as the question holds.
    ///
    /// # Errors
    /// Why there is no consent.
    pub(super) async fn ask(
        &self,
        question: &Question,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Consent, String> {
        Self::could_answer(&self.policies)?;
        if self.policies.is_empty() {
            self.at_the_terminal(question).await
        } else {
            self.signed(question, progress).await
        }
    }

    async fn at_the_terminal(&self, question: &Question) -> Result<Consent, String> {
        let _turn = self.turn.lock().await;
        let text = question.to_string();
        let held = self.terminal.put(&sanitize::line(&text, sanitize::FIELD)).map_err(|error| error.to_string())?;
        let asked = tokio::task::spawn_blocking(Terminal::yes);
        let answer = tokio::time::timeout(question.limit, asked).await;
        drop(held);
        let answer = answer.map_err(|_| format!("nobody answered in {} s", question.limit.as_secs()))?;
        match answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())? {
            true => {
                let detail = format!("approved at the terminal by {}@{}", self.by.user, self.by.host);
                Ok(Consent { detail, proofs: None })
            }
            false => Err("declined at the terminal".to_owned()),
        }
    }

    async fn signed(&self, question: &Question, progress: &(dyn Fn(String) + Send + Sync)) -> Result<Consent, String> {
        let plan = json!({
            "run": question.run, "step": question.step.to_string(), "batch": question.batch, "hosts": question.hosts,
            "nonce": uuid::Uuid::new_v4().simple().to_string(), "made": Timestamp::now(),
            "approval": self.policies, "says": [question.to_string(), format!("run {}", question.run)],
        });
        let sealed = Sealed::new(Kind::Step, plan);
        let host = question.host.as_ref().map(|host| format!("-{host}")).unwrap_or_default();
        let name = format!("step-{}-batch-{}{host}.plan", question.step.index, question.batch);
        let file = Utf8PathBuf::from_path_buf(self.store.dir(&question.run).path().join(name))
            .map_err(|_| "the state directory's name is not UTF-8".to_owned())?;
        sealed.write(&file).map_err(|error| error.to_string())?;
        progress(format!("{question}: keyswap approve {file} --signer NAME"));
        let began = Instant::now();
        loop {
            // Each look is at the whole: also at whether who signed may sign still.
            match Warrant::open(sealed.clone(), &file, &self.policies) {
                Ok(warrant) => {
                    let detail = format!("approved by {}", warrant.names());
                    return Ok(Consent { detail, proofs: Some(warrant.proofs()) });
                }
                Err(error) if began.elapsed() >= question.limit => {
                    let why = error.to_string().lines().next().unwrap_or_default().to_owned();
                    return Err(format!("not approved in {} s: {why}", question.limit.as_secs()));
                }
                Err(_) => tokio::time::sleep(LOOK.min(question.limit)).await,
            }
        }
    }
}
