//! A request that is rendered once and sent many times.
//!
//! Between two calls only the tokens change, each a counter in hex at a known
//! place, so that making a message costs a few stores. Every token is used once
//! in the life of a run, and differs from those of other runs.

use super::wire;

/// Hex digits of the counter in each token.
const DIGITS: usize = 16;

/// A way to reach each recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A device token of 32 bytes, as Apple's are (they may grow: "APNs device
    /// tokens are of variable length").
    Apns,
    /// A registration token as long as Google's are today.
    Fcm,
}

/// What a message asks for beyond the ordinary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// Hex before each APNs token, by which the simulator is asked for an answer.
    pub(crate) apns: &'a str,
    /// `high` or `normal`; none: what the router makes of a notification.
    pub(crate) priority: Option<&'a str>,
    /// The key of the client that sends it.
    pub(crate) key: Option<&'a str>,
}

/// A whole request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    request: Vec<u8>,
    /// Where the counters stand, and whose: the recipient's position.
    slots: Vec<(usize, u64)>,
    recipients: u64,
}

impl Message {
    /// A message for that many recipients, each with an address of each kind.
    /// `run` tells the tokens of this run from those of others.
    pub(crate) fn render(recipients: u64, kinds: &[Kind], run: u64) -> Self {
        Self::asking(recipients, kinds, run, Asked::default())
    }

    /// The same with wishes.
    pub(crate) fn asking(recipients: u64, kinds: &[Kind], run: u64, asked: Asked<'_>) -> Self {
        let mut body = String::from("{\"to\":[");
        let mut slots = Vec::new();
        for recipient in 0..recipients {
            body.push_str(if recipient == 0 { "{\"addresses\":[" } else { ",{\"addresses\":[" });
            for (at, kind) in kinds.iter().enumerate() {
                body.push_str(if at == 0 { "" } else { "," });
                // The counter is the end of every token.
                body.push_str(&kind.before_counter(run, asked.apns));
                slots.push((body.len(), recipient));
                body.push_str("0000000000000000\"}");
            }
            body.push_str("]}");
        }
        body.push_str(
            "],\"notification\":{\"title\":\"Order 7\",\"body\":\"Your order is on its way\"},\
             \"data\":{\"order\":\"7\",\"state\":\"shipped\"},\"ttl\":\"1h\"}",
        );
        if let Some(priority) = asked.priority {
            body.truncate(body.len() - 1);
            body.push_str(&format!(",\"priority\":\"{priority}\"}}"));
        }
        let request = wire::request_as(asked.key, "POST", "/v1/messages", body.as_bytes());
        let head = request.len() - body.len();
        for (at, _) in &mut slots {
            *at += head;
        }
        Self { request, slots, recipients }
    }

    /// The request with the tokens of the `number`th message.
    pub(crate) fn numbered(&mut self, number: u64) -> &[u8] {
        let first = number.wrapping_mul(self.recipients);
        for (at, recipient) in &self.slots {
            let digits = &mut self.request[*at..*at + DIGITS];
            write_hex(digits, first.wrapping_add(*recipient));
        }
        &self.request
    }

    /// Recipients of each message.
    pub(crate) fn recipients(&self) -> u64 {
        self.recipients
    }
}

impl Kind {
    /// The address's JSON up to the token's last 16 characters. The beginnings
    /// are ones that the simulator takes for ordinary.
    fn before_counter(self, run: u64, apns: &str) -> String {
        match self {
            // 8 bytes that spell "pushyard", the run, and zeros: 24 of 32 bytes.
            Self::Apns => {
                format!("{{\"kind\":\"apns\",\"token\":\"{apns}7075736879617264{run:016x}{:016}", 0)
            }
            // An instance id of 22 characters, a colon, and 140.
            Self::Fcm => {
                format!("{{\"kind\":\"fcm\",\"token\":\"run{run:016x}aaa:APA91b{:0118}", 0)
            }
        }
    }
}

fn write_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn body(request: &[u8]) -> Value {
        let text = std::str::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        serde_json::from_str(body).unwrap()
    }

    fn tokens(body: &Value) -> Vec<String> {
        let recipients = body["to"].as_array().unwrap().iter();
        let addresses = recipients.flat_map(|one| one["addresses"].as_array().unwrap());
        addresses.map(|address| address["token"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn no_token_is_used_twice() {
        let mut message = Message::render(3, &[Kind::Apns, Kind::Fcm], 7);
        let mut seen = std::collections::HashSet::new();
        for number in 0..50 {
            for token in tokens(&body(message.numbered(number))) {
                assert!(seen.insert(token));
            }
        }
        assert_eq!(seen.len(), 50 * 6);
    }

    #[test]
    fn priority_and_key_are_sent_when_they_are_asked_for() {
        let asked = Asked { priority: Some("normal"), key: Some("a-key"), ..Asked::default() };
        let mut message = Message::asking(1, &[Kind::Fcm], 7, asked);
        let request = message.numbered(0x2a);
        assert_eq!(body(request)["priority"], "normal");
        assert!(tokens(&body(request))[0].ends_with("2a"));
        let text = std::str::from_utf8(request).unwrap();
        assert!(text.contains("\r\nauthorization: Bearer a-key\r\n"), "{text}");
    }

    #[test]
    fn tokens_have_the_vendors_lengths() {
        let mut message = Message::render(1, &[Kind::Apns, Kind::Fcm], u64::MAX);
        let tokens = tokens(&body(message.numbered(1)));
        assert_eq!((tokens[0].len(), tokens[1].len()), (64, 163));
        assert!(tokens[0].bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(tokens[0].ends_with("0001") && tokens[1].ends_with("0001"));
    }
}
