//! Telling the node who its client is, in the header that it is asked to use.
//!
//! What the client claims there itself stays in front, as each hop adds its own (RFC 7239, 4).

use std::net::IpAddr;

use crate::config::Forwarded;

/// The line that is added behind a request's own; empty where there is none, as for one that came
/// over a Unix socket, which has no address.
pub(super) fn line(how: Forwarded, peer: Option<IpAddr>) -> String {
    match (how, peer) {
        (Forwarded::Off, _) | (Forwarded::XForwardedFor, None) => String::new(),
        (Forwarded::XForwardedFor, Some(peer)) => format!("X-Forwarded-For: {peer}\r\n"),
        (Forwarded::Forwarded, Some(IpAddr::V4(peer))) => format!("Forwarded: for={peer}\r\n"),
        (Forwarded::Forwarded, Some(IpAddr::V6(peer))) => {
            format!("Forwarded: for=\"[{peer}]\"\r\n")
        }
        (Forwarded::Forwarded, None) => "Forwarded: for=unknown\r\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_in_the_header_of_choice() {
        let (v4, v6) = ("10.0.0.7".parse().ok(), "::1".parse().ok());
        for (how, peer, told) in [
            (Forwarded::Off, v4, ""),
            (Forwarded::XForwardedFor, v4, "X-Forwarded-For: 10.0.0.7\r\n"),
            (Forwarded::XForwardedFor, v6, "X-Forwarded-For: ::1\r\n"),
            (Forwarded::XForwardedFor, None, ""),
            (Forwarded::Forwarded, v4, "Forwarded: for=10.0.0.7\r\n"),
            (Forwarded::Forwarded, v6, "Forwarded: for=\"[::1]\"\r\n"),
            (Forwarded::Forwarded, None, "Forwarded: for=unknown\r\n"),
        ] {
            assert_eq!(line(how, peer), told, "{how:?} {peer:?}");
        }
    }
}
