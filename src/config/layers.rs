//! Four layers, key by key: defaults, then the file, then the environment, then the command line.
//!
//! Every setting is checked on its own as it is laid on, so the error names exactly one key, its value, and who gave it. Values
//! of the environment and of `--set` are text; the type of the key's default says how to read them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::flags::{Flags, Shorthand};
use super::keys::{self, Flat};
use super::role::Role;
use super::values::without_password;
use super::{ConfigError, Settings};

/// Environment variables that begin so are keys: `HOLDFAST_MQTT__RECEIVE_MAXIMUM` is `mqtt.receive_maximum`.
const PREFIX: &str = "HOLDFAST_";

/// Names the file itself and is no key in it.
const CONFIG_VARIABLE: &str = "HOLDFAST_CONFIG";

/// A shorter name for one key: what is secret is most often given in the environment.
const SECRET_VARIABLE: (&str, &str) = ("HOLDFAST_LINK_SECRET", "link.secret");

/// Who gave a value that is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// This file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// This option.
    CommandLine(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Environment(variable) => variable.fmt(f),
            Self::CommandLine(option) => option.fmt(f),
        }
    }
}

/// A merged configuration and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(super) known: Flat,
    pub(super) values: Flat,
    pub(super) sources: BTreeMap<String, Source>,
}

/// Merges the layers. `environment` is the process's; names that do not begin with `HOLDFAST_` are passed over.
pub(crate) fn load(
    flags: &dyn Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let known = keys::defaults();
    let mut loaded = Loaded { values: known.clone(), known, sources: BTreeMap::new() };
    let layers = flags.layers();
    if let Some(file) = &layers.config {
        loaded.lay_file(file)?;
    }
    loaded.lay_environment(environment)?;
    for Shorthand { option, key, value } in flags.shorthands() {
        let text = value.to_str().ok_or_else(|| ConfigError::NotUtf8(option.to_owned()))?;
        loaded.lay_text(key, text, Source::CommandLine(option))?;
    }
    for pair in &layers.set {
        let (key, text) = pair.split_once('=').ok_or_else(|| ConfigError::NotAPair(pair.clone()))?;
        loaded.lay_text(key.trim(), text, Source::CommandLine("--set"))?;
    }
    Ok(loaded)
}

impl Loaded {
    /// The working objects of a role; the error names the first value that is out of its range or that the role cannot have, and who
    /// gave it.
    pub(crate) fn validate(&self, role: Role) -> Result<Settings, ConfigError> {
        let config = keys::build(&self.values).expect("each value was checked as it was laid on");
        config.validate(role).map_err(|error| {
            let key = if error.key.starts_with("topic_map.") { "topic_map" } else { &*error.key };
            match self.sources.get(key) {
                Some(source) => ConfigError::Value {
                    key: error.key.into_owned(),
                    value: error.value,
                    allowed: error.allowed,
                    source_of_it: source.clone(),
                },
                // Two keys that contradict each other: the one at fault may be the other.
                None => ConfigError::Default(error),
            }
        })
    }

    /// Every key with its value.
    pub(crate) fn values(&self) -> &Flat {
        &self.values
    }

