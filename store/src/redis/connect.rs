//! Dialling the server, and making sure that it can serve before anyone relies on it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time::timeout;
use tracing::warn;

use super::library::{FORMAT, Library};
use super::partition::Partition;
use crate::open_error::OpenError;

/// The oldest version that has functions.
const MAJOR_MIN: u32 = 7;

/// Commands that may wait to be written to the socket before who sends more has to wait itself.
const UNWRITTEN_MAX: usize = 4_096;

/// A connection as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Of this start of the server: numbers of connections begin anew with the next.
    run: String,
    id: u64,
}

/// Which server.
pub(super) struct Target {
    client: Client,
    /// Its address as an operator may see it: without a password.
    shown: String,
}

impl Target {
    /// Reads `redis://user:password@host:port/db`.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        // What the client library says of a URL may quote it, with the password.
        let client = Client::open(url).map_err(|_| OpenError::RedisUrl)?;
        let info = client.get_connection_info();
        let shown = format!("{}/{}", info.addr(), info.redis_settings().db());
        Ok(Self { client, shown })
    }

    /// The server's address and database.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Connects, checks the server, and gives it the functions. `first` says whether to warn of its configuration. Ends the
    /// `former` connection at the server, which might else carry out what it still has of it after what the new one brings.
    pub(super) async fn dial(
        &self,
        library: &Library,
        format_key: &str,
        deadline: Duration,
        first: bool,
        former: Option<&Peer>,
    ) -> Result<(MultiplexedConnection, Option<Peer>), OpenError> {
        match timeout(deadline, self.dial_and_check(library, format_key, first, former)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.unreachable(format!("no answer within {} ms", deadline.as_millis()))),
        }
    }

    async fn dial_and_check(
        &self,
        library: &Library,
        format_key: &str,
        first: bool,
        former: Option<&Peer>,
    ) -> Result<(MultiplexedConnection, Option<Peer>), OpenError> {
        // Deadlines are ours: one for each request, and one for all of this.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(UNWRITTEN_MAX);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| self.refused(&error))?;
        let run = self.check_version(&mut connection).await?;
        let peer = identify(&mut connection, run).await;
        self.check_role(&mut connection).await?;
        self.check_format(&mut connection, format_key).await?;
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(&library.text);
        load.query_async::<Value>(&mut connection).await.map_err(|error| self.refused(&error))?;
        if first {
            self.warn_of_configuration(&mut connection).await;
        }
        if let (Some(former), Some(peer)) = (former, &peer)
            && former.run == peer.run
        {
            self.end(&mut connection, former).await?;
        }
        Ok((connection, peer))
    }

    async fn end(&self, connection: &mut MultiplexedConnection, former: &Peer) -> Result<(), OpenError> {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(former.id);
        match kill.query_async::<Value>(connection).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                warn!(
                    server = self.shown,
                    "Redis may carry out late what a lost connection asked: allow CLIENT KILL ({error})"
                );
                Ok(())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Gives which start of the server this is, if it says so.
    async fn check_version(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<String>, OpenError> {
        let asked = redis::cmd("INFO").arg("server").query_async::<String>(connection).await;
        let info = match asked {
            Ok(info) => info,
            // Who may not ask learns from the functions.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => return Ok(None),
            Err(error) => return Err(self.refused(&error)),
        };
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let version = field("redis_version:").unwrap_or("");
        match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
            Some(major) if major < MAJOR_MIN => {
                Err(OpenError::RedisTooOld { server: self.shown.clone(), version: version.to_owned() })
            }
            _ => Ok(field("run_id:").map(str::to_owned)),
        }
    }

    async fn check_role(&self, connection: &mut MultiplexedConnection) -> Result<(), OpenError> {
        // Who may not ask is told by the first write.
        let Ok(Value::Array(role)) = redis::cmd("ROLE").query_async::<Value>(connection).await else {
            return Ok(());
        };
        match role.first() {
            Some(Value::BulkString(name)) if name == b"master" => Ok(()),
            _ => Err(OpenError::RedisReplica { server: self.shown.clone() }),
        }
    }

    async fn check_format(&self, connection: &mut MultiplexedConnection, key: &str) -> Result<(), OpenError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(FORMAT).arg("NX").arg("GET");
        let found = set.query_async::<Option<String>>(connection).await;
        match found.map_err(|error| self.refused(&error))? {
            Some(found) if found != FORMAT.to_string() => Err(OpenError::RedisForeignFormat {
                server: self.shown.clone(),
                key: key.to_owned(),
                found,
                known: FORMAT,
            }),
            _ => Ok(()),
        }
    }

    async fn warn_of_configuration(&self, connection: &mut MultiplexedConnection) {
        let server = &self.shown;
        let mut setting = async |name: &str| {
            let answer =
                redis::cmd("CONFIG").arg("GET").arg(name).query_async::<Vec<String>>(connection).await;
            // Many services do not let anyone ask; then nothing is known and nothing said.
            answer.ok().and_then(|pair| pair.into_iter().nth(1))
        };
        if let Some(policy) = setting("maxmemory-policy").await.filter(|policy| policy != "noeviction") {
            warn!(%server, policy, "Redis may evict sessions and queued messages: set maxmemory-policy to noeviction");
        }
        if setting("appendonly").await.is_some_and(|on| on != "yes") {
            warn!(%server, "Redis forgets sessions and queued messages when it restarts: set appendonly to yes");
        } else if let Some(when) = setting("appendfsync").await.filter(|when| when != "always") {
            warn!(%server, appendfsync = when, "Redis may lose the last seconds of queued messages when it is killed: set appendfsync to always");
        }
    }

    fn refused(&self, error: &RedisError) -> OpenError {
        let server = self.shown.clone();
        let detail = error.detail().unwrap_or_default();
        match (error.kind(), error.code().unwrap_or_default()) {
            (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS" | "NOAUTH") => {
                OpenError::RedisPassword { server }
            }
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => OpenError::RedisReplica { server },
            (ErrorKind::Server(_), _) if detail.to_ascii_lowercase().contains("unknown command") => {
                OpenError::RedisTooOld { server, version: "without functions".to_owned() }
            }
            (ErrorKind::Io, _) => self.unreachable(error.to_string()),
            _ => OpenError::RedisRefused { server, why: error.to_string() },
        }
    }

    fn unreachable(&self, why: String) -> OpenError {
        OpenError::RedisUnreachable { server: self.shown.clone(), why }
    }
}

/// Which connection this is; none if the server does not say.
async fn identify(connection: &mut MultiplexedConnection, run: Option<String>) -> Option<Peer> {
    let id = redis::cmd("CLIENT").arg("ID").query_async::<u64>(connection).await.ok()?;
    Some(Peer { run: run?, id })
}

/// The key that says which format all others have.
pub(super) fn format_key(prefix: &str) -> String {
    format!("{}:format", Partition::FIRST.key(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let target = Target::parse("redis://someone:secret@127.0.0.1:7000/3").unwrap();
        assert_eq!(target.shown(), "127.0.0.1:7000/3");
        let refused = Target::parse("redis://someone:secret@127.0.0.1:port/").err().unwrap();
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}
