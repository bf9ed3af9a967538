//! What travels on the bus: a subject, headers and a payload. Nothing here knows what they mean.

use std::borrow::Cow;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use roam_schemas::Encoding;

/// A message as it came from the bus.
#[derive(Debug, Clone)]
pub struct Message {
    /// The subject that it was published on.
    pub subject: String,
    /// Where an answer is expected. Whoever published the message chose it, and NATS does not check that they may
    /// publish there: check it before answering.
    pub reply: Option<String>,
    /// Its headers, empty if it had none.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

impl From<async_nats::Message> for Message {
    fn from(message: async_nats::Message) -> Self {
        Self {
            subject: message.subject.into_string(),
            reply: message.reply.map(async_nats::Subject::into_string),
            headers: Headers::received(message.headers),
            payload: message.payload,
        }
    }
}

/// The headers of a message: names with one value each. Names are case-sensitive, as in NATS.
///
/// Received headers are kept as the client library parsed them; written ones stay a short list until they are sent, so
/// that a publisher may hold a copy for retries at the price of one allocation.
#[derive(Debug, Clone)]
pub struct Headers(Kept);

#[derive(Debug, Clone)]
enum Kept {
    Written(Vec<(&'static str, Cow<'static, str>)>),
    Received(HeaderMap),
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl Headers {
    /// No headers. Does not allocate.
    pub const fn new() -> Self {
        Self(Kept::Written(Vec::new()))
    }

    /// Adds the content type of an encoding.
    #[must_use]
    pub fn with_content_type(self, encoding: Encoding) -> Self {
        self.with(roam_schemas::headers::CONTENT_TYPE, encoding.content_type())
    }

    /// Adds the id of a journal batch.
    #[must_use]
    pub fn with_batch(self, id: impl Into<Cow<'static, str>>) -> Self {
        self.with(roam_schemas::headers::BATCH, id)
    }

    /// Adds a header, as [`Self::insert`] does.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.insert(name, value);
        self
    }

    /// Sets a header, in place of an earlier one of that name. Line breaks in the value become spaces, so that a value
    /// can never add a header of its own.
    pub fn insert(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        let value = in_one_line(value.into());
        match &mut self.0 {
            Kept::Received(map) => map.insert(HeaderName::from_static(name), value.as_ref()),
            Kept::Written(list) => match list.iter_mut().find(|(given, _)| *given == name) {
                Some((_, old)) => *old = value,
                None => list.push((name, value)),
            },
        }
    }

    /// The (first) value of a header.
    pub fn get(&self, name: &'static str) -> Option<&str> {
        match &self.0 {
            Kept::Received(map) => map.get(HeaderName::from_static(name)).map(HeaderValue::as_str),
            Kept::Written(list) => list.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_ref()),
        }
    }

    /// The value of `Content-Type`. Without it a message is not Roam's.
    pub fn content_type(&self) -> Option<&str> {
        self.get(roam_schemas::headers::CONTENT_TYPE)
    }

    /// The encoding that `Content-Type` names, if it is one of ours.
    pub fn encoding(&self) -> Option<Encoding> {
        self.content_type().and_then(Encoding::from_content_type)
    }

    /// The id of the journal batch.
    pub fn batch(&self) -> Option<&str> {
        self.get(roam_schemas::headers::BATCH)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Kept::Received(map) => map.is_empty(),
            Kept::Written(list) => list.is_empty(),
        }
    }

    pub(crate) fn received(map: Option<HeaderMap>) -> Self {
        map.map_or_else(Self::new, |map| Self(Kept::Received(map)))
    }

    /// The form in which they are sent, `None` if there are none.
    pub(crate) fn to_map(&self) -> Option<HeaderMap> {
        match &self.0 {
            Kept::Received(map) => (!map.is_empty()).then(|| map.clone()),
            Kept::Written(list) if list.is_empty() => None,
            Kept::Written(list) => Some(list.iter().map(sent).collect()),
        }
    }

    /// As [`Self::to_map`], without a copy of what was received.
    pub(crate) fn into_map(self) -> Option<HeaderMap> {
        match self.0 {
            Kept::Received(map) => (!map.is_empty()).then_some(map),
            Kept::Written(_) => self.to_map(),
        }
    }
}

fn sent((name, value): &(&'static str, Cow<'static, str>)) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from(value.as_ref()))
}

fn in_one_line(value: Cow<'static, str>) -> Cow<'static, str> {
    if value.contains(['\r', '\n']) { Cow::Owned(value.replace(['\r', '\n'], " ")) } else { value }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn written_headers_are_found_again_after_they_were_sent() {
        let written = Headers::new().with_content_type(Encoding::Json).with_batch("b-1");
        let received = Headers::received(written.to_map());
        for headers in [&written, &received] {
            assert_eq!(headers.encoding(), Some(Encoding::Json));
            assert_eq!(headers.content_type(), Some("application/json"));
            assert_eq!(headers.batch(), Some("b-1"));
            assert_eq!(headers.get("Other"), None);
        }
    }

    #[test]
    fn no_headers_are_sent_as_none() {
        assert!(Headers::new().to_map().is_none());
        assert!(Headers::received(Some(HeaderMap::new())).into_map().is_none());
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let mut headers = Headers::new().with("A", "1").with("A", "2");
        assert_eq!(headers.get("A"), Some("2"));
        headers = Headers::received(headers.to_map());
        headers.insert("A", "3");
        assert_eq!(headers.get("A"), Some("3"));
    }

    #[test]
    fn a_value_cannot_add_a_header_of_its_own() {
        let headers = Headers::new().with("A", "1\r\nB: 2");
        assert_eq!(headers.get("A"), Some("1  B: 2"));
        assert_eq!(headers.to_map().unwrap().len(), 1);
    }
}
