//! Which keys there are: the leaves of the default configuration, under dotted names.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Config;

/// Dotted key to value.
pub(super) type Flat = BTreeMap<String, Value>;

/// Names that begin so are listed or suggested only if they are this similar (Jaro-Winkler, 0 to 1).
const SIMILAR_MIN: f64 = 0.85;

/// A table that takes any name, with its dots, and a text as its value: what is passed on to a library as it stands.
const OPEN_TABLE: &str = "kafka.settings";

/// The name below the open table, if the key is one of those.
pub(super) fn open_name(key: &str) -> Option<&str> {
    key.strip_prefix(OPEN_TABLE)?.strip_prefix('.')
}

/// Table and name of a key.
pub(super) fn split(key: &str) -> (&str, &str) {
    match open_name(key) {
        Some(name) => (OPEN_TABLE, name),
        None => key.rsplit_once('.').unwrap_or(("", key)),
    }
}

/// Every key with its default.
pub(super) fn defaults() -> Flat {
    let table = Table::try_from(Config::default()).expect("the defaults are plain values");
    let mut flat = Flat::new();
    flatten("", table, &mut flat);
    flat
}

fn flatten(prefix: &str, table: Table, flat: &mut Flat) {
    for (name, value) in table {
        let key = join(prefix, &name);
        match value {
            Value::Table(table) => flatten(&key, table, flat),
            value => drop(flat.insert(key, value)),
        }
    }
}

/// The configuration that `flat` describes; the error is the first value that has not the type of its key.
pub(super) fn build(flat: &Flat) -> Result<Config, toml::de::Error> {
    let mut root = Table::new();
    for (key, value) in flat {
        let mut table = &mut root;
        let (tables, name) = split(key);
        for part in tables.split('.').filter(|part| !part.is_empty()) {
            let next = table.entry(part).or_insert_with(|| Table::new().into());
            table = next.as_table_mut().expect("a key is never a table and a value");
        }
        table.insert(name.to_owned(), value.clone());
    }
    root.try_into()
}

/// `table.name`, or the name alone at the top.
pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Whether `key` is a table of keys.
pub(super) fn is_table(known: &Flat, key: &str) -> bool {
    key == OPEN_TABLE
        || open_name(key).is_some()
        || known.keys().any(|other| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// What to say of a key that does not exist: the nearest name, else what its table holds.
pub(super) fn hint(known: &Flat, key: &str) -> String {
    if is_table(known, key) {
        return format!(": it is a table; it holds {}", names_in(known, key));
    }
    if let Some(similar) = similar(key, known.keys().map(String::as_str)) {
        return format!("; did you mean {similar}?");
    }
    let table = key.rsplit_once('.').map_or("", |(table, _)| table);
    if is_table(known, table) {
        format!("; [{table}] holds {}", names_in(known, table))
    } else {
        format!("; there are {}", names_in(known, ""))
    }
}

/// The same for a name beside few others.
pub(super) fn nearest<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> String {
    let others: Vec<&str> = others.collect();
    match similar(name, others.iter().copied()) {
        Some(similar) => format!("; did you mean {similar}?"),
        None => format!("; there are {}", others.join(", ")),
    }
}

fn similar<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = |other: &str| strsim::jaro_winkler(name, other);
    let nearest = others.max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(nearest) >= SIMILAR_MIN).then_some(nearest)
}

/// The names directly below `table`, each once.
fn names_in(known: &Flat, table: &str) -> String {
    let mut names: Vec<&str> = known
        .keys()
        .filter_map(
            |key| if table.is_empty() { Some(&**key) } else { key.strip_prefix(table)?.strip_prefix('.') },
        )
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_rebuild_the_defaults() {
        assert_eq!(build(&defaults()).unwrap(), Config::default());
    }

    #[test]
    fn a_misspelt_key_is_told_its_nearest_name() {
        assert_eq!(hint(&defaults(), "mqtt.recieve_maximum"), "; did you mean mqtt.receive_maximum?");
        assert_eq!(hint(&defaults(), "listener.ws"), "; did you mean listeners.ws?");
    }

    #[test]
    fn a_key_like_no_other_is_told_what_its_table_holds() {
        let hint = hint(&defaults(), "drain.xyzzy");
        assert_eq!(hint, "; [drain] holds deadline_ms, goodbyes_per_s");
    }

    #[test]
    fn a_table_is_no_value() {
        assert!(hint(&defaults(), "mqtt").starts_with(": it is a table; it holds maximum_packet_size"));
    }
}
