//! What every server of ours answers by itself, whatever its routes are.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use axum::extract::{Path, Request};
use axum::http::Uri;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use tokio::net::{TcpListener, TcpStream};

use super::heads::Outspoken;
use super::problem::{Kind, Problem};

/// Adds what a problem means to `routes`, and answers with one whatever none of them takes; `look` says where to look for what there is. To be
/// called once, when all routes are together.
pub fn dress(routes: Router, look: &'static str) -> Router {
    let told = move |kind, what: &'static str| async move { Problem::new(kind, format!("{what}; {look}")) };
    routes
        .route("/v1/problems/{problem}", get(explain))
        .method_not_allowed_fallback(move || {
            told(Kind::MethodNotAllowed, "the Allow header says which methods this address takes")
        })
        .fallback(move || told(Kind::NotFound, "there is nothing at this address"))
        .layer(from_fn(judge_address))
}

/// Serves until `stop` comes, up to the last answer.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(Listening(listener), routes).with_graceful_shutdown(stop).await
}

async fn explain(Path(name): Path<String>) -> Response {
    match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
        Some(kind) => Json(kind.describe()).into_response(),
        None => Problem::new(Kind::NotFound, "no problem has this name").into_response(),
    }
}

/// An escape that is none would be taken for the characters that it is written with.
async fn judge_address(request: Request, next: Next) -> Response {
    match broken_escape(request.uri()) {
        Some(escape) => {
            let why = format!("{escape:?} in the address: must be % and two hexadecimal digits, %25 for %");
            Problem::new(Kind::Malformed, why).into_response()
        }
        None => next.run(request).await,
    }
}

/// The first escape that is none.
fn broken_escape(address: &Uri) -> Option<&str> {
    let parts = [address.path(), address.query().unwrap_or_default()];
    parts.into_iter().flat_map(|part| part.match_indices('%').map(move |(at, _)| &part[at..])).find_map(
        |rest| {
            let digits = rest.bytes().skip(1).take(2).filter(u8::is_ascii_hexdigit).count();
            // No more of it than it should have, which may end within a character.
            let end = rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end);
            (digits < 2).then(|| &rest[..end])
        },
    )
}

/// Connections whose every answer says what is wrong.
struct Listening(TcpListener);

impl Listener for Listening {
    type Io = Outspoken<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, from) = Listener::accept(&mut self.0).await;
        (Outspoken::new(stream), from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_has_two_hexadecimal_digits() {
        for well in ["/", "/a%20b", "/%C3%bc?page=%2F", "/a?b"] {
            assert_eq!(broken_escape(&well.parse().unwrap()), None, "{well}");
        }
        for (wrong, escape) in
            [("/%zz", "%zz"), ("/a%2", "%2"), ("/%", "%"), ("/%20%4g/x", "%4g"), ("/a?page=%", "%")]
        {
            assert_eq!(broken_escape(&wrong.parse().unwrap()), Some(escape), "{wrong}");
        }
    }
}
