#![forbid(unsafe_code)]
//! What everything that answers over HTTP has in common, be it a gateway or a bridge: so the same request is judged alike by both, and answered in the
//! same words.
//!
//! `problem` is the one table of what may be wrong (RFC 9457), `server` what every server answers by itself, `reading` and `form` read what comes from
//! outside and say what is wrong with it in words of our own, `device` how a request names a device, `operation` how one is described in the
//! OpenAPI document, which `push::openapi` of the bridge makes.
//!
//! Knows neither pushes nor shards nor stores: those who answer say what their own errors are as problems. Start with [`Problem`], then [`serve`].

mod device;
mod form;
mod heads;
mod operation;
mod problem;
pub mod reading;
mod server;

pub use device::{AskedDevice, NamedDevice};
pub use form::{Form, form, whole};
pub use operation::Operation;
pub use problem::{Explanation, Kind, Problem};
pub use server::{dress, explanation, serve};
