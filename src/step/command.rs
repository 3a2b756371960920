//! `command`: the operator's own commands, with their own way back or none to need.

use std::time::Duration;

use super::{No, Planned, Planner, Work};
use crate::model::{Command, CommandLine, Step};
use crate::remote::shell::quote::words;
use crate::remote::{Act, UndoRecord};

/// A command's limit where the step names none.
const LIMIT: Duration = Duration::from_secs(60);

impl Planner<'_> {
    pub(super) fn command(&mut self, step: &Step, command: &Command) -> Result<Planned, No> {
        let limit = step.timeout.unwrap_or(LIMIT);
        let script = script(&command.run);
        let Some(undo) = &command.undo else {
            return Ok(Planned::check("runs a command that changes nothing", Work::Peek { script, limit }));
        };
        self.dirty_process = true;
        self.plan.undo.push(UndoRecord::Command { step: step.id.index, script: self::script(undo), limit });
        let shown = format!("runs: {script}");
        Ok(Planned::change("runs a command", vec![shown], Act::Command { script, limit }))
    }
}

fn script(line: &CommandLine) -> String {
    match line {
        CommandLine::Shell(script) => script.clone(),
        CommandLine::Argv(argv) => words(argv),
    }
}
