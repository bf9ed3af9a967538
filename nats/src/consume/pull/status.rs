//! The statuses with which the server answers to a pull.

use async_nats::Message;
use async_nats::header::HeaderName;

const PENDING_MESSAGES: HeaderName = HeaderName::from_static("Nats-Pending-Messages");

/// What a status means for the pulls that stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The server is alive.
    Alive,
    /// A pull is over; so many of its messages did not come, if that is said.
    Ended { unfulfilled: Option<usize> },
    /// A pull is over because another client holds the pin now.
    PinLost { unfulfilled: Option<usize> },
    /// Nobody takes pulls.
    Vacant,
    /// The consumer was deleted.
    Deleted,
    /// The server does not accept such pulls.
    Refused(String),
}

impl Status {
    pub(super) fn of(message: &Message) -> Self {
        let headers = message.headers.as_ref();
        let unfulfilled =
            headers.and_then(|headers| headers.get(PENDING_MESSAGES)).and_then(|value| value.as_str().parse().ok());
        let text = message.description.as_deref().unwrap_or_default();
        match message.status.map_or(0, |status| status.as_u16()) {
            100 => Self::Alive,
            423 => Self::PinLost { unfulfilled },
            503 => Self::Vacant,
            409 if is(text, "Consumer Deleted") => Self::Deleted,
            409 if is(text, "Consumer is push based") => Self::Refused(text.to_owned()),
            // Time is over, nothing there, the batch is complete, the next message does not fit, the leader changed, the
            // server shuts down, too many pulls: another pull is the answer to all of them.
            404 | 408 | 409 => Self::Ended { unfulfilled },
            _ => Self::Refused(text.to_owned()),
        }
    }
}

fn is(text: &str, expected: &str) -> bool {
    text.get(..expected.len()).is_some_and(|start| start.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::{HeaderMap, StatusCode, Subject};
    use bytes::Bytes;

    fn check(code: u16, text: &str, pending: Option<&str>, expect: &Status) {
        let mut headers = HeaderMap::new();
        if let Some(pending) = pending {
            headers.insert(PENDING_MESSAGES, pending);
        }
        let message = Message {
            subject: Subject::from_static("inbox"),
            reply: None,
            payload: Bytes::new(),
            headers: Some(headers),
            status: StatusCode::from_u16(code).ok(),
            description: Some(text.to_owned()),
            length: 0,
        };
        assert_eq!(&Status::of(&message), expect, "{code} {text}");
    }

    #[test]
    fn a_status_is_told_by_its_code_and_its_text() {
        check(100, "Idle Heartbeat", None, &Status::Alive);
        check(408, "Request Timeout", Some("3"), &Status::Ended { unfulfilled: Some(3) });
        check(404, "No Messages", None, &Status::Ended { unfulfilled: None });
        check(409, "Message Size Exceeds MaxBytes", Some("9"), &Status::Ended { unfulfilled: Some(9) });
        check(409, "Leadership Change", None, &Status::Ended { unfulfilled: None });
        check(409, "Batch Completed", Some("0"), &Status::Ended { unfulfilled: Some(0) });
        check(409, "Consumer Deleted", None, &Status::Deleted);
        check(409, "Consumer is push based", None, &Status::Refused("Consumer is push based".to_owned()));
        check(423, "Nats-Wrong-Pin-Id", Some("4"), &Status::PinLost { unfulfilled: Some(4) });
        check(503, "", None, &Status::Vacant);
        let too_large = "Bad Request - heartbeat value too large";
        check(400, too_large, None, &Status::Refused(too_large.to_owned()));
    }
}
