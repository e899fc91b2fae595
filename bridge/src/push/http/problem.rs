//! Why a push has no outcome, as a problem.

use holdfast_http::{Kind, Problem};

use crate::push::request::PushError;

impl From<&PushError> for Problem {
    fn from(error: &PushError) -> Self {
        let kind = match error {
            PushError::Malformed(_) => Kind::Malformed,
            PushError::Invalid(_) => Kind::Invalid,
            PushError::IdReused(_) => Kind::IdReused,
            PushError::Busy => Kind::Busy,
            PushError::Store(error) => Kind::from(error),
            PushError::Held { .. } => Kind::InDoubt,
            PushError::Stopped => Kind::Stopping,
            PushError::StillInFlight { .. } => Kind::InFlight,
        };
        let problem = Self::new(kind, error.to_string());
        match error {
            PushError::StillInFlight { id } | PushError::Held { id } => problem.of_push(id),
            _ => problem,
        }
    }
}
