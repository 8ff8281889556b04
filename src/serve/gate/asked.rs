//! What a request's head says, beside where the request ends.

use std::mem::MaybeUninit;

use super::framing::{HEADERS, keeps};

/// What matters for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Older ones know neither chunks nor interim answers.
    pub(super) http_1_1: bool,
    /// The client leaves its connection open.
    pub(super) keep: bool,
    /// The client may wait for a word of the node's before it sends a body.
    pub(super) expects: bool,
}

/// A method, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Its answer has no body, whatever its headers say.
    Head,
    /// A success has no end that anybody could see.
    Connect,
    /// Done twice it has the effect of once.
    Repeatable,
    Other,
}

impl Asked {
    /// Reads a head that is known to be clear, and its method and target.
    pub(super) fn read(head: &[u8]) -> Option<(Self, &str, &str)> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, &mut headers);
        if !matches!(parsed, Ok(httparse::Status::Complete(_))) {
            return None;
        }
        let (name, target) = (request.method?, request.path?);
        let method = match name {
            "HEAD" => Method::Head,
            "CONNECT" => Method::Connect,
            "GET" | "OPTIONS" | "PUT" | "DELETE" => Method::Repeatable,
            _ => Method::Other,
        };
        let http_1_1 = request.version == Some(1);
        let keep = keeps(request.headers, http_1_1);
        let expects = request.headers.iter().any(|h| h.name.eq_ignore_ascii_case("expect"));
        Some((Self { method, http_1_1, keep, expects }, name, target))
    }

    /// Whether its answer has no body.
    pub(super) fn is_bodiless(self) -> bool {
        self.method == Method::Head
    }

    /// Whether it may be sent once more, if it has no body.
    pub(super) fn is_repeatable(self) -> bool {
        matches!(self.method, Method::Head | Method::Repeatable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_whether_the_connection_goes_on_and_what_may_be_repeated() {
        for (text, method, http_1_1, keep) in [
            ("GET /a HTTP/1.1\r\n\r\n", Method::Repeatable, true, true),
            ("GET /a HTTP/1.0\r\n\r\n", Method::Repeatable, false, false),
            ("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Method::Repeatable, false, false),
            ("HEAD /a HTTP/1.1\r\nConnection: x, Close\r\n\r\n", Method::Head, true, false),
            ("head /a HTTP/1.1\r\nConnection: closed\r\n\r\n", Method::Other, true, true),
            (
                "POST /a HTTP/1.1\r\nA: b\r\nconnection: a\r\nConnection: close\r\n\r\n",
                Method::Other,
                true,
                false,
            ),
            ("CONNECT /a HTTP/1.1\r\n\r\n", Method::Connect, true, true),
        ] {
            let (asked, name, target) = Asked::read(text.as_bytes()).unwrap();
            assert_eq!(asked, Asked { method, http_1_1, keep, expects: false }, "{text}");
            assert!(text.starts_with(&format!("{name} {target} ")));
        }
    }
}
