//! What a process is, and what only that asks of the configuration.

use clap::ValueEnum;
use holdfast_gateway::config::{BridgeAddress, ConfigError, secret_needed};

use super::values::refuse;

/// One for each command that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Gateway and bridge in one process.
    #[default]
    Dev,
    /// Holds devices' connections.
    Gateway,
    /// Takes frames to where they rest, and pushes to devices.
    Bridge,
}

/// A gateway has bridges, and reaches them safely. `given` is how they were written.
pub(super) fn check_bridges(
    bridges: &[BridgeAddress],
    given: &[String],
    has_secret: bool,
) -> Result<(), ConfigError> {
    if bridges.is_empty() {
        return Err(refuse("link.bridges", "[]", "must name at least one bridge (--bridge HOST:PORT)"));
    }
    let beyond = bridges.iter().zip(given).find(|(bridge, _)| !has_secret && !bridge.is_loopback());
    beyond.map_or(Ok(()), |(_, given)| Err(secret_needed("link.bridges", given)))
}

#[cfg(test)]
mod tests {
    use crate::config::{LayerFlags, Role, load};

    fn refusal(role: Role, pairs: &[&str]) -> Option<String> {
        let flags =
            LayerFlags { set: pairs.iter().map(|&pair| pair.to_owned()).collect(), ..LayerFlags::default() };
        load(&flags, []).unwrap().validate(role).err().map(|error| error.to_string())
    }

    #[test]
    fn a_gateway_needs_a_bridge_and_a_secret_for_one_elsewhere() {
        let store = "store.url=redis://127.0.0.1";
        let line = refusal(Role::Gateway, &[store]).unwrap();
        assert_eq!(line, "link.bridges = []: must name at least one bridge (--bridge HOST:PORT)");
        let line = refusal(Role::Gateway, &[store, "link.bridges=['10.0.0.1:7883']"]).unwrap();
        assert!(line.starts_with("link.bridges = 10.0.0.1:7883: must be on this machine"), "{line}");
        assert!(line.ends_with("(from --set)"), "{line}");
        let elsewhere = [store, "link.bridges=['10.0.0.1:7883']", "link.secret=s"];
        assert_eq!(refusal(Role::Gateway, &elsewhere), None);
        assert_eq!(refusal(Role::Gateway, &[store, "link.bridges=['localhost:7883']"]), None);
    }

    #[test]
    fn a_role_resolves_no_listeners_but_its_own() {
        let (theirs, ours) =
            ("listeners.mqtt=no-such-host.invalid:1883", "bridge.listen=no-such-host.invalid:7883");
        let bridge = ["store.url=redis://127.0.0.1", "sink.kind=log"];
        assert_eq!(refusal(Role::Bridge, &[bridge[0], bridge[1], theirs]), None);
        assert!(
            refusal(Role::Bridge, &[bridge[0], bridge[1], ours]).unwrap().starts_with("bridge.listen = ")
        );
        assert_eq!(refusal(Role::Dev, &[ours, "push.listen=no-such-host.invalid:1"]), None);
        assert!(refusal(Role::Dev, &[theirs]).unwrap().starts_with("listeners.mqtt = "));
    }

    #[test]
    fn a_bridge_has_to_be_told_where_frames_go() {
        let store = "store.url=redis://127.0.0.1";
        assert!(refusal(Role::Bridge, &[store]).unwrap().starts_with("sink.kind = "));
        assert_eq!(refusal(Role::Bridge, &[store, "sink.kind=log"]), None);
        assert_eq!(refusal(Role::Dev, &[]), None);
    }
}
