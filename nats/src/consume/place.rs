//! What a delivery's reply subject says: where the message stands in its stream and its consumer. Reads the text only.

/// Where a delivered message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its sequence in the stream.
    pub(crate) stream_sequence: u64,
    /// The number of this delivery in the consumer, counted without gaps.
    pub(crate) consumer_sequence: u64,
    /// How often it was delivered, this time included.
    pub(crate) delivered: u64,
    /// When the stream took it in, in nanoseconds since 1970.
    pub(crate) published: i64,
    /// How many messages the consumer has yet to deliver for the first time.
    pub(crate) pending: u64,
}

/// The tokens of the longer form, `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer
/// sequence>.<time>.<pending>`, which may be followed by more. The shorter form has no domain and no account.
const LONG: usize = 11;
const SHORT: usize = 9;

impl Place {
    /// Reads a reply subject of either form; `None` if it is not JetStream's.
    pub(crate) fn parse(subject: &str) -> Option<Self> {
        let mut tokens = [""; LONG];
        let mut count = 0;
        for token in subject.split('.') {
            match tokens.get_mut(count) {
                Some(place) => *place = token,
                // What follows the longer form is not ours to read.
                None => break,
            }
            count += 1;
        }
        if tokens[0] != "$JS" || tokens[1] != "ACK" {
            return None;
        }
        let numbers = match count {
            SHORT => &tokens[SHORT - 5..SHORT],
            LONG => &tokens[LONG - 5..LONG],
            _ => return None,
        };
        Some(Self {
            delivered: numbers[0].parse().ok()?,
            stream_sequence: numbers[1].parse().ok()?,
            consumer_sequence: numbers[2].parse().ok()?,
            published: numbers[3].parse().ok()?,
            pending: numbers[4].parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const PLACE: Place = Place {
        delivered: 2,
        stream_sequence: 31,
        consumer_sequence: 44,
        published: 1_795_413_050_879_150_576,
        pending: 5,
    };

    #[test]
    fn both_forms_of_a_reply_subject_are_read() {
        for subject in [
            "$JS.ACK.S.c.2.31.44.1795413050879150576.5",
            "$JS.ACK._.ACC.S.c.2.31.44.1795413050879150576.5",
            "$JS.ACK.hub.ACC.S.c.2.31.44.1795413050879150576.5.rAnDoM",
            "$JS.ACK.hub.ACC.S.c.2.31.44.1795413050879150576.5.rAnDoM.more",
        ] {
            assert_eq!(Place::parse(subject), Some(PLACE), "{subject}");
        }
    }

    #[test]
    fn any_other_subject_is_refused() {
        for subject in [
            "",
            "_INBOX.a.b",
            "$JS.ACK",
            "$JS.API.S.c.2.31.44.1795413050879150576.5",
            "$JS.ACK.S.c.2.31.44.1795413050879150576",
            "$JS.ACK.S.c.2.31.44.1795413050879150576.5.6",
            "$JS.ACK.S.c.two.31.44.1795413050879150576.5",
            "$JS.ACK.S.c.2.-31.44.1795413050879150576.5",
        ] {
            assert_eq!(Place::parse(subject), None, "{subject}");
        }
    }
}
