//! Batches, the failure budget, and the scope of the rollback.
//!
//! A batch is worked on host by host, side by side; a step that stands for the batch or the run is a barrier. A failed host
//! within the budget is taken back alone and the rollout goes on; one more stops it, and then `on_failure` says what goes
//! back. Nothing of a batch is let go before all of it has passed.

mod batch;
mod common;
mod exit;
mod preflight;
mod recorded;
mod reopen;
mod run;
mod select;
mod settle;
mod standing;

pub use exit::{Outcome, exit_code, run_status};
pub use preflight::{Preflight, Spared, leave_out, look_around, preflight};
pub use recorded::{
    Asked, NoRun, NotRetirable, Recalled, Retirable, about, ask, held_unseen, history, recall, retirable, which,
};
pub use reopen::{Back, end_as_left, finish, finish_back, go_on, goes_back, is_open, same_secrets, take_back};
pub use run::{Rolling, run};
pub use select::{assign_batches, batch_sizes};
