//! The frames of the NATS protocol: where one ends, and what it is about. Nothing is decoded that a wire does not need.

/// What a frame that carries a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) subject: String,
    pub(super) reply: Option<String>,
}

/// The length of the first frame in `bytes`, and its head if it carries a message; `None` while it is incomplete.
pub(super) fn first(bytes: &[u8]) -> Option<(usize, Option<Head>)> {
    let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(&bytes[..line_end]);
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    // MSG and HMSG name the subscription after the subject; HPUB and HMSG the length of the headers before the total.
    let (subject, reply) = match *words.as_slice() {
        ["PUB", subject, _] | ["HPUB", subject, _, _] | ["MSG", subject, _, _] | ["HMSG", subject, _, _, _] => {
            (subject, None)
        }
        ["PUB", subject, reply, _]
        | ["HPUB", subject, reply, _, _]
        | ["MSG", subject, _, reply, _]
        | ["HMSG", subject, _, reply, _, _] => (subject, Some(reply)),
        _ => return Some((line_end + 2, None)),
    };
    let payload: usize = words.last()?.parse().ok()?;
    let length = line_end + 2 + payload + 2;
    let head = Head { subject: subject.to_owned(), reply: reply.map(str::to_owned) };
    (bytes.len() >= length).then_some((length, Some(head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(subject: &str, reply: Option<&str>) -> Option<Head> {
        Some(Head { subject: subject.to_owned(), reply: reply.map(str::to_owned) })
    }

    #[test]
    fn a_frame_ends_after_its_payload_and_names_its_subject() {
        let cases: [(&[u8], usize, Option<Head>); 8] = [
            (b"PING\r\nPONG\r\n", 6, None),
            (b"SUB a.b 1\r\n", 11, None),
            (b"PUB a.b 2\r\nhi\r\nPING\r\n", 15, head("a.b", None)),
            (b"PUB a.b r 2\r\n\r\n\r\n", 17, head("a.b", Some("r"))),
            (b"HPUB a.b 2 4\r\nhhpp\r\n", 20, head("a.b", None)),
            (b"HPUB a.b r 2 4\r\nhhpp\r\n", 22, head("a.b", Some("r"))),
            (b"MSG a.b 9 2\r\nhi\r\n", 17, head("a.b", None)),
            (b"HMSG a.b 9 r 2 4\r\nhhpp\r\n", 24, head("a.b", Some("r"))),
        ];
        for (bytes, length, expected) in cases {
            assert_eq!(first(bytes), Some((length, expected)), "{}", String::from_utf8_lossy(bytes));
            assert_eq!(first(&bytes[..length - 1]), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