    /// Whether someone gave this key a value.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.sources.contains_key(key)
    }

    fn lay_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let unreadable = |error| ConfigError::Unreadable { file: file.to_owned(), error };
        let text = fs::read_to_string(file).map_err(unreadable)?;
        let table: Table = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::Syntax { file: file.to_owned(), line, message: one_line(error.message()) }
        })?;
        self.lay_table("", table, file)
    }

    fn lay_table(&mut self, prefix: &str, table: Table, file: &Path) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = keys::join(prefix, &name);
            match value {
                Value::Table(table) if keys::is_table(&self.known, &key) => {
                    self.lay_table(&key, table, file)?;
                }
                value => self.lay(&key, value, Source::File(file.to_owned()))?,
            }
        }
        Ok(())
    }

    fn lay_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        let mut variables: Vec<(String, OsString)> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX) && name != CONFIG_VARIABLE && !is_service_link(name))
            .collect();
        // The same variable is at fault at each start.
        variables.sort();
        for (name, value) in variables {
            let key = if name == SECRET_VARIABLE.0 {
                SECRET_VARIABLE.1.to_owned()
            } else {
                name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".")
            };
            let text = value.into_string().map_err(|_| ConfigError::NotUtf8(name.clone()))?;
            self.lay_text(&key, &text, Source::Environment(name))?;
        }
        Ok(())
    }

    /// Lays a value on that came as text.
    fn lay_text(&mut self, key: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        let value = match self.known.get(key) {
            Some(Value::Integer(_)) => text.trim().replace('_', "").parse().map(Value::Integer).ok(),
            Some(Value::Boolean(_)) => text.trim().parse().map(Value::Boolean).ok(),
            Some(Value::Array(_)) => match list(text) {
                Ok(value) => Some(value),
                Err(allowed) => {
                    let (key, value) = (key.to_owned(), one_line(text));
                    return Err(ConfigError::Value { key, value, allowed, source_of_it: source });
                }
            },
            _ => Some(Value::from(text)),
        };
        // What cannot be read stays text, and is refused for its type.
        self.lay(key, value.unwrap_or_else(|| text.into()), source)
    }

    fn lay(&mut self, key: &str, value: Value, source: Source) -> Result<(), ConfigError> {
        if keys::open_name(key).is_some() {
            return self.lay_open(key, value, source);
        }
        let Some(default) = self.known.get(key) else {
            let hint = keys::hint(&self.known, key);
            return Err(ConfigError::UnknownKey { key: key.to_owned(), hint, source_of_it: source });
        };
        let mut alone = self.known.clone();
        let refusal = if value.type_str() == default.type_str() {
            alone.insert(key.to_owned(), value.clone());
            keys::build(&alone).err().map(|error| must_be(error.message()))
        } else {
            Some(format!("must be {}", type_name(default)))
        };
        if let Some(allowed) = refusal {
            let value = one_line(&shown(key, &value));
            return Err(ConfigError::Value { key: key.to_owned(), value, allowed, source_of_it: source });
        }
        self.values.insert(key.to_owned(), value);
        self.sources.insert(key.to_owned(), source);
        Ok(())
    }

    /// Lays on what is passed on to a library, which judges it.
    fn lay_open(&mut self, key: &str, value: Value, source: Source) -> Result<(), ConfigError> {
        let text = match value {
            Value::String(text) => text,
            Value::Integer(_) | Value::Boolean(_) | Value::Float(_) => value.to_string(),
            _ => {
                let (key, value) = (key.to_owned(), one_line(&shown(key, &value)));
                return Err(ConfigError::Value {
                    key,
                    value,
                    allowed: "must be a text".into(),
                    source_of_it: source,
                });
            }
        };
        self.values.insert(key.to_owned(), text.into());
        self.sources.insert(key.to_owned(), source);
        Ok(())
    }
}

/// The names of the keys that differ, of those that are of interest; none if none does.
pub(crate) fn changed(before: &Flat, now: &Flat, is_of_interest: impl Fn(&str) -> bool) -> Option<String> {
    let differs = |key: &&String| before.get(*key) != now.get(*key) && is_of_interest(key);
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).filter(differs).collect();
    (!keys.is_empty()).then(|| keys.into_iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// A value as an error may show it: what is secret is not shown.
pub(super) fn shown(key: &str, value: &Value) -> String {
    hidden(key, value).unwrap_or_else(|| value.to_string())
}

/// What may be shown of a value with a secret in it; none if there is none in it.
pub(super) fn hidden(key: &str, value: &Value) -> Option<String> {
    let is_secret = key.ends_with("secret")
        || keys::open_name(key)
            .is_some_and(|name| ["password", "secret", "pem"].iter().any(|word| name.contains(word)));
    let text = value.as_str().unwrap_or_default();
    if is_secret && value.as_str() != Some("") {
        return Some("\"(hidden)\"".to_owned());
    }
    let without = without_password(text);
    (key == "store.url" && without != text).then(|| Value::from(without).to_string())
}

/// Kubernetes tells every container of every service in its namespace: a service named `holdfast` makes `HOLDFAST_SERVICE_HOST`,
/// `HOLDFAST_PORT_1883_TCP_ADDR` and more. They are not meant for us, and must not keep us from starting.
fn is_service_link(name: &str) -> bool {
    let port = name.split_once("_PORT").map(|(_, rest)| rest);
    let port = port.is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('_').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    port || name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Float(_) => "a number",
        _ => "a text",
    }
}

