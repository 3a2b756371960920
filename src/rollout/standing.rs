//! Steps that stand for the whole run (`once = "run"`).
//!
//! One at the head of the playbook runs before any host is touched. One at its end runs when the hosts of the last batch
//! wait for it, before that batch is let go; the batches before it pass it by, and were let go without it. One in the
//! middle of the playbook is possible where all hosts are one batch: `load` refuses it elsewhere, since a batch could not
//! be let go while it waits for those after it.

use std::collections::HashSet;

use crate::engine::{Saga, Shared, Stop};
use crate::event::EventKind;
use crate::journal::StepState;
use crate::model::{Once, StepStatus};
use crate::step::{HostPlan, PlannedStep, Work};

use super::batch;

/// The steps that stand for the run, and those of them that are behind it.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// In the playbook's order.
    steps: Vec<PlannedStep>,
    opening: HashSet<u32>,
    closing: HashSet<u32>,
    passed: HashSet<u32>,
    /// Some host is to be changed.
    changes: bool,
    /// Before this session the run left a host on the new credential.
    pub(super) new_before: bool,
}

impl Standing {
    /// The steps of a run whose hosts have these plans.
    pub(super) fn of<'a>(plans: &(impl Iterator<Item = &'a HostPlan> + Clone)) -> Self {
        let Some(first) = plans.clone().next() else { return Self::default() };
        let for_run = |step: &&PlannedStep| step.once == Once::Run;
        let index = |step: &PlannedStep| step.id.index;
        // Where the condition said no for a host, its step does nothing; another host's may have work.
        let working = |wanted: &PlannedStep| {
            let same = |step: &&PlannedStep| step.id.index == wanted.id.index && step.work != Work::Nothing;
            plans.clone().find_map(|plan| plan.steps.iter().find(same)).unwrap_or(wanted).clone()
        };
        Self {
            steps: first.steps.iter().filter(for_run).map(working).collect(),
            opening: first.steps.iter().take_while(for_run).map(index).collect(),
            closing: first.steps.iter().rev().take_while(for_run).map(index).collect(),
            passed: HashSet::new(),
            changes: plans.clone().any(HostPlan::changes),
            new_before: false,
        }
    }

    /// Takes in what the journal says. A step at the end stands for every host of the run: if hosts are still to begin, it
    /// is not behind them.
    pub(super) fn recall(&mut self, shared: &[StepState], hosts_to_begin: bool) {
        let passed = shared.iter().filter(|step| matches!(step.status, Some(StepStatus::Ok | StepStatus::Changed)));
        let passed = passed.map(|step| step.step.index);
        let own: HashSet<u32> = self.steps.iter().map(|step| step.id.index).collect();
        self.passed =
            passed.filter(|index| own.contains(index) && (!hosts_to_begin || self.opening.contains(index))).collect();
    }

    /// What a batch does at a step that stands for the run: `None`, it goes past it.
    pub(super) fn at(&self, index: u32, last: bool) -> Option<PlannedStep> {
        if self.passed.contains(&index) || (!last && self.closing.contains(&index)) {
            return None;
        }
        self.steps.iter().find(|step| step.id.index == index).cloned()
    }

    /// Those that no host may begin before.
    pub(super) fn before_all(&self) -> Vec<PlannedStep> {
        self.left(&self.opening)
    }

    /// Those that are left when the last batch has ended without one of its hosts at them.
    pub(super) fn after_all(&self) -> Vec<PlannedStep> {
        self.left(&self.closing)
    }

    fn left(&self, which: &HashSet<u32>) -> Vec<PlannedStep> {
        let left = |step: &&PlannedStep| which.contains(&step.id.index) && !self.passed.contains(&step.id.index);
        self.steps.iter().filter(left).cloned().collect()
    }

    /// Runs those that no host may begin before.
    ///
    /// # Errors
    /// The first that did not succeed, named.
    pub(super) async fn open(&mut self, shared: &Shared, sagas: &mut [Saga]) -> Result<(), Stop> {
        for step in self.before_all() {
            self.run(shared, sagas, &step, self.changes).await?;
        }
        Ok(())
    }

    /// Runs one; it is behind the run then.
    ///
    /// # Errors
    /// When it did not succeed, named.
    pub(super) async fn run(
        &mut self,
        shared: &Shared,
        sagas: &mut [Saga],
        step: &PlannedStep,
        needed: bool,
    ) -> Result<(), Stop> {
        let idle = (!needed).then_some("no host of the run changes");
        batch::barrier(shared, sagas, step, idle).await?;
        self.passed.insert(step.id.index);
        Ok(())
    }
}

/// Says of a step that it was not run.
pub(super) fn passed_over(shared: &Shared, step: &PlannedStep, reason: &str) {
    let detail = format!("not run: {reason}");
    let kind = EventKind::StepFinished { status: StepStatus::Skipped, detail, elapsed_ms: 0 };
    shared.events.emit(None, Some(&step.id), kind);
}
