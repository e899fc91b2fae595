//! What is written is read as the same, for every packet in both versions; and no cut or altered packet does harm.

use holdfast_wire::mqtt::{
    AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeError,
    Disconnect, DisconnectProperties, FixedHeader, Packet, PacketId, PacketType, ProtocolVersion, PubAck,
    PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeProperties, SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeProperties, UserProperties,
    Will, WillProperties, fuzzing,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const TEXT: &str = "[ a-zé\u{1}日]{0,8}";
const NAME: &str = "[$a-zé]{1,4}(/[a-z ]{0,3}){0,3}";
const FILTER: &str = "(\\+|[a-z]{1,3})(/(\\+|[a-z]{0,3})){0,3}(/#)?|\\$share/[a-z]{1,3}/[a-z]{1,3}(/#)?";

/// What happens to a packet besides being read: this byte of it becomes that.
type Alteration = (Index, u8);

proptest! {
    #[test]
    fn connect_survives(
        version in version(),
        flags in (any::<bool>(), any::<u16>()),
        texts in (TEXT, of(TEXT), of(bytes())),
        will in of((qos(), any::<bool>(), NAME, bytes(), message_properties(), of(any::<u32>()))),
        limits in (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>())),
        requests in (of(any::<bool>()), of(any::<bool>())),
        authentication in of((TEXT, of(bytes()))),
        user_properties in pairs(),
        alteration in any::<Alteration>(),
    ) {
        let user_properties = views(&user_properties);
        let (client_id, username, password) = &texts;
        let will_user_properties = will.as_ref().map(|will| views(&will.4.user_properties)).unwrap_or_default();
        let is_v5 = version == ProtocolVersion::V5;
        let will = will.as_ref().map(|(qos, retain, topic, payload, properties, delay_interval_s)| Will {
            qos: *qos,
            retain: *retain,
            topic,
            payload,
            properties: only(is_v5, WillProperties {
                delay_interval_s: *delay_interval_s,
                payload_format_indicator: properties.payload_format_indicator,
                message_expiry_interval_s: properties.message_expiry_interval_s,
                content_type: properties.content_type.as_deref(),
                response_topic: properties.response_topic.as_deref(),
                correlation_data: properties.correlation_data.as_deref(),
                user_properties: will_user_properties[..].into(),
            }),
        });
        let connect = Connect {
            version,
            clean_start: flags.0 || (!is_v5 && client_id.is_empty()),
            keep_alive_s: flags.1,
            client_id,
            will,
            username: username.as_deref(),
            password: password.as_deref().filter(|_| is_v5 || username.is_some()),
            properties: only(is_v5, ConnectProperties {
                session_expiry_interval_s: limits.0,
                receive_maximum: limits.1,
                maximum_packet_size: limits.2,
                topic_alias_maximum: limits.3,
                request_response_information: requests.0,
                request_problem_information: requests.1,
                user_properties: user_properties[..].into(),
                authentication_method: authentication.as_ref().map(|(method, _)| &method[..]),
                authentication_data: authentication.as_ref().and_then(|(_, data)| data.as_deref()),
            }),
        };
        survives(&Packet::Connect(connect), version, alteration)?;
    }

    #[test]
    fn connack_survives(
        session_present in any::<bool>(),
        reason_code in reason_code(PacketType::ConnAck),
        numbers in (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>()), of(any::<u16>())),
        maximum_qos in of(select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..])),
        available in (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>())),
        texts in (of(TEXT), of(TEXT), of(TEXT), of(TEXT)),
        authentication in of((TEXT, of(bytes()))),
        user_properties in pairs(),
        alteration in any::<Alteration>(),
    ) {
        let user_properties = views(&user_properties);
        let connack = ConnAck {
            session_present: session_present && reason_code == ReasonCode::Success,
            reason_code,
            properties: ConnAckProperties {
                session_expiry_interval_s: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos,
                retain_available: available.0,
                maximum_packet_size: numbers.2,
                assigned_client_identifier: texts.0.as_deref(),
                topic_alias_maximum: numbers.3,
                reason_string: texts.1.as_deref(),
                user_properties: user_properties[..].into(),
                wildcard_subscription_available: available.1,
                subscription_identifiers_available: available.2,
                shared_subscription_available: available.3,
                server_keep_alive_s: numbers.4,
                response_information: texts.2.as_deref(),
                server_reference: texts.3.as_deref(),
                authentication_method: authentication.as_ref().map(|(method, _)| &method[..]),
                authentication_data: authentication.as_ref().and_then(|(_, data)| data.as_deref()),
            },
        };
        survives(&Packet::ConnAck(connack), ProtocolVersion::V5, alteration)?;
        let mut as_v311 = Vec::new();
        connack.encode(ProtocolVersion::V311, &mut as_v311);
        let read = read(&as_v311, ProtocolVersion::V311)?;
        prop_assert!(matches!(read, Packet::ConnAck(other)
            if other.session_present == connack.session_present
                && other.reason_code.is_error() == connack.reason_code.is_error()));
    }

    #[test]
    fn publish_survives(
        version in version(),
        flags in (any::<bool>(), qos(), any::<bool>(), packet_id()),
        topic in NAME,
        alias in of((1..=u16::MAX, any::<bool>())),
        properties in message_properties(),
        subscription_identifiers in vec(1..=268_435_455_u32, 0..4),
        payload in bytes(),
        alteration in any::<Alteration>(),
    ) {
        let user_properties = views(&properties.user_properties);
        let (dup, qos, retain, packet_id) = flags;
        let confirmed = qos != QoS::AtMostOnce;
        let is_v5 = version == ProtocolVersion::V5;
        let without_topic = is_v5 && alias.is_some_and(|(_, alone)| alone);
        let publish = Publish {
            dup: dup && confirmed,
            qos,
            retain,
            topic: if without_topic { "" } else { &topic },
            packet_id: confirmed.then_some(packet_id),
            properties: only(is_v5, PublishProperties {
                payload_format_indicator: properties.payload_format_indicator,
                message_expiry_interval_s: properties.message_expiry_interval_s,
                topic_alias: alias.map(|(alias, _)| alias),
                response_topic: properties.response_topic.as_deref(),
                correlation_data: properties.correlation_data.as_deref(),
                user_properties: user_properties[..].into(),
                subscription_identifiers: subscription_identifiers[..].into(),
                content_type: properties.content_type.as_deref(),
            }),
            payload: &payload,
        };
        survives(&Packet::Publish(publish), version, alteration)?;
    }

    #[test]
    fn the_four_acknowledgements_survive(
        version in version(),
        packet_id in packet_id(),
        published in reason_code(PacketType::PubAck),
        released in reason_code(PacketType::PubRel),
        reason_string in of(TEXT),
        user_properties in pairs(),
        alteration in any::<Alteration>(),
    ) {
        let is_v5 = version == ProtocolVersion::V5;
        let user_properties = views(&user_properties);
        let properties = only(is_v5, AckProperties {
            reason_string: reason_string.as_deref(),
            user_properties: user_properties[..].into(),
        });
        let (published, released) = (only(is_v5, published), only(is_v5, released));
        for packet in [
            Packet::PubAck(PubAck { packet_id, reason_code: published, properties }),
            Packet::PubRec(PubRec { packet_id, reason_code: published, properties }),
            Packet::PubRel(PubRel { packet_id, reason_code: released, properties }),
            Packet::PubComp(PubComp { packet_id, reason_code: released, properties }),
        ] {
            survives(&packet, version, alteration)?;
        }
    }

    #[test]
    fn subscribe_and_suback_survive(
        version in version(),
        packet_id in packet_id(),
        subscription_identifier in of(1..=268_435_455_u32),
        filters in vec((FILTER, options()), 1..5),
        reason_codes in vec(reason_code(PacketType::SubAck), 1..5),
        user_properties in pairs(),
        alteration in any::<Alteration>(),
    ) {
        let is_v5 = version == ProtocolVersion::V5;
        let user_properties: &[_] = &views(&user_properties);
        let user_properties = only(is_v5, UserProperties::from(user_properties));
        let filters: Vec<(&str, SubscriptionOptions)> = filters
            .iter()
            .map(|(filter, options)| {
                let options = if is_v5 { *options } else { SubscriptionOptions::at(options.qos) };
                let no_local = options.no_local && !filter.starts_with("$share/");
                (&filter[..], SubscriptionOptions { no_local, ..options })
            })
            .collect();
        let subscription_identifier = subscription_identifier.filter(|_| is_v5);
        let subscribe = Subscribe {
            packet_id,
            properties: SubscribeProperties { subscription_identifier, user_properties },
            filters: filters[..].into(),
        };
        prop_assert_eq!(subscribe.filters.len(), filters.len());
        survives(&Packet::Subscribe(subscribe), version, alteration)?;
        let reason_codes: Vec<u8> = reason_codes
            .into_iter()
            .map(|code| if is_v5 { code.into() } else { u8::from(code).min(0x80) })
            .collect();
        let properties = AckProperties { reason_string: None, user_properties };
        let suback = SubAck { packet_id, properties, reason_codes: &reason_codes };
        survives(&Packet::SubAck(suback), version, alteration)?;
    }

    #[test]
    fn unsubscribe_and_unsuback_survive(
        version in version(),
        packet_id in packet_id(),
        filters in vec(FILTER, 1..5),
        reason_codes in vec(reason_code(PacketType::UnsubAck), 1..5),
        user_properties in pairs(),
        alteration in any::<Alteration>(),
    ) {
        let is_v5 = version == ProtocolVersion::V5;
        let user_properties: &[_] = &views(&user_properties);
        let user_properties = only(is_v5, UserProperties::from(user_properties));
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let properties = UnsubscribeProperties { user_properties };
        let unsubscribe = Unsubscribe { packet_id, properties, filters: filters[..].into() };
        prop_assert_eq!(unsubscribe.filters.len(), filters.len());
        survives(&Packet::Unsubscribe(unsubscribe), version, alteration)?;
        let reason_codes: Vec<u8> = reason_codes.into_iter().filter(|_| is_v5).map(u8::from).collect();
        let properties = AckProperties { reason_string: None, user_properties };
        let unsuback = UnsubAck { packet_id, properties, reason_codes: &reason_codes };
        survives(&Packet::UnsubAck(unsuback), version, alteration)?;
    }

    #[test]
    fn disconnect_and_auth_survive(
        version in version(),
        reason_code in reason_code(PacketType::Disconnect),
        step in reason_code(PacketType::Auth),
        session_expiry_interval_s in of(any::<u32>()),
        texts in (of(TEXT), of(TEXT)),
        authentication in (TEXT, of(bytes())),
        user_properties in pairs(),
        alteration in any::<Alteration>(),
    ) {
        let is_v5 = version == ProtocolVersion::V5;
        let user_properties: &[_] = &views(&user_properties);
        let disconnect = Disconnect {
            reason_code,
            properties: DisconnectProperties {
                session_expiry_interval_s,
                reason_string: texts.0.as_deref(),
                user_properties: user_properties.into(),
                server_reference: texts.1.as_deref(),
            },
        };
        survives(&Packet::Disconnect(only(is_v5, disconnect)), version, alteration)?;
        let auth = Auth {
            reason_code: step,
            properties: AuthProperties {
                authentication_method: Some(&authentication.0),
                authentication_data: authentication.1.as_deref(),
                reason_string: texts.0.as_deref(),
                user_properties: user_properties.into(),
            },
        };
        survives(&Packet::Auth(auth), ProtocolVersion::V5, alteration)?;
    }
}

