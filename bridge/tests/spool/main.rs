//! The spool of an outage: order, nothing acknowledged lost, duplicates that say so, recovery without a restart.

mod broker;
mod devices;
mod kill;
mod property;
mod story;
