//! Makes an identity what its file says: only by changes that were shown before, as often as it takes, and then reads
//! back and compares everything.

use tokio::time::{Instant, sleep};

use super::access::{Found, wanted};
use super::desired::{Change, PlanError, Planned, SLUG, plan};
use super::rules::{listed, same};
use super::{Class, Infisical, InfisicalError, Project};
use crate::model::IdentitySpec;

/// An identity that is what its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its id.
    pub identity: String,
    /// What stands on the server now.
    pub found: Found,
    /// What was changed.
    pub changed: Vec<Change>,
}

/// Why an identity is not what its file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// That cannot be reached.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The server refused, or could not be asked.
    #[error("`{name}` is not settled{}", at(.change))]
    Infisical {
        /// The identity's name.
        name: String,
        /// At which change.
        change: Option<Box<Change>>,
        /// What it said.
        #[source]
        error: InfisicalError,
    },
    /// More would have to change than what was shown.
    #[error("what was shown is stale: now there is also `{0}` to do")]
    Stale(Box<Change>),
    /// What the server stored is not what it was told.
    #[error("the server keeps something else than it was told: {0}")]
    ReadBack(String),
}

fn at(change: &Option<Box<Change>>) -> String {
    change.as_ref().map_or_else(String::new, |change| format!(" (at `{change}`)"))
}

impl Infisical {
    /// Looks, and says what would have to change.
    ///
    /// # Errors
    /// When the server cannot be asked, or the state cannot be reached.
    pub async fn plan_identity(&self, spec: &IdentitySpec) -> Result<Planned, ApplyError> {
        let found = self.look(spec).await.map_err(|error| failed(spec, None, error))?;
        let changes = plan(spec, &found)?;
        Ok(Planned { found, changes })
    }

    /// Makes these changes, which were planned and shown, and reads everything back.
    ///
    /// Done twice it changes nothing the second time. Where an answer is lost it looks what became of the change. It
    /// ends when the server has forgotten what the identity was allowed before.
    ///
    /// # Errors
    /// When the identity is not what its file says. What was done stays; doing it again goes on from there.
    pub async fn apply_identity(&self, spec: &IdentitySpec, shown: &[Change]) -> Result<Applied, ApplyError> {
        let mut changed: Vec<Change> = Vec::new();
        let mut last = None;
        for _ in 0..self.config.rounds.max(1) {
            let Planned { mut found, changes } = self.plan_identity(spec).await?;
            if let Some(new) = changes.iter().find(|change| !shown.contains(change)) {
                // What keyswap wrote itself and reads back otherwise is not a stale plan.
                return Err(match changed.iter().any(is_grant) && is_grant(new) {
                    true => ApplyError::ReadBack(new.to_string()),
                    false => ApplyError::Stale(Box::new(new.clone())),
                });
            }
            if changes.is_empty() {
                return self.settled(spec, found, changed).await;
            }
            for change in changes {
                match self.change(spec, &mut found, &change).await {
                    Ok(()) => note(&mut changed, change),
                    Err(error) if error.may_have_acted() || (last.is_some() && is_overtaken(&error)) => {
                        note(&mut changed, change.clone());
                        if matches!(change, Change::Create { .. }) && error.may_act_late() {
                            self.await_identity(spec, &found.project).await;
                        }
                        last = Some((change, error));
                        break;
                    }
                    Err(error) => return Err(failed(spec, Some(change), error)),
                }
            }
        }
        Err(match last {
            Some((change, error)) => failed(spec, Some(change), error),
            None => ApplyError::ReadBack("it is never as it was told to be".to_owned()),
        })
    }

    /// Names are not unique: before an identity is made once more, the one whose answer was lost is looked for.
    async fn await_identity(&self, spec: &IdentitySpec, project: &Project) {
        let end = Instant::now() + self.config.look_for;
        while !matches!(self.find_identity(spec, project).await, Ok(Some(_))) && Instant::now() < end {
            sleep(self.config.look_again).await;
        }
    }

    async fn change(&self, spec: &IdentitySpec, found: &mut Found, change: &Change) -> Result<(), InfisicalError> {
        let project = found.project.id.clone();
        let identity = found.identity.as_ref().map(|identity| identity.id.clone()).unwrap_or_default();
        match change {
            Change::Create { .. } => {
                found.identity = Some(self.create_identity(spec, &found.project).await?);
                Ok(())
            }
            Change::Join { .. } => self.join(&project, &identity).await,
            Change::StripRoles { .. } => self.strip_roles(&project, &identity).await,
            Change::AttachTokenAuth { to } => self.set_token_auth(&identity, false, to).await,
            Change::ChangeTokenAuth { to, .. } => self.set_token_auth(&identity, true, to).await,
            Change::Grant { rules } => self.grant((&project, &identity), SLUG, rules).await,
            Change::Regrant { from, to } => self.regrant(&from.id, SLUG, to).await,
            Change::Withdraw { privilege } => self.withdraw(&privilege.id).await,
        }
    }

    /// All is as it was told; now what the server makes of it, and then the wait.
    async fn settled(&self, spec: &IdentitySpec, found: Found, changed: Vec<Change>) -> Result<Applied, ApplyError> {
        let Some(identity) = found.identity.as_ref().map(|identity| identity.id.clone()) else {
            return Err(ApplyError::ReadBack("there is no identity".to_owned()));
        };
        let sources = self.effective(&found.project.id, &identity).await.map_err(|error| failed(spec, None, error))?;
        let mut rules = Vec::new();
        for source in sources {
            match source.rules {
                Some(own) => rules.extend(own),
                None => {
                    let name = crate::service::http::clean(&source.name);
                    return Err(ApplyError::ReadBack(format!("`{name}` has rules of an unknown form")));
                }
            }
        }
        if !same(&rules, &wanted(spec)) {
            return Err(ApplyError::ReadBack(format!("in effect it is allowed {}", listed(&rules))));
        }
        let matters = |change: &Change| {
            !matches!(change, Change::AttachTokenAuth { .. } | Change::ChangeTokenAuth { .. } | Change::Create { .. })
        };
        if changed.iter().any(matters) {
            sleep(self.config.permission_cache).await;
        }
        Ok(Applied { identity, found, changed })
    }
}

/// After a lost answer the same change may have been carried out meanwhile.
fn is_overtaken(error: &InfisicalError) -> bool {
    matches!(error.class(), Some(Class::BadRequest | Class::NotFound))
}

fn is_grant(change: &Change) -> bool {
    matches!(change, Change::Grant { .. } | Change::Regrant { .. })
}

fn note(changed: &mut Vec<Change>, change: Change) {
    if !changed.contains(&change) {
        changed.push(change);
    }
}

fn failed(spec: &IdentitySpec, change: Option<Change>, error: InfisicalError) -> ApplyError {
    ApplyError::Infisical { name: spec.name.clone(), change: change.map(Box::new), error }
}
