//! SIGTERM and SIGINT ask for a drain; the second one does not wait for its end.
//!
//! SIGPIPE needs nothing: Rust's runtime ignores it from the start, so a peer that is gone is an error of the write.

use std::io;
use std::thread;

use holdfast_gateway::DrainTrigger;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Listens for the rest of the process's life. Until this is called both signals end it at once, which is right
/// while nothing is served.
pub(crate) fn drain_on_signal(trigger: DrainTrigger) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            trigger.request();
        }
        if signals.next().is_some() {
            eprintln!("holdfast: a second signal: the drain is cut short");
            std::process::exit(1);
        }
    })?;
    Ok(())
}
