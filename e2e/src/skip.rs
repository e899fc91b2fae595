//! Tests that cannot be tried on this machine say so.

use std::io::{Write, stderr};

/// One line on standard error for whoever runs the suite: this test has asserted nothing, and why. Not by `eprintln!`, whose words a test that passes
/// keeps to itself.
pub fn not_tried(test: &str, missing: &str) {
    // Nobody is left to be told.
    let _ = writeln!(stderr(), "NOT TRIED: {test}: {missing}");
}
