//! What is wrong with a configuration of Kafka that shows without asking its brokers.

use std::net::Ipv6Addr;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use super::config::KafkaConfig;
use super::error::{KafkaStartError, one_line};
use crate::uplink::topic_template::is_topic_name;

impl KafkaConfig {
    /// Says what is wrong with it by itself: rules, addresses, names of topics, settings of librdkafka. Reads the files that settings name, and asks
    /// nobody.
    pub fn check(&self) -> Result<(), KafkaStartError> {
        self.topic_map
            .iter()
            .try_for_each(|rule| rule.check().map_err(|error| KafkaStartError::Other(error.to_string())))?;
        check_brokers(&self.brokers)?;
        let dead_letter = self.dead_letter.as_ref();
        for (key, name) in [("kafka.topic", Some(&self.topic)), ("kafka.dead_letter", dead_letter)] {
            if let Some(name) = name.filter(|name| !is_topic_name(name)) {
                return Err(KafkaStartError::TopicName { key, name: name.clone() });
            }
        }
        self.check_settings()?;
        // What contradicts something else, and which files cannot be read, shows when a client begins; one without an address keeps to itself.
        let mut native = self.native(None)?;
        native.remove("bootstrap.servers");
        native.set_log_level(RDKafkaLogLevel::Emerg);
        native.create::<BaseProducer>()?;
        Ok(())
    }

    /// Says which of the settings is not the operator's, is none, or cannot have its value. Opens nothing.
    pub fn check_settings(&self) -> Result<(), KafkaStartError> {
        let mut native = self.native(None)?;
        for (name, value) in &self.settings {
            let alone = ClientConfig::new().set(name, value).create_native_config();
            if let Err(KafkaError::ClientConfig(_, reason, ..)) = alone {
                let (name, reason) = (name.clone(), one_line(&reason));
                return Err(KafkaStartError::NotASetting { name, reason });
            }
        }
        native.set_log_level(RDKafkaLogLevel::Emerg);
        native.create_native_config()?;
        Ok(())
    }
}

/// `HOST:PORT,…`. librdkafka passes over what it cannot read, and takes a port that is missing for 9092.
fn check_brokers(brokers: &str) -> Result<(), KafkaStartError> {
    if brokers.trim().is_empty() {
        return Err(KafkaStartError::NoBrokers);
    }
    match brokers.split(',').find(|broker| !is_broker(broker.trim_start())) {
        Some(broker) => Err(KafkaStartError::Broker(broker.to_owned())),
        None => Ok(()),
    }
}

fn is_broker(broker: &str) -> bool {
    let address = match broker.split_once("://") {
        Some((protocol, address)) => {
            let protocols = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
            if !protocols.iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
                return false;
            }
            address
        }
        None => broker,
    };
    let (host, port) = match address.strip_prefix('[').and_then(|address| address.split_once(']')) {
        Some((host, port)) => {
            let is_port = port.is_empty() || port.starts_with(':');
            return is_port && host.parse::<Ipv6Addr>().is_ok() && is_port_or_none(port.strip_prefix(':'));
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.bytes().all(may_stand) && is_port_or_none(port)
}

fn is_port_or_none(port: Option<&str>) -> bool {
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::uplink::topic_map::TopicRule;

    fn config(settings: &[(&str, &str)]) -> KafkaConfig {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings: BTreeMap<_, _> = settings.iter().map(own).collect();
        KafkaConfig { brokers: "127.0.0.1:1".into(), settings, ..KafkaConfig::default() }
    }

    fn line(config: &KafkaConfig) -> String {
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for well in ["kafka", "kafka:9092", "a.b-c_d:1, e:2", "SASL_SSL://kafka:9093", "[::1]:9092", "[::1]"]
        {
            assert_eq!(check_brokers(well), Ok(()), "{well}");
        }
        for wrong in [
            "foo bar",
            "a:1,",
            ",a:1",
            "a:0",
            "a:70000",
            "a:b",
            "a:1:2",
            ":9092",
            "http://a:1",
            "[::1",
            "[x]:1",
        ] {
            assert!(matches!(check_brokers(wrong), Err(KafkaStartError::Broker(_))), "{wrong}");
        }
        assert_eq!(check_brokers(" "), Err(KafkaStartError::NoBrokers));
    }

    #[test]
    fn what_is_well_by_itself_passes_though_nobody_listens_there() {
        config(&[]).check().unwrap();
        config(&[("security.protocol", "ssl"), ("socket.timeout.ms", "9000")]).check().unwrap();
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_is_named() {
        assert!(line(&config(&[("nonsense", "1")])).starts_with("kafka.settings.nonsense: "));
        assert!(
            line(&config(&[("socket.timeout.ms", "soon")])).starts_with("kafka.settings.socket.timeout.ms: ")
        );
        assert!(line(&config(&[("acks", "1")])).starts_with("kafka.settings.acks cannot be set: "));
    }

    #[test]
    fn settings_that_do_not_go_together_show_before_any_server_is_asked() {
        let line = line(&config(&[("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere/ca.pem")]));
        assert!(line.contains("ca.pem") || line.contains("ssl.ca.location"), "{line}");
    }

    #[test]
    fn a_rule_and_a_topic_that_cannot_be_are_refused() {
        let rule = TopicRule { filter: "a/#".into(), sink: "kafka:x.{9}".parse().unwrap() };
        assert!(line(&KafkaConfig { topic_map: vec![rule], ..config(&[]) }).contains("{9} may be missing"));
        let line = line(&KafkaConfig { topic: "a b".into(), ..config(&[]) });
        assert!(line.starts_with("kafka.topic = \"a b\""), "{line}");
    }
}
