//! What the URL of a Redis store says: which servers, who we are to them, and how they are spoken to.
//!
//! ```text
//! redis://USER:PASSWORD@HOST:PORT/DB                       one server; rediss:// over TLS
//! redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME  the primary that these sentinels call NAME
//! redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT        the cluster that these nodes belong to
//! ```
//!
//! Nothing that comes from here into a log or an error holds a password.

use std::fmt;
use std::path::Path;

use redis::{ClientTlsConfig, TlsCertificates};

use crate::open_error::OpenError;

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Replicas that an answer may wait for.
const REPLICAS_MAX: u32 = 100;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Who we are to a server.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// How the server that serves is found.
#[derive(Clone)]
pub(super) enum Form {
    /// It is this one.
    Server(Address),
    /// Sentinels know it.
    Sentinel { sentinels: Vec<Address>, name: String, login: Login },
    /// Several, each for some of the slots; these nodes know which.
    Cluster { seeds: Vec<Address> },
}

/// All that a URL says.
#[derive(Clone)]
pub(super) struct StoreUrl {
    pub(super) form: Form,
    pub(super) login: Login,
    pub(super) database: u32,
    /// What TLS is spoken with; none without TLS.
    pub(super) tls: Option<TlsCertificates>,
    /// Replicas that must have a change before it is answered; none for what the URL does not say.
    pub(super) replicas: Option<u32>,
}

impl StoreUrl {
    /// Reads a URL, and the certificates that it names.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| refuse("it has no ://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let login = parse_login(login)?;
        let mut parameters = Parameters::parse(query)?;
        let mut database = parameters.number("db", 1_000_000)?;
        let mut tls = parameters.yes_or_no("tls")?;
        let form = match scheme {
            "redis" | "rediss" => {
                if !path.is_empty() {
                    let number =
                        path.parse().map_err(|_| refuse("behind the / there is a database's number"))?;
                    database = Some(number);
                }
                if scheme == "rediss" && tls == Some(false) {
                    return Err(refuse("rediss:// is TLS, and tls=no is not"));
                }
                tls = Some(tls == Some(true) || scheme == "rediss");
                Form::Server(parse_address(hosts, SERVER_PORT)?)
            }
            "redis+sentinel" => {
                let name = decode(path)?;
                if name.is_empty() {
                    return Err(refuse(
                        "behind the / there is the name that the sentinels have for the primary",
                    ));
                }
                let (user, password) =
                    (parameters.text("sentinel_user")?, parameters.text("sentinel_password")?);
                Form::Sentinel {
                    sentinels: parse_addresses(hosts, SENTINEL_PORT)?,
                    name,
                    login: Login { user, password },
                }
            }
            "redis+cluster" => {
                if !path.is_empty() || database.is_some_and(|number| number != 0) {
                    return Err(refuse("a cluster has no numbered databases"));
                }
                Form::Cluster { seeds: parse_addresses(hosts, SERVER_PORT)? }
            }
            _ => return Err(refuse("it begins with none of the schemes that are known")),
        };
        let certificates = parameters.certificates()?;
        let has_certificates = certificates.root_cert.is_some() || certificates.client_tls.is_some();
        if has_certificates && tls != Some(true) {
            return Err(refuse("certificates are for TLS: rediss://, or tls=yes"));
        }
        let replicas = parameters.number("replicas", REPLICAS_MAX)?;
        parameters.end()?;
        Ok(Self {
            form,
            login,
            database: database.unwrap_or(0),
            tls: (tls == Some(true)).then_some(certificates),
            replicas,
        })
    }

    /// The servers as an operator may see them: without a password.
    pub(super) fn shown(&self) -> String {
        let list =
            |addresses: &[Address]| addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",");
        match &self.form {
            Form::Server(address) => self.shown_at(address),
            Form::Sentinel { sentinels, name, .. } => {
                format!("{name} (by the sentinels {})", list(sentinels))
            }
            Form::Cluster { seeds } => format!("the cluster of {}", list(seeds)),
        }
    }

    /// One of the servers, likewise.
    pub(super) fn shown_at(&self, address: &Address) -> String {
        match self.form {
            Form::Cluster { .. } => address.to_string(),
            _ => format!("{address}/{}", self.database),
        }
    }
}

fn refuse(why: &str) -> OpenError {
    OpenError::RedisUrl { why: why.to_owned() }
}

fn parse_login(text: &str) -> Result<Login, OpenError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (text, None),
    };
    let user = decode(user)?;
    Ok(Login { user: (!user.is_empty()).then_some(user), password })
}

fn parse_addresses(text: &str, port: u16) -> Result<Vec<Address>, OpenError> {
    text.split(',').map(|address| parse_address(address, port)).collect()
}

fn parse_address(text: &str, port: u16) -> Result<Address, OpenError> {
    let unreadable = || refuse("a server is HOST:PORT, several have commas between them");
    let (host, digits) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or_else(unreadable)?;
            let digits =
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(unreadable)?) };
            (host, digits)
        }
        None => text.split_once(':').map_or((text, None), |(host, digits)| (host, Some(digits))),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(unreadable());
    }
    let port = match digits {
        None => port,
        Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or_else(unreadable)?,
    };
    Ok(Address { host: host.to_owned(), port })
}

/// Takes `%40` for `@` and the like.
fn decode(text: &str) -> Result<String, OpenError> {
    let unreadable = || refuse("a % is followed by two digits of a byte (%25 is % itself)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = behind.split_at_checked(2).ok_or_else(unreadable)?;
        let digits = std::str::from_utf8(digits).map_err(|_| unreadable())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| unreadable())?);
        rest = behind;
    }
    String::from_utf8(bytes).map_err(|_| unreadable())
}

