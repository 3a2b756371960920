//! A retirement, told.

use serde_json::json;

use super::super::args::Output;
use super::super::session::Session;
use crate::model::{Fingerprint, HostName, RunId};
use crate::remote::Copy;

/// Tells of it, for people or for programs.
pub(super) struct Say<'a> {
    pub(super) session: &'a Session,
    pub(super) run: &'a RunId,
}

impl Say<'_> {
    pub(super) fn is_json(&self) -> bool {
        self.session.global.output == Output::Jsonl
    }

    pub(super) fn copy(&self, host: &HostName, copy: &Copy) {
        let fingerprint = copy.fingerprint.as_ref().map(Fingerprint::short);
        let mut out = self.session.out();
        if self.is_json() {
            out.json(&json!({
                "event": "retire-copy", "run": self.run, "host": host, "kind": copy.kind, "at": copy.at,
                "fingerprint": fingerprint,
            }));
        } else {
            let kind = if copy.kind == "superseded" { "file that the pointer used to name" } else { &copy.kind };
            out.line(&format!("  {host}: {kind} ({}): {}", fingerprint.unwrap_or_default(), copy.at));
        }
    }

    pub(super) fn line(&self, text: &str) {
        let mut out = self.session.out();
        if self.is_json() {
            out.json(&json!({ "event": "retire-note", "run": self.run, "message": text }));
        } else {
            out.line(text);
        }
    }

    pub(super) fn refused(&self, reasons: &[String], code: u8) -> u8 {
        if !self.is_json() {
            self.session.out().line(&format!("run {} is not retired:", self.run));
        }
        self.end("refused", &reasons.join("\n"), code);
        code
    }

    /// Past the point of no return, and not at the end.
    pub(super) fn owed(&self, reason: &str, again: &str) -> u8 {
        let code = 3;
        if !self.is_json() {
            self.session
                .out()
                .line(&format!("run {} cannot be taken back any more, and is not wholly retired:", self.run));
        }
        self.end("owed", &format!("{reason}\nto go on with it, when that is mended: {again}"), code);
        code
    }

    pub(super) fn end(&self, status: &str, detail: &str, code: u8) {
        let mut out = self.session.out();
        if self.is_json() {
            let end = json!({
                "event": "retire-finished", "run": self.run, "status": status, "detail": detail, "exit_code": code,
            });
            out.json(&end);
        } else {
            detail.lines().for_each(|line| out.line(&format!("  {line}")));
        }
    }
}
