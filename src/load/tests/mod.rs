//! Whole files in, models or messages out.

mod good;
mod messages;
mod properties;
mod schema;

use super::file::Sink;
use super::{Context, Diagnostics, Playbook};
use crate::model::Inventory;

pub(super) fn context() -> Context {
    Context { home: "/home/ops".into(), cwd: "/home/ops/keyswap".into(), user: "me".to_owned() }
}

pub(super) fn inventory(texts: &[(&str, &str)]) -> Result<Inventory, Diagnostics> {
    let texts: Vec<_> = texts.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
    super::inventory::from_texts(Sink::default(), &texts, &context(), None)
}

fn playbook(text: &str) -> Result<Playbook, Diagnostics> {
    super::playbook::from_text(Sink::default(), "playbooks/x.toml".into(), text, &context())
}
