//! Filters that a client holds for itself alone, such as `devices/{its own id}/push`.
//!
//! A fleet has as many of them as devices. Whoever keeps a table of filters keeps their one common shape instead.

use super::parse_shared;

/// The level of an ordinary filter at which the client's own id stands, if there is one. Such a filter is held by one session in the world
/// (or by few others that have no business there): it is neither announced nor kept by itself, and what is published to it is found by client id.
pub fn personal_level(filter: &str, client: &str) -> Option<u8> {
    if client.is_empty() || client.contains(['/', '+', '#']) || parse_shared(filter).is_some() {
        return None;
    }
    let level = filter.split('/').position(|level| level == client)?;
    // A shape that begins with `+` matches no topic that begins with `$` (MQTT-4.7.2-1).
    if level == 0 && client.starts_with('$') {
        return None;
    }
    u8::try_from(level).ok()
}

/// The filter with `+` where the client id stands.
pub fn personal_shape(filter: &str, level: u8) -> String {
    let mut shape = String::with_capacity(filter.len());
    for (index, text) in filter.split('/').enumerate() {
        if index > 0 {
            shape.push('/');
        }
        shape.push_str(if index == usize::from(level) { "+" } else { text });
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_the_clients_own_id_is_personal() {
        assert_eq!(personal_level("devices/d-1/push", "d-1"), Some(1));
        assert_eq!(personal_level("devices/d-1/#", "d-1"), Some(1));
        assert_eq!(personal_level("devices/d-2/push", "d-1"), None);
        assert_eq!(personal_level("$share/g/devices/d-1", "d-1"), None);
        assert_eq!(personal_level("a/+/b", "+"), None);
        assert_eq!(personal_shape("devices/d-1/push", 1), "devices/+/push");
    }
}
