//! Secrets that keyswap does not mint: for whom each must be, and whether others use it too.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

use super::CliError;
use super::audit::judge::{FromRuns, Names};
use super::inventory::Selected;
use super::session::Session;
use super::token::{self, Issuing};
use crate::load::{self, Diagnostics};
use crate::model::{Action, IdentitySpec, SecretName, Services, Step};
use crate::plan::RunPlan;
use crate::secret::SecretValue;
use crate::step::{Values, Work};

/// By the secret: the file of the identity that it must be for.
pub(super) type Identities = BTreeMap<SecretName, Utf8PathBuf>;

/// Those of the secrets that a step of these proves.
pub(super) fn of_steps<'a>(steps: impl Iterator<Item = &'a Step>) -> Identities {
    let proved = steps.filter(|step| step.enabled).filter_map(|step| match &step.action {
        Action::Prove(prove) => Some((prove.secret.clone(), prove.identity.clone()?)),
        _ => None,
    });
    proved.collect()
}

/// The same of a run that is gone on with.
pub(super) fn of_plan(plan: &RunPlan) -> Identities {
    let steps = plan.hosts.iter().flat_map(|planned| &planned.plan.steps);
    let proved = steps.filter_map(|step| match &step.work {
        Work::Prove { secret, identity } => Some((secret.clone(), identity.clone()?)),
        _ => None,
    });
    proved.collect()
}

/// The files, read.
pub(super) fn read(identities: &Identities) -> Result<Vec<(SecretName, IdentitySpec)>, Diagnostics> {
    identities.iter().map(|(secret, file)| Ok((secret.clone(), load::identity(file)?))).collect()
}

/// Who says of each what it may read. Each identity must be exactly what its file says.
pub(super) async fn open(
    session: &Session,
    services: &Services,
    identities: &[(SecretName, IdentitySpec)],
) -> Result<Vec<Issuing>, CliError> {
    let mut all = Vec::new();
    for (secret, spec) in identities {
        all.push(token::open(session, services, (secret, spec)).await?);
    }
    Ok(all)
}

/// A credential that others use too, as the inventory says, is placed nowhere: runners are to leave it.
pub(super) fn none_is_shared(selected: &Selected, values: &Values) -> Result<(), CliError> {
    let names = Names::new(&selected.inventory, FromRuns::default());
    let steps = selected.hosts.iter().flat_map(|(_, steps)| steps).filter(|step| step.enabled);
    let placed = steps.filter_map(|step| match &step.action {
        Action::Place(place) => Some(&place.secret),
        _ => None,
    });
    for secret in placed {
        let known = values.get(secret).map(SecretValue::fingerprint);
        let Some((name, fingerprint)) = known.and_then(|known| Some((names.shared(known)?, known.short()))) else {
            continue;
        };
        return Err(CliError::usage(format!(
            "[secrets.{secret}] is the shared `{name}` ({fingerprint}): others use it too, as [known.{name}] says, and it is placed \
             on no host"
        )));
    }
    Ok(())
}
