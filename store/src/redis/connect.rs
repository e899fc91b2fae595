//! Dialling a server, and making sure that it can serve before anyone relies on it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::time::timeout;
use tracing::warn;

use super::library::{FORMAT, Library};
use super::partition::Partition;
use super::url::{Address, Form, Login, StoreUrl};
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

impl Peer {
    /// Which start of which server this is.
    pub(super) fn run(&self) -> &str {
        &self.run
    }
}

/// What a dial has brought.
pub(super) struct Dialled {
    pub(super) connection: MultiplexedConnection,
    /// None if the server does not say.
    pub(super) peer: Option<Peer>,
}

/// Knows how to speak to any of the store's servers.
pub(super) struct Dialler {
    pub(super) url: StoreUrl,
    format_key: String,
    /// For all of a dial.
    pub(super) deadline: Duration,
}

impl Dialler {
    /// Makes sure that the URL's certificates can be used.
    pub(super) fn new(url: StoreUrl, prefix: &str, deadline: Duration) -> Result<Self, OpenError> {
        if url.tls.is_some() {
            // Another part of the process may have chosen before; then its choice serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let this = Self { url, format_key: format_key(prefix), deadline };
        let anywhere = Address { host: "localhost".to_owned(), port: 1 };
        match this.client(&anywhere, &this.url.login, 0) {
            Ok(_) => Ok(this),
            Err(error) => {
                Err(OpenError::RedisUrl { why: format!("its certificates cannot be used ({error})") })
            }
        }
    }

    fn client(&self, address: &Address, login: &Login, database: u32) -> RedisResult<Client> {
        let (host, port) = (address.host.clone(), address.port);
        let place = match self.url.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password);
        }
        if database != 0 {
            settings = settings.set_db(i64::from(database));
        }
        // Many small commands at once are one write already.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = place.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp);
        match &self.url.tls {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    /// Connects, and checks nothing.
    pub(super) async fn connect(
        &self,
        address: &Address,
        login: &Login,
        database: u32,
    ) -> RedisResult<MultiplexedConnection> {
        // Deadlines are ours: one for each request, and one for all of this.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(UNWRITTEN_MAX);
        self.client(address, login, database)?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Connects, checks the server, and gives it the functions. `first` says whether to warn of its configuration. Ends the
    /// `former` connection at the server, which might else carry out what it still has of it after what the new one brings.
    pub(super) async fn dial(
        &self,
        address: &Address,
        library: &Library,
        first: bool,
        former: Option<&Peer>,
    ) -> Result<Dialled, OpenError> {
        match timeout(self.deadline, self.dial_and_check(address, library, first, former)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(self.unreachable(address, format!("no answer within {} ms", self.deadline.as_millis())))
            }
        }
    }

    async fn dial_and_check(
        &self,
        address: &Address,
        library: &Library,
        first: bool,
        former: Option<&Peer>,
    ) -> Result<Dialled, OpenError> {
        let connecting = self.connect(address, &self.url.login, self.url.database);
        let connection = connecting.await.map_err(|error| self.refused(address, &error))?;
        let mut server = Stranger { dialler: self, address, connection };
        let run = server.check_version().await?;
        let peer = server.identify(run).await;
        server.check_role().await?;
        server.check_format().await?;
        server.load(library).await?;
        if first {
            server.warn_of_configuration().await;
        }
        if let (Some(former), Some(peer)) = (former, &peer)
            && former.run == peer.run
        {
            server.end(former).await?;
        }
        Ok(Dialled { connection: server.connection, peer })
    }

    /// What a server said no with, for an operator.
    pub(super) fn refused(&self, address: &Address, error: &RedisError) -> OpenError {
        let server = self.url.shown_at(address);
        let detail = error.detail().unwrap_or_default();
        match (error.kind(), error.code().unwrap_or_default()) {
            (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS" | "NOAUTH") => {
                OpenError::RedisPassword { server }
            }
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => OpenError::RedisReplica { server },
            (ErrorKind::Server(_), _) if detail.to_ascii_lowercase().contains("unknown command") => {
                OpenError::RedisTooOld { server, version: "without functions".to_owned() }
            }
            (ErrorKind::Io, _) => self.unreachable(address, error.to_string()),
            (ErrorKind::Parse, _) => {
                let why = format!("what answers there is no Redis, or wants TLS, rediss:// ({error})");
                OpenError::RedisRefused { server, why }
            }
            _ => OpenError::RedisRefused { server, why: error.to_string() },
        }
    }

    fn unreachable(&self, address: &Address, why: String) -> OpenError {
        OpenError::RedisUnreachable { server: self.url.shown_at(address), why }
    }
}

/// A server that is being checked.
struct Stranger<'a> {
    dialler: &'a Dialler,
    address: &'a Address,
    connection: MultiplexedConnection,
}

