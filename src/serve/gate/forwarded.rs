//! Telling the node who its client is, in the header that it is asked to use.
//!
//! What the client claims there itself stays in front, as each hop adds its own (RFC 7239, 4).

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue};

use crate::config::Forwarded;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Adds the client to a request's headers; one that came over a Unix socket has no address.
pub(super) fn add(headers: &mut HeaderMap, how: Forwarded, peer: Option<IpAddr>) {
    let (name, value) = match (how, peer) {
        (Forwarded::Off, _) | (Forwarded::XForwardedFor, None) => return,
        (Forwarded::XForwardedFor, Some(peer)) => (X_FORWARDED_FOR, peer.to_string()),
        (Forwarded::Forwarded, Some(IpAddr::V4(peer))) => (FORWARDED, format!("for={peer}")),
        (Forwarded::Forwarded, Some(IpAddr::V6(peer))) => (FORWARDED, format!("for=\"[{peer}]\"")),
        (Forwarded::Forwarded, None) => (FORWARDED, "for=unknown".to_owned()),
    };
    // An address is always a header's value.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_added_behind_what_it_claims() {
        let (v4, v6) = ("10.0.0.7".parse().ok(), "::1".parse().ok());
        for (how, peer, name, value) in [
            (Forwarded::Off, v4, "x-forwarded-for", None),
            (Forwarded::XForwardedFor, v4, "x-forwarded-for", Some("10.0.0.7")),
            (Forwarded::XForwardedFor, v6, "x-forwarded-for", Some("::1")),
            (Forwarded::XForwardedFor, None, "x-forwarded-for", None),
            (Forwarded::Forwarded, v4, "forwarded", Some("for=10.0.0.7")),
            (Forwarded::Forwarded, v6, "forwarded", Some("for=\"[::1]\"")),
            (Forwarded::Forwarded, None, "forwarded", Some("for=unknown")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("claimed"));
            add(&mut headers, how, peer);
            let all: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(all.len(), 1 + usize::from(value.is_some()), "{how:?} {peer:?}");
            assert_eq!(all[0], "claimed");
            assert_eq!(all.get(1).map(|v| v.to_str().unwrap()), value);
        }
    }
}
