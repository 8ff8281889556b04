//! What clients and balancers send to a gate.

use std::net::IpAddr;

use super::buffer::SMALL;
use super::framing::{At, pass};
use super::{activity, answer, path, proxy, reference};

/// The first byte says how the others are cut up.
pub(crate) fn gate_request(data: &[u8]) {
    let Some((size, all)) = data.split_first() else { return };
    // The limits of a head have tests of their own, and the references have none.
    if all.len() > 32 << 10 {
        return;
    }
    let (passed, at, flaw) = pass(all, usize::from(*size) + 1);
    let (at_once, _, same) = pass(all, usize::MAX);
    assert_eq!((&passed, flaw), (&at_once, same), "the cuts do not matter");
    assert!(all.starts_with(&passed), "what passes is as it came");

    let ends = reference::strict(all);
    let whole = ends.last().copied().unwrap_or_default();
    assert!(passed.len() >= whole, "whole requests pass: {whole} of {ends:?}");
    if let At::Head(_) = at {
        let blank = all[whole..].chunks(2).take_while(|two| *two == b"\r\n").count() * 2;
        assert!(passed.len() <= whole + blank, "nothing passes of what is not whole: {ends:?}");
    }
    assert_eq!(reference::lenient(&all[..whole]), ends, "nobody sees other requests");
}

/// The first byte says what was asked, and the second how the others are cut up.
pub(crate) fn gate_answer(data: &[u8]) {
    let [asked, size, all @ ..] = data else { return };
    let asked = answer::ASKED[usize::from(*asked) % answer::ASKED.len()];
    let read = answer::read(asked, all, usize::from(*size) + 1);
    assert_eq!(read, answer::read(asked, all, usize::MAX), "the cuts do not matter");
    assert!(all.starts_with(&read.1), "what passes is as it came");
    // Of what is longer no half is kept.
    for request in ["GET", "HEAD "].into_iter().filter(|_| all.len() <= SMALL) {
        let due = activity::is_due(request, all, usize::from(*size) + 1);
        assert_eq!(due, activity::is_due(request, all, usize::MAX), "the cuts do not matter");
    }
}

/// A target, judged as the node would decode it.
pub(crate) fn gate_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if !path::is_target(text) {
        return;
    }
    let files = path::is_of_files(text);
    assert!(files || !node_reads_files(data), "the node takes {text} for a file's");
    // Nothing else is refused, as far as the node is concerned.
    if text.starts_with('/') && !text.contains('#') {
        assert_eq!(files, node_reads_files(data), "{text}");
    }
}

/// As Twisted and Tahoe-LAFS have it: the query cut off, and the first byte; then parts, each decoded.
fn node_reads_files(target: &[u8]) -> bool {
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    let parts = path.get(1..).unwrap_or_default().split(|b| *b == b'/').map(unquote);
    let first = parts.into_iter().find(|part| !part.is_empty() && part != b".");
    matches!(first.as_deref(), Some(b"uri" | b"cap" | b"file" | b"named"))
}

/// As Python does it: split at the signs, and see what each piece begins with.
fn unquote(part: &[u8]) -> Vec<u8> {
    let mut pieces = part.split(|b| *b == b'%');
    let mut plain = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits
            .filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        if let Some(byte) = byte {
            plain.push(byte);
            plain.extend_from_slice(piece.get(2..).unwrap_or_default());
        } else {
            plain.push(b'%');
            plain.extend_from_slice(piece);
        }
    }
    plain
}

/// What a connection begins with.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let Ok(Some((length, peer))) = proxy::header(data) else { return };
    let (header, rest) = data.split_at(length);
    assert_eq!(named(header), peer, "another reader sees the same client");
    // Whatever follows, and however it comes, it is the same header.
    for cut in 1..length {
        assert!(
            matches!(proxy::header(&header[..cut]), Ok(None)),
            "the first {cut} bytes are not all"
        );
    }
    assert!(proxy::header(header).is_ok_and(|read| read == Some((length, peer))));
    assert!(rest.len() + length == data.len());
}

/// The client that a header names, read once more from its specification.
fn named(header: &[u8]) -> Option<IpAddr> {
    if let Some(rest) = header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        let [command, family, high, low, addresses @ ..] = rest else { panic!("cut off") };
        assert_eq!(addresses.len(), usize::from(u16::from_be_bytes([*high, *low])));
        return match (command, family >> 4) {
            (0x21, 1) => addresses.first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
            (0x21, 2) => addresses.first_chunk::<16>().map(|ip| IpAddr::from(*ip)),
            _ => None,
        };
    }
    assert!(header.len() <= 107 && header.ends_with(b"\r\n"), "version 1 is one short line");
    let line = std::str::from_utf8(header).unwrap_or_default().trim_end();
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "TCP4" | "TCP6", from, _, _, _] => from.parse().ok(),
        _ => None,
    }
}