/// Reads a list as it stands in TOML; the error says what is allowed, and where the text is something else.
fn list(text: &str) -> Result<Value, String> {
    const BEFORE: &str = "value = ";
    let error = match toml::from_str::<Table>(&format!("{BEFORE}{text}")) {
        Ok(mut table) => return table.remove("value").ok_or_else(|| "must be a list".to_owned()),
        Err(error) => error,
    };
    // A single word is no attempt at TOML.
    if !text.trim_start().starts_with('[') {
        return Err("must be a list in TOML, such as [\"a\", \"b\"]".to_owned());
    }
    let at = error.span().map_or(0, |span| span.start.saturating_sub(BEFORE.len()));
    let rest: String = text.get(at..).unwrap_or_default().chars().take(SHOWN_CHARS_MAX).collect();
    let place = if rest.trim().is_empty() { "its end".to_owned() } else { format!("`{}`", one_line(&rest)) };
    Err(format!("must be a list in TOML; at {place}: {}", one_line(error.message())))
}

/// So much of a text shows where in it something is wrong.
const SHOWN_CHARS_MAX: usize = 24;

/// Turns what the deserialiser expected into what is allowed.
fn must_be(message: &str) -> String {
    let message = one_line(message);
    if let Some(names) = message.strip_prefix("unknown field ") {
        // The unknown name, then those that there are, each in backticks.
        let mut names = names.split('`').skip(1).step_by(2);
        let unknown = names.next().unwrap_or_default();
        return format!("{unknown}: no such key{}", keys::nearest(unknown, names));
    }
    let expected = message.rsplit_once("expected ").map(|(_, expected)| expected.trim());
    match expected {
        Some("u8") => "must be a whole number, not negative and at most 255".to_owned(),
        Some("u16") => "must be a whole number, not negative and at most 65535".to_owned(),
        Some("u32") => "must be a whole number, not negative and at most 4294967295".to_owned(),
        Some("u64") => "must be a whole number, not negative and at most 9223372036854775807".to_owned(),
        Some(expected) => format!("must be {expected}"),
        None => message,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::config::LayerFlags;

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn with_file(file: &NamedTempFile) -> LayerFlags {
        LayerFlags { config: Some(file.path().to_owned()), ..LayerFlags::default() }
    }

    fn set(pairs: &[&str]) -> LayerFlags {
        LayerFlags { set: pairs.iter().map(|&pair| pair.to_owned()).collect(), ..LayerFlags::default() }
    }

    fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn receive_maximum(loaded: &Loaded) -> u16 {
        keys::build(&loaded.values).unwrap().gateway.mqtt.receive_maximum
    }

    fn refusal(flags: &LayerFlags, variables: &[(&str, &str)]) -> String {
        let line = match load(flags, environment(variables)) {
            Ok(loaded) => loaded.validate(Role::Dev).err().expect("it is refused").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn the_command_line_wins_over_the_environment_the_environment_over_the_file() {
        let file = file("[mqtt]\nreceive_maximum = 10\nmaximum_qos = 1");
        let variables = [("HOLDFAST_MQTT__RECEIVE_MAXIMUM", "20")];
        let mut flags = with_file(&file);
        assert_eq!(receive_maximum(&load(&flags, []).unwrap()), 10);
        assert_eq!(receive_maximum(&load(&flags, environment(&variables)).unwrap()), 20);
        flags.set.push("mqtt.receive_maximum=30".into());
        let loaded = load(&flags, environment(&variables)).unwrap();
        assert_eq!(receive_maximum(&loaded), 30);
        assert_eq!(loaded.sources["mqtt.receive_maximum"], Source::CommandLine("--set"));
        assert_eq!(loaded.sources["mqtt.maximum_qos"], Source::File(file.path().to_owned()));
        assert!(!loaded.is_set("mqtt.retain_available"));
    }

    #[test]
    fn each_type_of_key_can_be_set_as_text() {
        let flags = set(&[
            "shards=3",
            "mqtt.retain_available=false",
            "listeners.ws=off",
            "limits.connections_max=1_000",
            "topic_map=[{ filter = \"chat/#\", sink = \"none\" }]",
        ]);
        let config = keys::build(&load(&flags, []).unwrap().values).unwrap();
        assert_eq!(config.gateway.shards, 3);
        assert!(!config.gateway.mqtt.retain_available);
        assert_eq!(config.gateway.listeners.ws, "off");
        assert_eq!(config.gateway.limits.connections_max, 1_000);
        assert_eq!(config.topic_map[0].filter, "chat/#");
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_name_and_the_nearest_one_whoever_gives_it() {
        let line = refusal(&set(&["mqtt.recieve_maximum=5"]), &[]);
        assert_eq!(
            line,
            "mqtt.recieve_maximum: no such key; did you mean mqtt.receive_maximum? (from --set)"
        );
        let line = refusal(&LayerFlags::default(), &[("HOLDFAST_MQTT__RECIEVE_MAXIMUM", "5")]);
        assert!(line.ends_with("(from HOLDFAST_MQTT__RECIEVE_MAXIMUM)"), "{line}");
        let file = file("[mqqt]\nreceive_maximum = 5");
        let line = refusal(&with_file(&file), &[]);
        assert!(line.starts_with("mqqt: "), "{line}");
        let line = refusal(&set(&["link.secert=hunter2"]), &[]);
        assert!(line.contains("link.secret") && !line.contains("hunter2"), "{line}");
    }

    #[test]
    fn a_value_of_the_wrong_type_or_out_of_range_names_what_is_allowed() {
        for (pair, expected) in [
            ("mqtt.receive_maximum=many", "mqtt.receive_maximum = \"many\": must be a whole number"),
            (
                "mqtt.receive_maximum=70000",
                "mqtt.receive_maximum = 70000: must be a whole number, not negative and at most 65535",
            ),
            ("mqtt.receive_maximum=0", "mqtt.receive_maximum = 0: must be between 1 and 65535"),
            ("mqtt.retain_available=maybe", "mqtt.retain_available = \"maybe\": must be true or false"),
            ("log.format=xml", "log.format = \"xml\": must be `text` or `json`"),
            ("sink.queue_bytes_max=1", "sink.queue_bytes_max = 1: must be between 1048576 and 1073741824"),
            ("topic_map=[{ filter = \"a\", sink = \"kafka\" }]", "topic_map.sink = kafka: must be"),
            (
                "topic_map=[{ filtre = \"a\", sink = \"none\" }]",
                "topic_map = [{ filtre = \"a\", sink = \"none\" }]: filtre: no such key; did you mean filter?",
            ),
            (
                "topic_map=[{ xyz = \"a\", sink = \"none\" }]",
                "topic_map = [{ sink = \"none\", xyz = \"a\" }]: xyz: no such key; there are filter, sink",
            ),
            (
                "topic_map=[{ filter = \"a\" sink = \"none\" }]",
                "topic_map = [{ filter = \"a\" sink = \"none\" }]: must be a list in TOML; at `",
            ),
            (
                "topic_map=[{ filter = \"a\", sink",
                "topic_map = [{ filter = \"a\", sink: must be a list in TOML; at ",
            ),
            ("link.bridges=bridge:1", "link.bridges = bridge:1: must be a list in TOML, such as"),
            ("topic_map=[{ filter = \"a\" }]", "topic_map = [{ filter = \"a\" }]: missing field `sink`"),
            ("data_dir=", "data_dir = \"\": must name a directory"),
        ] {
            let line = refusal(&set(&[pair]), &[]);
            assert!(line.starts_with(expected), "{line}");
            assert!(line.ends_with("(from --set)"), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_line() {
        let file = file("[mqtt]\nreceive_maximum = = 5");
        let line = refusal(&with_file(&file), &[]);
        assert!(line.starts_with(&format!("{}:2: ", file.path().display())), "{line}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let flags = LayerFlags { config: Some("/nowhere/holdfast.toml".into()), ..LayerFlags::default() };
        assert!(refusal(&flags, &[]).starts_with("--config /nowhere/holdfast.toml: No such file"));
    }

    #[test]
    fn a_setting_without_a_value_is_refused() {
        assert_eq!(
            refusal(&set(&["mqtt.receive_maximum"]), &[]),
            "--set mqtt.receive_maximum: must be KEY=VALUE"
        );
    }

    #[test]
    fn keys_that_a_role_takes_up_are_told_from_those_that_wait() {
        let before =
            load(&set(&["limits.inflight_max=5", "kafka.settings.socket.timeout.ms=1000"]), []).unwrap();
        let now = ["limits.inflight_max=6", "tcp.batch_us=1", "kafka.topic=other", "link.secret=hunter2"];
        let now = load(&set(&now), []).unwrap();
        let (before, now) = (before.values(), now.values());
        let waiting = |role: Role| changed(before, now, |key| role.heeds(key) && !role.takes_up(key));
        let taken_up = |role: Role| changed(before, now, |key| role.takes_up(key));
        assert_eq!(taken_up(Role::Gateway).as_deref(), Some("limits.inflight_max"));
        assert_eq!(waiting(Role::Gateway).as_deref(), Some("link.secret, tcp.batch_us"));
        assert_eq!(taken_up(Role::Bridge), None);
        let bridge = "kafka.settings.socket.timeout.ms, kafka.topic, link.secret";
        assert_eq!(waiting(Role::Bridge).as_deref(), Some(bridge));
        assert_eq!(waiting(Role::Dev).as_deref(), Some("link.secret, tcp.batch_us"));
        assert_eq!(changed(before, before, |_| true), None);
    }

    #[test]
    fn what_kubernetes_says_of_a_service_named_holdfast_is_passed_over() {
        let links = [
            ("HOLDFAST_SERVICE_HOST", "10.0.0.1"),
            ("HOLDFAST_SERVICE_PORT_MQTT", "1883"),
            ("HOLDFAST_PORT", "tcp://10.0.0.1:1883"),
            ("HOLDFAST_PORT_1883_TCP_ADDR", "10.0.0.1"),
            ("HOLDFAST_BRIDGE_PORT_7000_TCP", "tcp://10.0.0.2:7000"),
        ];
        let loaded = load(&LayerFlags::default(), environment(&links)).unwrap();
        assert!(loaded.sources.is_empty());
    }

    #[test]
    fn no_key_looks_like_a_service_link() {
        for key in keys::defaults().keys() {
            let variable = format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase());
            assert!(!is_service_link(&variable), "{variable}");
        }
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let long = format!("link.secret={}", "x".repeat(2_000));
        assert!(!refusal(&set(&[&long]), &[]).contains("xxx"));
        let file = file("[link]\nsecret = 12345");
        assert!(!refusal(&with_file(&file), &[]).contains("12345"));
    }

    #[test]
    fn the_secret_has_a_variable_of_its_own() {
        let loaded =
            load(&LayerFlags::default(), environment(&[("HOLDFAST_LINK_SECRET", "s3cret")])).unwrap();
        assert_eq!(keys::build(&loaded.values).unwrap().gateway.link.secret, "s3cret");
    }

    #[test]
    fn the_password_of_a_store_is_not_repeated() {
        let flags = set(&["store.url=redis://user:hunter2@host:6379/0"]);
        assert!(!load(&flags, []).unwrap().to_toml().contains("hunter2"));
        assert!(!refusal(&set(&["store.url=postgres://user:hunter2@host"]), &[]).contains("hunter2"));
    }

    #[test]
    fn settings_of_librdkafka_keep_their_names_and_hide_their_secrets() {
        let file = file("[kafka.settings]\nsecurity.protocol = \"ssl\"\n\"socket.timeout.ms\" = 9000");
        let mut flags = with_file(&file);
        flags.set.push("kafka.settings.sasl.password=hunter2".into());
        let loaded =
            load(&flags, environment(&[("HOLDFAST_KAFKA__SETTINGS__SASL__USERNAME", "me")])).unwrap();
        let settings = keys::build(&loaded.values).unwrap().kafka.settings;
        let settings: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            settings,
            [
                ("sasl.password", "hunter2"),
                ("sasl.username", "me"),
                ("security.protocol", "ssl"),
                ("socket.timeout.ms", "9000")
            ]
        );
        let printed = loaded.to_toml();
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("[kafka.settings]\n# \"sasl.password\" = "), "{printed}");
    }
}
