//! The merged configuration as a TOML file that can be used as it is.

use std::fmt::Write as _;

use super::keys;
use super::layers::{Loaded, hidden};

impl Loaded {
    /// Every key with its value; behind those that are not defaults stands who gave them. Of a secret there is a comment alone, so that nobody's
    /// secret becomes the word that stands in its place.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::from(
            "# A key with a comment was set by what the comment names; the others have their defaults. Secrets are left out.\n",
        );
        // Those at the top come first, and a table is not begun twice for having tables in it.
        let mut keys: Vec<_> = self.values.keys().map(|key| (keys::split(key), key)).collect();
        keys.sort_unstable();
        let mut open = "";
        for ((table, name), key) in keys {
            if table != open {
                let _ = write!(text, "\n[{table}]\n");
                open = table;
            }
            self.print_key(&mut text, key, name);
        }
        text
    }

    fn print_key(&self, text: &mut String, key: &str, name: &str) {
        // Writing to a String cannot fail.
        let name = if name.contains('.') { format!("{name:?}") } else { name.to_owned() };
        let value = &self.values[key];
        let _ = match hidden(key, value) {
            Some(hidden) => write!(text, "# {name} = {hidden}, give it again"),
            None => write!(text, "{name} = {value}"),
        };
        let is_default = self.known.get(key) == Some(value);
        if let Some(source) = self.sources.get(key).filter(|_| !is_default) {
            let _ = write!(text, "  # {source}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::config::{LayerFlags, load};

    #[test]
    fn what_is_printed_is_a_file_that_says_the_same_and_names_its_sources() {
        let flags = LayerFlags {
            set: vec![
                "mqtt.receive_maximum=7".into(),
                "topic_map=[{ filter = \"a b/#\", sink = \"none\" }]".into(),
            ],
            ..LayerFlags::default()
        };
        let loaded = load(&flags, []).unwrap();
        let printed = loaded.to_toml();
        assert!(printed.contains("\n[mqtt]\n"), "{printed}");
        assert!(printed.contains("\nreceive_maximum = 7  # --set\n"), "{printed}");
        assert!(printed.contains("\nmaximum_qos = 2\n"), "{printed}");

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(printed.as_bytes()).unwrap();
        let flags = LayerFlags { config: Some(file.path().to_owned()), ..LayerFlags::default() };
        let again = load(&flags, []).unwrap();
        assert_eq!(again.values, loaded.values);
        // Read from a file, the defaults are defaults still.
        assert!(again.to_toml().contains("\nmaximum_qos = 2\n"));
    }

    #[test]
    fn a_secret_is_a_comment_and_never_a_value() {
        let flags = LayerFlags {
            set: vec![
                "link.secret=treasure".into(),
                "store.url=redis://me:treasure@host".into(),
                "kafka.settings.sasl.password=treasure".into(),
            ],
            ..LayerFlags::default()
        };
        let printed = load(&flags, []).unwrap().to_toml();
        assert!(!printed.contains("treasure"), "{printed}");
        assert!(printed.contains("\n# secret = \"(hidden)\", give it again  # --set\n"), "{printed}");
        let table: toml::Table = toml::from_str(&printed).unwrap();
        assert_eq!(table["link"].get("secret"), None);
        assert_eq!(table["store"].get("url"), None);
    }
}
