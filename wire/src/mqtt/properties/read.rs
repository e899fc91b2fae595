//! Reads a property block, one property after the other.

use super::super::reader::Reader;
use super::super::{DecodeError, QoS};
use super::{PropertyId, SubscriptionIdentifiers, UserProperties};
use crate::topic;

/// Walks a block. The packet's decoder asks for the [`next`](Self::next) identifier and then for a value of the
/// type that belongs to it, into the field that belongs to it; a field that is already filled is a repetition.
pub(in crate::mqtt) struct PropertyReader<'a> {
    packet: &'static str,
    block: &'a [u8],
    reader: Reader<'a>,
    id: PropertyId,
    id_offset: usize,
    first_user_property: Option<usize>,
    first_subscription_identifier: Option<usize>,
}

impl<'a> PropertyReader<'a> {
    /// `packet` names the place for an error's text.
    pub(in crate::mqtt) fn new(packet: &'static str, block: &'a [u8]) -> Self {
        Self {
            packet,
            block,
            reader: Reader::new(block),
            id: PropertyId::UserProperty,
            id_offset: 0,
            first_user_property: None,
            first_subscription_identifier: None,
        }
    }

    pub(in crate::mqtt) fn next(&mut self) -> Result<Option<PropertyId>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.id_offset = self.offset();
        let id = self.reader.u8()?;
        self.id = PropertyId::from_u8(id).ok_or(DecodeError::UnknownProperty(id))?;
        Ok(Some(self.id))
    }

    /// The error for a property that its packet may not carry.
    pub(in crate::mqtt) fn misplaced(&self) -> DecodeError {
        DecodeError::PropertyNotAllowed { property: self.id, packet: self.packet }
    }

    pub(in crate::mqtt) fn flag(&mut self, field: &mut Option<bool>) -> Result<(), DecodeError> {
        let value = match self.reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(self.out_of_range()),
        };
        self.fill(field, value)
    }

    /// Maximum `QoS`: 0 or 1, for 2 is said by leaving it out (section 3.2.2.3.4).
    pub(in crate::mqtt) fn maximum_qos(&mut self, field: &mut Option<QoS>) -> Result<(), DecodeError> {
        let value = match self.reader.u8()? {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => return Err(self.out_of_range()),
        };
        self.fill(field, value)
    }

    pub(in crate::mqtt) fn u16(&mut self, field: &mut Option<u16>) -> Result<(), DecodeError> {
        let value = self.reader.u16()?;
        self.fill(field, value)
    }

    pub(in crate::mqtt) fn u16_above_zero(&mut self, field: &mut Option<u16>) -> Result<(), DecodeError> {
        match self.reader.u16()? {
            0 => Err(self.out_of_range()),
            value => self.fill(field, value),
        }
    }

    /// `[MQTT-3.3.2-8]`: zero is refused with a reason of its own.
    pub(in crate::mqtt) fn topic_alias(&mut self, field: &mut Option<u16>) -> Result<(), DecodeError> {
        match self.reader.u16()? {
            0 => Err(DecodeError::TopicAliasZero),
            value => self.fill(field, value),
        }
    }

    pub(in crate::mqtt) fn u32(&mut self, field: &mut Option<u32>) -> Result<(), DecodeError> {
        let value = self.reader.u32()?;
        self.fill(field, value)
    }

    pub(in crate::mqtt) fn u32_above_zero(&mut self, field: &mut Option<u32>) -> Result<(), DecodeError> {
        match self.reader.u32()? {
            0 => Err(self.out_of_range()),
            value => self.fill(field, value),
        }
    }

    pub(in crate::mqtt) fn string(&mut self, field: &mut Option<&'a str>) -> Result<(), DecodeError> {
        let value = self.reader.string()?;
        self.fill(field, value)
    }

    /// A string that must be a topic name, without wildcards `[MQTT-3.3.2-14]`.
    pub(in crate::mqtt) fn topic_name(&mut self, field: &mut Option<&'a str>) -> Result<(), DecodeError> {
        let value = self.reader.string()?;
        topic::validate_name(value).map_err(DecodeError::InvalidTopicName)?;
        self.fill(field, value)
    }

    pub(in crate::mqtt) fn binary(&mut self, field: &mut Option<&'a [u8]>) -> Result<(), DecodeError> {
        let value = self.reader.binary()?;
        self.fill(field, value)
    }

    /// The single subscription identifier of a SUBSCRIBE, 1 to 268,435,455.
    pub(in crate::mqtt) fn subscription_identifier(
        &mut self,
        field: &mut Option<u32>,
    ) -> Result<(), DecodeError> {
        match self.reader.variable_integer()? {
            0 => Err(self.out_of_range()),
            value => self.fill(field, value),
        }
    }

    /// One of the subscription identifiers of a PUBLISH.
    pub(in crate::mqtt) fn subscription_identifiers(
        &mut self,
        field: &mut SubscriptionIdentifiers<'a>,
    ) -> Result<(), DecodeError> {
        if self.reader.variable_integer()? == 0 {
            return Err(self.out_of_range());
        }
        let start = *self.first_subscription_identifier.get_or_insert(self.id_offset);
        *field = SubscriptionIdentifiers::from_validated_block(&self.block[start..self.offset()]);
        Ok(())
    }

    pub(in crate::mqtt) fn user_property(
        &mut self,
        field: &mut UserProperties<'a>,
    ) -> Result<(), DecodeError> {
        self.reader.string()?;
        self.reader.string()?;
        let start = *self.first_user_property.get_or_insert(self.id_offset);
        *field = UserProperties::from_validated_block(&self.block[start..self.offset()]);
        Ok(())
    }

    fn fill<T>(&self, field: &mut Option<T>, value: T) -> Result<(), DecodeError> {
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(DecodeError::DuplicateProperty(self.id)),
        }
    }

    fn out_of_range(&self) -> DecodeError {
        DecodeError::PropertyOutOfRange(self.id)
    }

    fn offset(&self) -> usize {
        self.block.len() - self.reader.len()
    }
}
