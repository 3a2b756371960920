//! What holds between steps: where one may stand that is done once for the whole run, and whether a secret's identity is asked.

use toml::de::DeValue;

use super::diag::{Diag, Place};
use super::reader::{Entry, Reader};
use crate::model::{BatchSize, SecretName};

/// In a rollout of several batches a step with `once = "run"` stands before all steps of single hosts and batches, or
/// after all of them. Between them no batch could be let go before the last one had begun.
pub(super) fn check(playbook: &Reader<'_>, batches: &[BatchSize]) {
    if batches.first() == Some(&BatchSize::Percent(100)) {
        return;
    }
    let Some(Entry { value: DeValue::Array(items), place, .. }) = playbook.peek("steps") else { return };
    let once = items.iter().map(|item| {
        let DeValue::Table(step) = item.get_ref() else { return None };
        let value = step.get("once").filter(|value| matches!(value.get_ref(), DeValue::String(text) if text == "run"));
        value.map(|value| Place::new(place.file, &value.span()))
    });
    let once: Vec<Option<Place>> = once.collect();
    let opening = once.iter().take_while(|place| place.is_some()).count();
    let closing = once.iter().rev().take_while(|place| place.is_some()).count();
    let middle = once.len().saturating_sub(opening + closing);
    for place in once.into_iter().skip(opening).take(middle).flatten() {
        let message =
            "a step that is done once for the run cannot stand between others where there are several batches";
        let help = "put it first or last, use `once = \"batch\"`, or leave `batches` out";
        playbook.note(Diag::at(place, message).help(help));
    }
}

/// A secret that names an identity is proved by a step: the name alone does nothing.
pub(super) fn identities<'a>(playbook: &Reader<'_>, named: impl Iterator<Item = &'a SecretName>) {
    let steps = match playbook.peek("steps") {
        Some(Entry { value: DeValue::Array(items), .. }) => items.iter(),
        _ => return,
    };
    let proved: Vec<&str> =
        steps.filter_map(|step| step.get_ref().get("prove")?.get_ref().get("secret")?.get_ref().as_str()).collect();
    // A template may come to be any name.
    if proved.iter().any(|name| name.contains("{{") || name.contains("{%")) {
        return;
    }
    for secret in named.filter(|secret| !proved.contains(&secret.as_str())) {
        let message = format!("`{secret}` names an identity, and no step proves it");
        let help =
            format!("add a step `prove = {{ secret = \"{secret}\" }}`: first with `once = \"run\"`, then without");
        playbook.note(
            Diag::at(playbook.peek("secrets").map_or_else(|| playbook.here(), |entry| entry.place), message).help(help),
        );
    }
}