/// What stands behind the question mark; each is taken once.
struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    fn parse(query: &'a str) -> Result<Self, OpenError> {
        let pair = |text: &'a str| text.split_once('=').ok_or_else(|| refuse("a parameter is NAME=VALUE"));
        Ok(Self(query.split('&').filter(|text| !text.is_empty()).map(pair).collect::<Result<_, _>>()?))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, OpenError> {
        self.take(name).map(decode).transpose()
    }

    fn number(&mut self, name: &str, max: u32) -> Result<Option<u32>, OpenError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number <= max);
        number.map(Some).ok_or_else(|| refuse(&format!("{name} is a number up to {max}")))
    }

    fn yes_or_no(&mut self, name: &str) -> Result<Option<bool>, OpenError> {
        match self.take(name) {
            None => Ok(None),
            Some("yes") => Ok(Some(true)),
            Some("no") => Ok(Some(false)),
            Some(_) => Err(refuse(&format!("{name} is yes or no"))),
        }
    }

    fn certificates(&mut self) -> Result<TlsCertificates, OpenError> {
        let root_cert = self.file("ca")?;
        let client_tls = match (self.file("cert")?, self.file("key")?) {
            (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
            (None, None) => None,
            _ => return Err(refuse("cert and key are given together")),
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }

    fn file(&mut self, name: &str) -> Result<Option<Vec<u8>>, OpenError> {
        let Some(path) = self.text(name)? else { return Ok(None) };
        let read = std::fs::read(Path::new(&path));
        read.map(Some)
            .map_err(|source| OpenError::RedisCertificate { file: path.into(), why: source.to_string() })
    }

    /// What nobody took is misspelt. Its value is not shown: it may be a password.
    fn end(self) -> Result<(), OpenError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(refuse(&format!(
                "parameter '{name}' is not known, is given twice, or is not for this scheme"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> StoreUrl {
        StoreUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_server_has_a_port_a_database_and_a_user() {
        let url = parse("redis://someone:p%40ss@127.0.0.1:7000/3");
        assert_eq!(
            (url.login.user.as_deref(), url.login.password.as_deref()),
            (Some("someone"), Some("p@ss"))
        );
        assert_eq!(url.shown(), "127.0.0.1:7000/3");
        assert!(url.tls.is_none() && url.replicas.is_none());
        assert_eq!(parse("redis://host").shown(), "host:6379/0");
        assert_eq!(parse("redis://[::1]:7000/").shown(), "[::1]:7000/0");
        assert_eq!(parse("redis://:p@a@host").login.password.as_deref(), Some("p@a"));
        assert!(parse("rediss://host").tls.is_some() && parse("redis://host?tls=yes").tls.is_some());
    }

    #[test]
    fn sentinels_have_a_name_for_the_primary_and_a_password_of_their_own() {
        let url = parse("redis+sentinel://u:p@a,b:7000/main?sentinel_password=s&replicas=1&db=2&tls=yes");
        let Form::Sentinel { sentinels, name, login } = &url.form else { panic!("it is a sentinel's") };
        assert_eq!(sentinels.iter().map(Address::to_string).collect::<Vec<_>>(), ["a:26379", "b:7000"]);
        assert_eq!((name.as_str(), login.password.as_deref(), url.replicas), ("main", Some("s"), Some(1)));
        assert!(url.tls.is_some() && url.database == 2);
        assert!(!url.shown().contains("p@"), "{}", url.shown());
    }

    #[test]
    fn a_cluster_has_seeds() {
        let url = parse("redis+cluster://a:1,b:2,[::1]:3");
        assert_eq!(url.shown(), "the cluster of a:1,b:2,[::1]:3");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_without_a_password() {
        for (url, why) in [
            ("redis://u:secret@127.0.0.1:port/", "HOST:PORT"),
            ("redis://u:secret@127.0.0.1:99999/", "HOST:PORT"),
            ("redis://u:secret@", "HOST:PORT"),
            ("redis://u:secret@host/zero", "database"),
            ("redis://u:secret@host?db=x", "db is a number"),
            ("redis://u:secret@host?passwort=secret", "'passwort' is not known"),
            ("redis://u:secret@host?sentinel_password=secret", "not for this scheme"),
            ("redis://u:secret%4@host", "%25"),
            ("redis://u:secret@host?ca=/etc/ca", "TLS"),
            ("rediss://u:secret@host?tls=no", "TLS"),
            ("rediss://u:secret@host?cert=/dev/null", "together"),
            ("rediss://u:secret@host?ca=/nowhere/ca.pem", "/nowhere/ca.pem"),
            ("redis+sentinel://u:secret@a,b", "the name that the sentinels have"),
            ("redis+sentinel://u:secret@a,,b/main", "HOST:PORT"),
            ("redis+cluster://u:secret@a/1", "no numbered databases"),
            ("redis+cluster://u:secret@a?db=1", "no numbered databases"),
            ("redis+cluster://u:secret@a?replicas=many", "replicas is a number"),
            ("redis+cluster:u:secret@a", "://"),
        ] {
            let refusal = StoreUrl::parse(url).err().expect(url).to_string();
            assert!(refusal.contains(why) && !refusal.contains('\n'), "{url}: {refusal}");
            assert!(!refusal.contains("secret"), "{url}: {refusal}");
        }
    }
}
