//! The functions that the server runs for us, as one library.
//!
//! Its name carries the format of the keys and a hash of its text: two versions of Holdfast on one server, as during an
//! upgrade, each find the functions that they were built with.

use std::collections::HashSet;

use super::partition::hash;

const PARTS: [&str; 13] = [
    include_str!("functions/base.lua"),
    include_str!("functions/life.lua"),
    include_str!("functions/row.lua"),
    include_str!("functions/held.lua"),
    include_str!("functions/streams.lua"),
    include_str!("functions/claims.lua"),
    include_str!("functions/wills.lua"),
    include_str!("functions/nodes.lua"),
    include_str!("functions/sessions.lua"),
    include_str!("functions/listing.lua"),
    include_str!("functions/groups.lua"),
    include_str!("functions/retained.lua"),
    include_str!("functions/due.lua"),
];

/// The format of what stands in the server; another one is not touched.
pub(super) const FORMAT: u64 = 3;

/// The library.
pub(super) struct Library {
    /// What `FUNCTION LOAD` takes.
    pub(super) text: String,
    name: String,
}

impl Library {
    pub(super) fn new() -> Self {
        let body = PARTS.concat();
        let name = format!("holdfast_{FORMAT}_{:016x}", hash(body.as_bytes()));
        Self { text: format!("#!lua name={name}\nlocal NAME = '{name}'\n{body}"), name }
    }

    /// The library's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The functions that change something, by the names under which the server knows them: all that do not say otherwise.
    pub(super) fn writing(&self) -> HashSet<Vec<u8>> {
        let functions = self.text.split("\nexport('").skip(1).filter(|text| !text.contains("'no-writes'"));
        functions
            .filter_map(|text| text.split_once('\''))
            .map(|(name, _)| self.function(name).into_bytes())
            .collect()
    }

    /// The name under which the server knows a function.
    pub(super) fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_function_says_which_text_it_belongs_to() {
        let library = Library::new();
        let function = library.function("open");
        assert!(function.starts_with("holdfast_3_") && function.ends_with("_open"), "{function}");
        assert!(library.text.starts_with(&format!("#!lua name={}\n", library.name)));
    }

    #[test]
    fn it_is_known_which_functions_write() {
        let library = Library::new();
        let writing = library.writing();
        let writes = |name: &str| writing.contains(library.function(name).as_bytes());
        assert!(
            ["open", "reopen", "append", "close", "claim", "retain", "begin"].iter().all(|name| writes(name))
        );
        assert!(!["read", "lookup", "exists", "member"].iter().any(|name| writes(name)));
    }
}
