//! Which requests a gate refuses, judged as the node would read them.
//!
//! Twisted splits a path at its slashes, decodes each part by itself, and Tahoe-LAFS skips the empty
//! ones; so `/%75ri`, `//uri` and `/./uri` are `/uri`, while `/uri%2Fx` and `/URI` are not.

/// The places under which files and directories are read and written: `/uri` and its aliases.
const FILES: [&[u8]; 4] = [b"uri", b"cap", b"file", b"named"];

/// Whether a request target can be read in one way: a path, a whole URL, or `*`. The node cuts off the
/// first byte of any target, so `xuri` would be `/uri` to it, and a host's name to others.
pub(super) fn is_target(target: &str) -> bool {
    let whole = || {
        target.split_once("://").is_some_and(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        })
    };
    target.starts_with('/') || target == "*" || whole()
}

/// Whether a request target is under one of them. A target is a path, or a whole URL.
pub(super) fn is_of_files(target: &str) -> bool {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            rest.split_once('/').map_or("", |(_, path)| path)
        }
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut parts = path.split('/').map(decode).filter(|part| !part.is_empty() && part != b".");
    parts.next().is_some_and(|first| FILES.contains(&&*first))
}

/// Whether a method leaves things as they are.
pub(super) fn is_reading(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Percent-decodes; what is not two hexadecimal digits stands for itself.
fn decode(part: &str) -> Vec<u8> {
    let bytes = part.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_the_node_reads_them() {
        for target in [
            "/uri",
            "/uri/",
            "/uri?t=mkdir",
            "/uri/URI:DIR2:x",
            "/cap/x",
            "/file/x",
            "/named/x/@@named=/y",
            "/%75ri",
            "/%75%72%69",
            "/u%52i".replace("52", "72").as_str(),
            "//uri",
            "///uri/x",
            "/./uri",
            "/.//./uri",
            "http://h:1/uri",
            "http://h/%75ri?x",
            "/uri#x",
            "uri",
        ] {
            assert!(is_of_files(target), "{target}");
        }
        for target in [
            "/",
            "",
            "/urix",
            "/ur",
            "/URI",
            "/Uri",
            "/uri%2Fx",
            "/status/uri",
            "/x/../uri",
            "/%2575ri",
            "/statistics?uri",
            "http://uri/",
            "http://uri",
            "/%",
            "/%7",
            "/%zz",
            "*",
        ] {
            assert!(!is_of_files(target), "{target}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_whole_url() {
        for target in ["/", "/uri", "//uri", "*", "http://h/uri", "HTTPS://h"] {
            assert!(is_target(target), "{target}");
        }
        for target in ["", "uri", "xuri", "xuri/x", "h:80", "x://h/uri", "://h/uri", "?", "#"] {
            assert!(!is_target(target), "{target}");
        }
    }
}
