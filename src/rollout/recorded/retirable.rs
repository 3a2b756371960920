//! A run that is to be retired by what its hosts recorded: only one of which every host says that it ended new.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Keeps, Manifest, manifests_of, plan_of, planned};
use crate::model::{Fingerprint, HostName, RunId, SecretName};
use crate::plan::RunPlan;

/// A run that is wholly new, as its hosts say.
pub struct Retirable {
    /// What is known of each host, as a run of this machine.
    pub plan: RunPlan,
    /// What the run brought.
    pub secrets: BTreeMap<SecretName, Fingerprint>,
    /// Who began the run, as the hosts tell.
    pub owner: String,
}

/// Why a run is not to be retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRetirable {
    /// One a host.
    pub reasons: Vec<String>,
    /// A host could not be reached.
    pub unreachable: bool,
}

/// Asks the hosts for what they keep of a run. All of its hosts must have been asked, and each say that it ended new.
///
/// # Errors
/// When one does not, or when it cannot be told.
pub async fn retirable(
    asked: Vec<Asked>,
    as_run: &RunId,
    run: &RunId,
    forks: usize,
) -> Result<Retirable, NotRetirable> {
    let asked = manifests_of(asked, run, forks).await;
    let told = |asked: &Asked| match &asked.answer {
        Ok(keeps) => keeps.manifest.as_ref().and_then(|manifest| manifest.as_ref().ok()).cloned(),
        Err(_) => None,
    };
    let manifests: Vec<Manifest> = asked.iter().filter_map(told).collect();
    let mut not = NotRetirable { reasons: Vec::new(), unreachable: false };
    let Some(first) = manifests.first() else {
        not.reasons.push(format!("no host that was reached tells what run {run} was"));
        not.unreachable = asked.iter().any(|asked| asked.unreachable().is_some());
        return Err(not);
    };
    if manifests.iter().any(|manifest| manifest.hosts.is_empty()) {
        not.reasons.push(format!(
            "run {run} has more hosts than each of them keeps the names of: which they are only its journal tells"
        ));
    }
    let mut secrets = BTreeMap::new();
    for (name, fingerprint) in manifests.iter().flat_map(|manifest| &manifest.secrets) {
        if secrets.insert(name.clone(), fingerprint.clone()).is_some_and(|other| other != *fingerprint) {
            not.reasons.push(format!("the hosts contradict each other on what `{name}` was"));
        }
    }
    let members: BTreeSet<HostName> = manifests.iter().flat_map(|manifest| manifest.hosts.iter().cloned()).collect();
    let answered: BTreeSet<HostName> = manifests.iter().map(|manifest| manifest.host.clone()).collect();
    let (playbook, owner) = (first.playbook.clone(), first.owner.clone());
    let mut plan = plan_of(as_run, run, playbook, first.guard, forks);
    let names: BTreeSet<HostName> = asked.iter().map(|asked| asked.host.name.clone()).collect();
    let mut seen = BTreeSet::new();
    for Asked { host, answer } in asked {
        let name = host.name.clone();
        // Under another name it may have answered already.
        let part = members.contains(&name) && !answered.contains(&name);
        let keeps = match answer {
            Ok(keeps) => keeps,
            Err(why) => {
                if part || members.is_empty() {
                    not.reasons.push(format!("{name}: {why}"));
                    not.unreachable = true;
                }
                continue;
            }
        };
        match ends_new(run, &keeps) {
            // The same machine under another name is looked at once.
            Ok(()) => {
                if keeps.facts.machine == "-"
                    || seen.insert((keeps.facts.machine.clone(), keeps.facts.state_dir.clone()))
                {
                    plan.hosts.push(planned(host, keeps.manifest));
                }
            }
            Err(why) if part || keeps.record(run).is_some() => not.reasons.push(format!("{name}: {why}")),
            Err(_) => {}
        }
    }
    let missing = members.iter().filter(|name| !answered.contains(*name) && !names.contains(*name));
    not.reasons.extend(missing.map(|name| format!("{name} is a host of the run, and was not asked")));
    if not.reasons.is_empty() { Ok(Retirable { plan, secrets, owner }) } else { Err(not) }
}

/// Whether a host says that the run left it wholly new, and tells what it replaced.
fn ends_new(run: &RunId, keeps: &Keeps) -> Result<(), String> {
    let facts = &keeps.facts;
    if keeps.unsettled() {
        return Err(format!("run {} holds this host ({})", facts.run, facts.phase));
    }
    let Some(record) = keeps.record(run) else {
        return Err(format!(
            "it knows nothing of run {run}: whether it is on the new credential only the journal tells"
        ));
    };
    // What a host says of the run that it is in counts more than what it kept of earlier ones.
    let ended = if facts.run == run.as_str() { &facts.phase } else { &record.ended };
    match ended.as_str() {
        _ if !record.held => {
            Err(format!("run {run} never held it: whether it is on the new credential only the journal tells"))
        }
        "new" => match &keeps.manifest {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(format!("{why}: nobody can tell what the run replaced")),
            None => Err("it keeps no manifest: nobody can tell what the run replaced".to_owned()),
        },
        ended => {
            let ended = if ended.is_empty() { "not known" } else { ended };
            Err(format!("run {run} did not end new on this host ({ended})"))
        }
    }
}
