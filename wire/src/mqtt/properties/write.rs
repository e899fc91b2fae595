//! Writes properties: each call one, if it is there.

use super::super::QoS;
use super::super::writer::Sink;
use super::{PropertyId, SubscriptionIdentifiers, UserProperties};

/// Writes optional properties to a sink.
pub(in crate::mqtt) struct PropertyWriter<'s, S> {
    sink: &'s mut S,
}

impl<'s, S: Sink> PropertyWriter<'s, S> {
    pub(in crate::mqtt) fn new(sink: &'s mut S) -> Self {
        Self { sink }
    }

    pub(in crate::mqtt) fn flag(&mut self, id: PropertyId, value: Option<bool>) {
        if let Some(value) = value {
            self.id(id).u8(value.into());
        }
    }

    pub(in crate::mqtt) fn qos(&mut self, id: PropertyId, value: Option<QoS>) {
        if let Some(value) = value {
            self.id(id).u8(value.into());
        }
    }

    pub(in crate::mqtt) fn u16(&mut self, id: PropertyId, value: Option<u16>) {
        if let Some(value) = value {
            self.id(id).u16(value);
        }
    }

    pub(in crate::mqtt) fn u32(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.id(id).u32(value);
        }
    }

    pub(in crate::mqtt) fn string(&mut self, id: PropertyId, value: Option<&str>) {
        if let Some(value) = value {
            self.id(id).string(value);
        }
    }

    pub(in crate::mqtt) fn binary(&mut self, id: PropertyId, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.id(id).binary(value);
        }
    }

    pub(in crate::mqtt) fn subscription_identifier(&mut self, value: u32) {
        self.id(PropertyId::SubscriptionIdentifier).variable_integer(value);
    }

    pub(in crate::mqtt) fn subscription_identifiers(&mut self, identifiers: SubscriptionIdentifiers<'_>) {
        for identifier in &identifiers {
            self.subscription_identifier(identifier);
        }
    }

    pub(in crate::mqtt) fn user_properties(&mut self, properties: UserProperties<'_>) {
        for (name, value) in &properties {
            let sink = self.id(PropertyId::UserProperty);
            sink.string(name);
            sink.string(value);
        }
    }

    fn id(&mut self, id: PropertyId) -> &mut S {
        self.sink.u8(id as u8);
        self.sink
    }
}

/// The properties of a message that travel with it to its subscribers unaltered, of a PUBLISH as of a will
/// (`[MQTT-3.3.2-4]`, `-15`, `-16`, `-17`, `-20`).
#[derive(Clone, Copy)]
pub(in crate::mqtt) struct Forwardable<'a> {
    pub(in crate::mqtt) payload_format_indicator: Option<bool>,
    pub(in crate::mqtt) response_topic: Option<&'a str>,
    pub(in crate::mqtt) correlation_data: Option<&'a [u8]>,
    pub(in crate::mqtt) user_properties: UserProperties<'a>,
    pub(in crate::mqtt) content_type: Option<&'a str>,
}

impl Forwardable<'_> {
    pub(in crate::mqtt) fn write(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.flag(PropertyId::PayloadFormatIndicator, self.payload_format_indicator);
        writer.string(PropertyId::ContentType, self.content_type);
        writer.string(PropertyId::ResponseTopic, self.response_topic);
        writer.binary(PropertyId::CorrelationData, self.correlation_data);
        writer.user_properties(self.user_properties);
    }
}
