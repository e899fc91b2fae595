//! Transcripts: what a shard hears, and what it says to whom.
//!
//! One engine stands between clients, bridges and a store, all on a virtual clock. A test is one short story, told as
//! `client.sends(…)`, `bridge.settles(1..=3)`, `client.hears(…)`; nothing happens that it does not tell, but for answers of the store and
//! of bridges to announced filters, which come at once unless the story holds them back.
//!
//! Start with `stage`; each of the other files is one chapter of the protocol.

mod bridge;
mod client;
mod packets;
mod stage;
mod store;

mod admission;
mod backpressure;
mod bad_input;
mod claiming;
mod connecting;
mod draining;
mod events;
mod former_owner;
mod json;
mod keep_alive;
mod keeping;
mod last_words;
mod links;
mod opener_wills;
mod ownership;
mod probing;
mod publishing;
mod receipts;
mod receiving;
mod resuming;
mod retained;
mod stuck_bridge;
mod subscribing;
mod takeover;
mod websocket;
mod wills;
