//! Topic aliases of one connection, both ways (section 3.3.2.3.4). They die with the connection.

/// What either side has agreed to abbreviate.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// By alias less one; bounded by `mqtt.topic_alias_maximum`.
    inbound: Vec<Option<Box<str>>>,
    /// By alias less one; bounded by what the client takes and `mqtt.topic_alias_maximum_outbound`.
    outbound: Vec<Box<str>>,
}

/// How a topic goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outbound {
    /// In full, no alias.
    Plain,
    /// In full, and from now on by this alias.
    Introduce(u16),
    /// By alias alone.
    Known(u16),
}

impl Aliases {
    /// The client gave a topic an alias. `alias` is within the maximum.
    pub(crate) fn learn(&mut self, alias: u16, topic: &str) {
        let index = usize::from(alias) - 1;
        if self.inbound.len() <= index {
            self.inbound.resize(index + 1, None);
        }
        self.inbound[index] = Some(topic.into());
    }

    /// The topic behind a client's alias.
    pub(crate) fn resolve(&self, alias: u16) -> Option<&str> {
        self.inbound.get(usize::from(alias).checked_sub(1)?)?.as_deref()
    }

    /// How to send a topic to a client that takes `maximum` aliases: the first ones sent get one, and keep it.
    pub(crate) fn outbound(&mut self, topic: &str, maximum: u16) -> Outbound {
        if let Some(index) = self.outbound.iter().position(|known| **known == *topic) {
            Outbound::Known(index as u16 + 1)
        } else if self.outbound.len() < usize::from(maximum) {
            self.outbound.push(topic.into());
            Outbound::Introduce(self.outbound.len() as u16)
        } else {
            Outbound::Plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_give_an_alias_a_new_topic() {
        let mut aliases = Aliases::default();
        assert_eq!(aliases.resolve(3), None);
        aliases.learn(3, "a");
        aliases.learn(3, "b");
        assert_eq!((aliases.resolve(3), aliases.resolve(1), aliases.resolve(0)), (Some("b"), None, None));
    }

    #[test]
    fn the_first_topics_sent_get_an_alias_and_the_others_go_in_full() {
        let mut aliases = Aliases::default();
        assert_eq!(aliases.outbound("a", 1), Outbound::Introduce(1));
        assert_eq!(aliases.outbound("a", 1), Outbound::Known(1));
        assert_eq!(aliases.outbound("b", 1), Outbound::Plain);
    }
}
