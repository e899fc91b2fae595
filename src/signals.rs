//! SIGTERM and SIGINT ask for a drain; the second one does not wait for its end. SIGHUP asks to read the configuration again.
//!
//! SIGPIPE needs nothing: Rust's runtime ignores it from the start, so a peer that is gone is an error of the write.

use std::io;
use std::thread;

use holdfast_gateway::DrainTrigger;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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

/// Calls `reload` for each SIGHUP, for the rest of the process's life.
pub(crate) fn on_reload_signal(mut reload: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    thread::Builder::new().name("reload".to_owned()).spawn(move || {
        for _ in signals.forever() {
            reload();
        }
    })?;
    Ok(())
}