impl Stranger<'_> {
    fn refused(&self, error: &RedisError) -> OpenError {
        self.dialler.refused(self.address, error)
    }

    fn shown(&self) -> String {
        self.dialler.url.shown_at(self.address)
    }

    async fn end(&mut self, former: &Peer) -> Result<(), OpenError> {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(former.id);
        match kill.query_async::<Value>(&mut self.connection).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                warn!(
                    server = self.shown(),
                    "Redis may carry out late what a lost connection asked: allow CLIENT KILL ({error})"
                );
                Ok(())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Gives which start of the server this is, if it says so.
    async fn check_version(&mut self) -> Result<Option<String>, OpenError> {
        let asked = redis::cmd("INFO").arg("server").query_async::<String>(&mut self.connection).await;
        let info = match asked {
            Ok(info) => info,
            // Who may not ask learns from the functions.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => return Ok(None),
            Err(error) => return Err(self.refused(&error)),
        };
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // Valkey tells here which Redis it can stand for, and has another name for its mode.
        let version = field("redis_version:").unwrap_or("");
        if let Some(major) = version.split('.').next().and_then(|major| major.parse::<u32>().ok())
            && major < MAJOR_MIN
        {
            return Err(OpenError::RedisTooOld { server: self.shown(), version: version.to_owned() });
        }
        let wants_cluster = matches!(self.dialler.url.form, Form::Cluster { .. });
        let why = match field("redis_mode:").or_else(|| field("server_mode:")) {
            Some("cluster") if !wants_cluster => "it is part of a cluster: name it as redis+cluster://",
            Some("standalone") if wants_cluster => "it is not part of a cluster: name it as redis://",
            Some("sentinel") => "it is a sentinel: name it as redis+sentinel://",
            _ => return Ok(field("run_id:").map(str::to_owned)),
        };
        Err(OpenError::RedisRefused { server: self.shown(), why: why.to_owned() })
    }

    /// Which connection this is; none if the server does not say.
    async fn identify(&mut self, run: Option<String>) -> Option<Peer> {
        let id = redis::cmd("CLIENT").arg("ID").query_async::<u64>(&mut self.connection).await.ok()?;
        Some(Peer { run: run?, id })
    }

    async fn check_role(&mut self) -> Result<(), OpenError> {
        // Who may not ask is told by the first write.
        let Ok(Value::Array(role)) = redis::cmd("ROLE").query_async::<Value>(&mut self.connection).await
        else {
            return Ok(());
        };
        match role.first() {
            Some(Value::BulkString(name)) if name == b"master" => Ok(()),
            _ => Err(OpenError::RedisReplica { server: self.shown() }),
        }
    }

    /// Writes only where nothing stands yet: a server without memory takes no write.
    async fn check_format(&mut self) -> Result<(), OpenError> {
        let key = &self.dialler.format_key;
        let asked = redis::cmd("GET").arg(key).query_async::<Option<String>>(&mut self.connection).await;
        let mut found = match asked {
            // Another node of the cluster has it, or will have.
            Err(error) if error.is_cluster_error() => return Ok(()),
            asked => asked.map_err(|error| self.refused(&error))?,
        };
        if found.is_none() {
            let mut set = redis::cmd("SET");
            set.arg(key).arg(FORMAT).arg("NX").arg("GET");
            let set = set.query_async::<Option<String>>(&mut self.connection).await;
            found = set.map_err(|error| self.refused(&error))?;
        }
        match found {
            Some(found) if found != FORMAT.to_string() => Err(OpenError::RedisForeignFormat {
                server: self.shown(),
                key: key.clone(),
                found,
                known: FORMAT,
            }),
            _ => Ok(()),
        }
    }

    /// Loads the functions unless they are there, likewise.
    async fn load(&mut self, library: &Library) -> Result<(), OpenError> {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(library.name());
        if let Ok(Value::Array(known)) = list.query_async::<Value>(&mut self.connection).await
            && !known.is_empty()
        {
            return Ok(());
        }
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(&library.text);
        let loaded = load.query_async::<Value>(&mut self.connection).await;
        loaded.map(drop).map_err(|error| self.refused(&error))
    }

    async fn warn_of_configuration(&mut self) {
        let server = self.shown();
        let connection = &mut self.connection;
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
        let fails_over = !matches!(self.dialler.url.form, Form::Server(_));
        if fails_over && setting("min-replicas-to-write").await.is_some_and(|replicas| replicas == "0") {
            warn!(%server, "a primary that was cut off goes on taking what a failover will drop: set min-replicas-to-write to 1");
        }
    }
}

/// The key that says which format all others have.
fn format_key(prefix: &str) -> String {
    format!("{}:format", Partition::FIRST.key(prefix))
}
