//! What every server of ours answers by itself, whatever its routes are.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Path, Request};
use axum::http::Uri;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use schemars::SchemaGenerator;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::heads::{HEAD_BYTES_MAX, Outspoken};
use super::operation::Operation;
use super::problem::{Explanation, Kind, Problem};
use super::reading;

/// What a request that is being answered when the server stops may still take.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection may take to bring the head of its next request. Longer than most programs scrape or probe at, so that theirs is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

const EXPLANATION: &str = "/v1/problems/{problem}";

/// Adds what a problem means to `routes`, and answers with one whatever none of them takes; `look` says where to look for what there is. To be
/// called once, when all routes are together.
pub fn dress(routes: Router, look: &'static str) -> Router {
    let told = move |kind, what: &'static str| async move { Problem::new(kind, format!("{what}; {look}")) };
    routes
        .route(EXPLANATION, get(explain))
        .method_not_allowed_fallback(move || {
            told(Kind::MethodNotAllowed, "the Allow header says which methods this address takes")
        })
        .fallback(move || told(Kind::NotFound, "there is nothing at this address"))
        .layer(from_fn(judge_address))
}

/// Serves until `stop` comes. From then on connections on which no request has come whole to its body are closed, and those that are being answered have
/// two seconds for it: whoever holds one open, or never ends a body, holds up nobody's end any longer than that. One that brings no whole head for 75 s is closed at any
/// time, so that those which say nothing do not use up the open files.
pub async fn serve(listener: TcpListener, routes: Router, stop: impl Future<Output = ()>) {
    serve_within(HEAD_WITHIN, listener, routes, stop).await;
}

async fn serve_within(
    head_within: Duration,
    mut listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.max_header_size(HEAD_BYTES_MAX).timer(TokioTimer::new()).header_read_timeout(head_within);
    let routes = TowerToHyperService::new(routes);
    let (running, stopped) = watch::channel(());
    // As many as the process may have open files.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            (stream, _) = Listener::accept(&mut listener) => {
                connections.spawn(converse(http.clone(), stream, routes.clone(), stopped.clone()));
            }
            // It is let go of.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    drop(running);
    while connections.join_next().await.is_some() {}
}

/// One connection, from request to request.
async fn converse(
    http: http1::Builder,
    stream: TcpStream,
    routes: TowerToHyperService<Router>,
    mut stopped: watch::Receiver<()>,
) {
    let asked = AtomicBool::new(false);
    let answer = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        routes.call(request)
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(Outspoken::new(stream)), answer));
    tokio::select! {
        // What goes wrong here is the business of the other end, which sees it.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {}
    }
    // One that waits for its next request ends with this; where the first has not come yet, there is nothing to wait for.
    connection.as_mut().graceful_shutdown();
    if asked.load(Ordering::Relaxed) {
        let _ = timeout(LAST_ANSWER_WITHIN, connection).await;
    }
}

async fn explain(address: Uri, Path(name): Path<String>) -> Result<Json<Explanation>, Problem> {
    reading::no_query(&address)?;
    match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
        Some(kind) => Ok(Json(kind.describe())),
        None => Err(Problem::new(Kind::NotFound, "no problem has this name")),
    }
}

/// What the OpenAPI document says of what a problem means.
pub fn explanation(schemas: &mut SchemaGenerator) -> Operation {
    let about = "At the address that a problem has as its `type`. Every server answers it, gateways too.";
    Operation::new("get", EXPLANATION, "explainProblem", "What a problem means", about)
        .answers::<Explanation>(schemas, 200, "its meaning")
        .problems(schemas, &[Kind::Invalid, Kind::NotFound])
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::body::to_bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{mpsc, oneshot};

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

    /// After this time what was waited for counts as never reached.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Serves, sends each of these on a connection of its own, stops once `answered` of the requests have come, and says what came back.
    async fn stop_amid(requests: &[&str], answered: usize) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // More than any test sends: a handler never waits for room.
        let (come, mut coming) = mpsc::channel(16);
        let take = async move |request: Request| {
            come.send(()).await.unwrap();
            to_bytes(request.into_body(), 100).await.map_or("cut", |_| "read")
        };
        let routes = dress(Router::new().route("/", get(take.clone()).post(take)), "there is little");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, routes, async move { drop(stopped.await) }));
        let mut streams = Vec::new();
        for request in requests {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        for _ in 0..answered {
            timeout(DEADLINE, coming.recv()).await.unwrap().unwrap();
        }
        drop(stop);
        timeout(DEADLINE, server).await.expect("it ends").unwrap();
        let mut answers = Vec::new();
        for mut stream in streams {
            let mut answer = Vec::new();
            // It may end with a reset as well.
            let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed");
            answers.push(String::from_utf8(answer).unwrap());
        }
        answers
    }

    #[tokio::test]
    async fn connections_that_are_idle_or_half_read_do_not_outlive_the_stop() {
        let asked = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let and_half = format!("{asked}GET / HT");
        let answers = stop_amid(&["", "GET /readyz HTTP/1.1\r\nHo", asked, &and_half], 2).await;
        assert_eq!(answers[..2], ["", ""]);
        for answer in &answers[2..] {
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("read"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_does_not_outlive_the_stop_for_long() {
        let half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf";
        stop_amid(&[half], 1).await;
    }

    #[tokio::test]
    async fn a_connection_that_brings_no_whole_head_in_time_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = dress(Router::new().route("/", get(|| async { "answered" })), "there is little");
        let _server = tokio::spawn(serve_within(Duration::from_millis(100), listener, routes, pending()));
        for (said, heard) in [
            ("", ""),
            ("GET / HTTP/1.1\r\nHo", ""),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "answered"),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", "answered"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut answer = String::new();
            timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
            assert_eq!(answer.lines().last().unwrap_or_default(), heard, "{said:?}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn a_head_may_have_so_many_bytes_and_not_one_more() {
        let head = |bytes: usize| {
            let (first, last) = ("GET / HTTP/1.1\r\nConnection: close\r\nX: ", "\r\n\r\n");
            format!("{first}{}{last}", "x".repeat(bytes - first.len() - last.len()))
        };
        let answers = stop_amid(&[&head(HEAD_BYTES_MAX)], 1).await;
        assert!(answers[0].starts_with("HTTP/1.1 200"), "{answers:?}");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = dress(Router::new(), "there is nothing");
        let _server = tokio::spawn(serve(listener, routes, pending()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head(HEAD_BYTES_MAX + 1).as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("131072 bytes"), "{answer}");
    }
}
