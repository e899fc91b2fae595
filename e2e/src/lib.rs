//! Tests across whole processes; see `tests/`.
