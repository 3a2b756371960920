//! Where a step may stand that is done once for the whole run.

use toml::de::DeValue;

use super::diag::{Diag, Place};
use super::reader::{Entry, Reader};
use crate::model::BatchSize;

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
