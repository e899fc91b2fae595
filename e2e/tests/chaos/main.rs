//! Faults in a running cluster: gateways, bridges, a real Kafka and Redis are killed, stopped and cut off from each other while a fleet of
//! simulated devices sends frames. Afterwards the devices' ledger is compared with the contents of Kafka.
//!
//! Start with [`trial`]. One trial runs at a time, since each is several processes. What takes long is ignored here and runs with `make chaos`.

mod bounds;
mod joining;
mod killed;
mod outage;
mod random;
mod stopped;
mod store;
mod trial;
mod weather;
