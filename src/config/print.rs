//! The merged configuration as a TOML file that can be used as it is.

use std::fmt::Write as _;

use super::keys;
use super::layers::{Loaded, shown};

impl Loaded {
    /// Every key with its value; behind those that are not defaults stands who gave them. A secret is not shown.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::from(
            "# A key with a comment was set by what the comment names; the others have their defaults.\n",
        );
        let at_top = |key: &&String| !key.contains('.');
        for key in self.values.keys().filter(at_top) {
            self.print_key(&mut text, key, key);
        }
        let mut open = "";
        for key in self.values.keys() {
            let (table, name) = keys::split(key);
            if table.is_empty() {
                continue;
            }
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
        let _ = write!(text, "{name} = {}", shown(key, &self.values[key]));
        if let Some(source) = self.sources.get(key) {
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
        assert_eq!(load(&flags, []).unwrap().values, loaded.values);
    }
}
