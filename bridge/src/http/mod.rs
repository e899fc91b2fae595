//! What everything that answers over HTTP has in common: errors as problem details (`problem`), what comes from outside read in words of our own
//! (`reading`), and how an operation is described in the OpenAPI document (`operation`).
//!
//! Knows neither pushes nor devices nor the bridge: those who answer say what their own errors are as problems. The document itself is made in
//! `push::openapi`.

mod operation;
mod problem;
pub(crate) mod reading;

pub(crate) use operation::Operation;
pub(crate) use problem::{Kind, Problem};
