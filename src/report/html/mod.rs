//! The story as one self-contained page: no script, no network, nothing but itself.
//!
//! Invariants:
//! - every text goes through the template's own escaping; only the style sheet, which is ours, does not;
//! - the page forbids itself everything but that one style sheet (Content-Security-Policy), so that a text which
//!   escaped all that would still do nothing;
//! - lanes are numbers and words of ours: no text of a host becomes an attribute or a class.

mod lanes;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, HtmlEscape, UndefinedBehavior, context};
use sha2::{Digest, Sha256};

use super::story::Story;
use crate::model::chain;
use crate::secret::Redactor;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// So many hosts are shown open, on the screen and in print.
const FEW: usize = 12;

/// A page that cannot be made: a fault of the template.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PageError(String);

/// Makes the page.
///
/// # Errors
/// When the template is at fault.
pub fn page(story: &Story, redactor: &Redactor) -> Result<String, PageError> {
    let fault = |error: minijinja::Error| PageError(chain(&error));
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fault)?);
    templates.add_filter("stamp", |text: &str| with(text, "%Y-%m-%d %H:%M:%S UTC"));
    templates.add_filter("clock", |text: &str| with(text, "%H:%M:%S"));
    templates.add_filter("day", |text: &str| with(text, "%A, %-d %B %Y"));
    templates.add_filter("took", took);
    templates.add_filter("lasted", |from: &str, to: &str| lasted(from, to));
    templates.add_filter("code", |text: &str| Value::from_safe_string(code(text)));
    templates.add_filter(
        "plural",
        |count: usize, one: &str, many: &str| {
            if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
        },
    );
    // The ending `.html` is what turns the escaping on.
    templates.add_template("page.html", PAGE).map_err(fault)?;
    let template = templates.get_template("page.html").map_err(fault)?;
    let lanes = lanes::lanes(story);
    let page = template.render(context! {
        s => Value::from(Serde(story.cleaned(redactor))),
        lanes => Value::from(Serde(lanes)),
        few => story.hosts.len() <= FEW,
        style => Value::from_safe_string(STYLE.to_owned()),
        // `/` is escaped in texts, and a hash may hold it: it is ours as well.
        style_hash => Value::from_safe_string(STANDARD.encode(Sha256::digest(STYLE))),
    });
    page.map_err(fault)
}

/// Escapes a text; what stands between backticks is set as code.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let closed = text.matches('`').count() / 2 * 2;
    for (number, part) in text.splitn(closed + 1, '`').enumerate() {
        // Writing into a string cannot fail.
        let _ = match number % 2 {
            0 => write!(out, "{}", HtmlEscape(part)),
            _ => write!(out, "<code>{}</code>", HtmlEscape(part)),
        };
    }
    out
}

fn with(text: &str, format: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime(format).to_string())
}

/// How long something took, for people.
fn lasted(from: &str, to: &str) -> String {
    match (from.parse::<Timestamp>(), to.parse::<Timestamp>()) {
        (Ok(from), Ok(to)) => took(to.as_millisecond().saturating_sub(from.as_millisecond())),
        _ => String::new(),
    }
}

fn took(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0 => format!("{} ms", ms.max(0)),
        1..10 => format!("{seconds}.{} s", ms % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests;