/// Writes the packet and reads it again; cuts it at each byte; alters one byte.
fn survives(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    alteration: Alteration,
) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    prop_assert_eq!(read(&bytes, version)?, *packet);
    for cut in 0..bytes.len() {
        let (start, whole) = (&bytes[..cut], bytes.len());
        // Either the header itself is not whole, or it says how much is missing, and a decoder says so too.
        if let Some(header) = FixedHeader::decode(start)? {
            prop_assert_eq!(header.packet_length(), whole);
            let body = &start[header.header_length.into()..];
            prop_assert_eq!(Packet::decode(header, body, version), Err(DecodeError::Truncated));
        }
    }
    let (index, byte) = alteration;
    let at = index.index(bytes.len());
    bytes[at] = byte;
    fuzzing::fuzz_packet(&bytes);
    Ok(())
}

fn read(bytes: &[u8], version: ProtocolVersion) -> Result<Packet<'_>, TestCaseError> {
    let header = FixedHeader::decode(bytes)?.ok_or_else(|| TestCaseError::fail("the header is not whole"))?;
    Ok(Packet::decode(header, &bytes[header.header_length.into()..], version)?)
}

/// What one version lacks is left at its default there.
fn only<T: Default>(wanted: bool, value: T) -> T {
    if wanted { value } else { T::default() }
}

/// The properties that PUBLISH and a will have in common, owned.
#[derive(Debug)]
struct MessageProperties {
    payload_format_indicator: Option<bool>,
    message_expiry_interval_s: Option<u32>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
    user_properties: Vec<(String, String)>,
}

fn message_properties() -> impl Strategy<Value = MessageProperties> {
    (of(any::<bool>()), of(any::<u32>()), of(TEXT), of(NAME), of(bytes()), pairs()).prop_map(
        |(
            payload_format_indicator,
            message_expiry_interval_s,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
        )| MessageProperties {
            payload_format_indicator,
            message_expiry_interval_s,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
        },
    )
}

fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(&[ProtocolVersion::V311, ProtocolVersion::V5][..])
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<std::num::NonZeroU16>().prop_map(PacketId::from)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((TEXT, TEXT), 0..3)
}

fn views(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

fn reason_code(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let allowed: Vec<ReasonCode> =
        (0..=255).filter_map(ReasonCode::from_u8).filter(|code| code.allowed_in(packet)).collect();
    select(allowed)
}

fn options() -> impl Strategy<Value = SubscriptionOptions> {
    let handling =
        select(&[RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(qos, no_local, retain_as_published, retain_handling)| SubscriptionOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        },
    )
}
