//! Keys of the session store.

use holdfast_gateway::config::ConfigError;
use holdfast_store::{Bounds, Options, StreamBounds, WhenFull};
use serde::{Deserialize, Serialize};

use super::role::Role;
use super::values::{refuse, within, without_password};

const DROP_OLDEST: &str = "drop_oldest";
const DROP_NEWEST: &str = "drop_newest";

/// `[store]`: where sessions are kept, and what a store on this machine keeps at most. The defaults are the store's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreKeys {
    /// `redis://…`; gateways and bridges share one. `dev` alone may keep sessions on its own: `embedded:DIR`, `memory:`. Default empty:
    /// the directory `store` in `data_dir`.
    pub(crate) url: String,
    /// Sessions, connected and resting. Full: a new one is answered "server unavailable". Default 4,000,000.
    pub(crate) sessions_max: u32,
    /// Bytes of all queued and retained messages. Full: the stream that holds most gives way, oldest first. Default 1 GiB.
    pub(crate) message_bytes_max: u64,
    /// Messages of one stream (a topic filter of persistent sessions, or one device's pushes). Full: `stream_when_full`.
    /// Default 100,000.
    pub(crate) stream_messages_max: u32,
    /// The same in bytes. Default 64 MiB.
    pub(crate) stream_bytes_max: u64,
    /// How long a message stays in a stream, in seconds. Default 604,800 (7 days).
    pub(crate) stream_age_s_max: u64,
    /// What a full stream does with one more message: `drop_oldest` takes it and lets go of its oldest; `drop_newest` keeps what it has, and
    /// the sender of a push is told. Default `drop_oldest`.
    pub(crate) stream_when_full: String,
    /// Clients in one group of `POST /v1/groups`, and a sixteenth of those in all groups. Full: a change that adds more is refused.
    /// Default 1,000,000.
    pub(crate) group_members_max: u32,
    /// Replicas of a Redis that must have a change before it is answered; `?replicas=` in `url` stands above it. Too few: refused as if the store
    /// were away. Default 0.
    pub(crate) redis_replicas: u32,
}

/// Replicas that an answer may wait for.
const REDIS_REPLICAS_MAX: u32 = 100;

impl Default for StoreKeys {
    fn default() -> Self {
        let Bounds { stream, message_bytes_max, sessions_max, group_members_max } = Bounds::default();
        Self {
            url: String::new(),
            sessions_max,
            message_bytes_max,
            stream_messages_max: stream.messages_max,
            stream_bytes_max: stream.bytes_max,
            stream_age_s_max: stream.age_ms_max / 1_000,
            stream_when_full: DROP_OLDEST.to_owned(),
            group_members_max,
            redis_replicas: 0,
        }
    }
}

impl StoreKeys {
    /// The store of `role`; none for the one in the data directory.
    pub(super) fn url(&self, role: Role) -> Result<Option<String>, ConfigError> {
        let refuse = |allowed: &str| Err(refuse("store.url", shown_url(&self.url), allowed));
        match self.url.split_once(':').map_or(self.url.as_str(), |(scheme, _)| scheme) {
            "" if role == Role::Dev => Ok(None),
            "" => {
                refuse("must name the store that all gateways and bridges share: redis://HOST:PORT (--store)")
            }
            "memory" | "embedded" if role != Role::Dev => {
                refuse("is this process's own; gateways and bridges must share a store: redis://HOST:PORT")
            }
            "memory" | "embedded" | "redis" | "rediss" | "redis+sentinel" | "redis+cluster" => {
                Ok(Some(self.url.clone()))
            }
            _ => refuse("must be redis://HOST:PORT, or with `dev` also embedded:DIR or memory:"),
        }
    }

    pub(super) fn check(&self) -> Result<Options, ConfigError> {
        let stream = StreamBounds {
            messages_max: within("store.stream_messages_max", self.stream_messages_max, 1..=1 << 30)?,
            bytes_max: within("store.stream_bytes_max", self.stream_bytes_max, 1_024..=1 << 40)?,
            age_ms_max: within("store.stream_age_s_max", self.stream_age_s_max, 1..=100 * 366 * 86_400)?
                * 1_000,
            when_full: match &*self.stream_when_full {
                DROP_OLDEST => WhenFull::DropOldest,
                DROP_NEWEST => WhenFull::DropNewest,
                other => {
                    let allowed = "must be \"drop_oldest\" or \"drop_newest\"";
                    return Err(refuse("store.stream_when_full", other, allowed));
                }
            },
        };
        let bounds = Bounds {
            stream,
            message_bytes_max: within("store.message_bytes_max", self.message_bytes_max, 1_024..=1 << 44)?,
            sessions_max: within("store.sessions_max", self.sessions_max, 1..=1 << 30)?,
            group_members_max: within("store.group_members_max", self.group_members_max, 1..=1 << 28)?,
        };
        let redis_replicas = within("store.redis_replicas", self.redis_replicas, 0..=REDIS_REPLICAS_MAX)?;
        if redis_replicas > 0 && !self.url.starts_with("redis") {
            let needs = "is for a store in Redis: store.url = redis://HOST:PORT";
            return Err(refuse("store.redis_replicas", redis_replicas, needs));
        }
        Ok(Options { bounds, redis_replicas, ..Options::default() })
    }
}

fn shown_url(url: &str) -> String {
    if url.is_empty() { "\"\"".to_owned() } else { without_password(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_stream_does_is_one_of_two_words() {
        let check = |word: &str| {
            StoreKeys { stream_when_full: word.to_owned(), ..StoreKeys::default() }
                .check()
                .map(|options| options.bounds.stream.when_full)
        };
        assert_eq!(check("drop_oldest"), Ok(WhenFull::DropOldest));
        assert_eq!(check("drop_newest"), Ok(WhenFull::DropNewest));
        let refusal = check("drop").unwrap_err().to_string();
        assert_eq!(refusal, "store.stream_when_full = drop: must be \"drop_oldest\" or \"drop_newest\"");
    }

    #[test]
    fn only_a_redis_has_replicas() {
        let check = |url: &str, redis_replicas| {
            StoreKeys { url: url.to_owned(), redis_replicas, ..StoreKeys::default() }
                .check()
                .map(|options| options.redis_replicas)
        };
        assert_eq!(check("rediss://host", 2), Ok(2));
        assert_eq!(check("memory:", 0), Ok(0));
        assert!(check("redis://host", 101).is_err());
        for own in ["", "memory:", "embedded:/var/lib/holdfast"] {
            let refusal = check(own, 1).unwrap_err().to_string();
            assert_eq!(
                refusal,
                "store.redis_replicas = 1: is for a store in Redis: store.url = redis://HOST:PORT"
            );
        }
    }

    fn url(url: &str, role: Role) -> Result<Option<String>, ConfigError> {
        StoreKeys { url: url.to_owned(), ..StoreKeys::default() }.url(role)
    }

    #[test]
    fn processes_of_their_own_need_a_store_that_they_can_share() {
        for role in [Role::Gateway, Role::Bridge] {
            for own in ["", "memory:", "embedded:/var/lib/holdfast"] {
                assert!(url(own, role).unwrap_err().to_string().contains("redis://"), "{own}");
            }
            assert_eq!(url("redis://localhost", role).unwrap().as_deref(), Some("redis://localhost"));
        }
        assert_eq!(url("", Role::Dev), Ok(None));
        assert_eq!(url("memory:", Role::Dev).unwrap().as_deref(), Some("memory:"));
        assert!(url("postgres://db", Role::Dev).is_err());
    }
}
