//! Ctrl-C and its kin: once means start no new step and settle, twice means leave at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliError, error};
use crate::report::Screen;

/// Watches for SIGINT, SIGTERM and SIGHUP as long as the runtime lives. `say` is called at the first one.
///
/// The second one ends the process at once with 130. The journal is synced before every act, so it is whole; the hosts
/// are settled by `resume`.
pub(super) fn watch(
    cancel: CancellationToken,
    screen: &Screen,
    say: impl Fn() + Send + 'static,
) -> Result<(), CliError> {
    let screen = screen.clone();
    let listen = |kind| signal(kind).map_err(|error| CliError::internal("cannot listen for signals", error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if !first {
                // Nothing half-drawn is left on the terminal; who draws at this moment is not waited for.
                let _hold = screen.try_hold();
                std::process::exit(i32::from(error::INTERRUPTED));
            }
            first = false;
            cancel.cancel();
            say();
        }
    });
    Ok(())
}
