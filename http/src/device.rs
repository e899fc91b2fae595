//! How a request names a device: in its address, or in its body.

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use holdfast_wire::ids::ClientId;
use holdfast_wire::presence::DeviceRequest;

use super::form::{Form, form, whole};
use super::problem::{Kind, Problem};
use super::reading;

/// The client id that is the last part of the address.
#[derive(Debug)]
pub struct NamedDevice(pub String);

impl<S: Send + Sync> FromRequestParts<S> for NamedDevice {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        reading::no_query(&parts.uri)?;
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(client)) => Ok(Self(client)),
            Err(_) => Err(Problem::new(Kind::Invalid, "a client id is UTF-8 text (MQTT-1.5.4-1)")),
        }
    }
}

/// A device that is named in the body, with what is to be done about it.
#[derive(Debug)]
pub struct AskedDevice(pub DeviceRequest);

impl AskedDevice {
    /// Longest body, in bytes: JSON may write each byte of the longest client id in six, and there is room for the rest.
    const BODY_BYTES_MAX: usize = 6 * ClientId::BYTES_MAX + 1_024;

    /// To be laid over the route that takes it.
    pub fn bound() -> DefaultBodyLimit {
        DefaultBodyLimit::max(Self::BODY_BYTES_MAX)
    }
}

impl<S: Send + Sync> FromRequest<S> for AskedDevice {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        reading::no_query(request.uri())?;
        form(request.headers(), &[Form::Json])?;
        let (bytes, id) = (Self::BODY_BYTES_MAX, ClientId::BYTES_MAX);
        let body =
            whole(request, bytes, format!("at most {bytes} bytes; a client id has at most {id}")).await?;
        reading::json(&body).map(Self).map_err(|error| {
            Problem::from(error).after("; give {\"find\": client id} or {\"disconnect\": client id}")
        })
    }
}
