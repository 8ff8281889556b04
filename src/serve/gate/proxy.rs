//! The PROXY protocol, versions 1 and 2: a balancer's word of who its client is, said before the client's own bytes.
//!
//! A gate that expects it serves nobody who does not say it: else a client could say it for itself.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// A balancer says it in its first packet.
const TIME: Duration = Duration::from_secs(5);
/// Far beyond the addresses and the few extensions that balancers add.
const LIMIT: usize = 4096;
/// The longest header of version 1, by its specification.
const LIMIT_V1: usize = 107;

/// What a connection begins with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Opening {
    /// Who the client is; `None` where the balancer speaks for itself, or does not know.
    pub(super) peer: Option<IpAddr>,
    /// What the client itself has said by then.
    pub(super) early: Vec<u8>,
}

/// Reads the header.
///
/// # Errors
///
/// When there is none, or it does not come in time.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Opening> {
    let opening = async {
        let mut bytes = Vec::with_capacity(256);
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((length, peer)) = header(&bytes)? {
                return Ok(Opening { peer, early: bytes.split_off(length) });
            }
            if bytes.len() >= LIMIT {
                return Err(wrong("a header of more than 4 KiB"));
            }
        }
    };
    timeout(TIME, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The length of the header at the start of `bytes` and whom it names; `None` while it is not all there.
pub(super) fn header(bytes: &[u8]) -> io::Result<Option<(usize, Option<IpAddr>)>> {
    let of = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, wanted)| byte == wanted);
    if of(v1::PROTOCOL_PREFIX.as_bytes()) {
        let within = bytes.get(..LIMIT_V1).unwrap_or(bytes);
        let mut pairs = within.windows(2).enumerate();
        let Some((end, pair)) = pairs.find(|(_, pair)| pair.starts_with(b"\r")) else {
            let more = bytes.len() < LIMIT_V1;
            return if more { Ok(None) } else { Err(wrong("an endless header")) };
        };
        if pair != b"\r\n" {
            return Err(wrong("a header whose line ends in CR alone"));
        }
        let line = bytes.get(..end + 2).unwrap_or_default();
        let header = v1::Header::try_from(line).map_err(|e| wrong(&e.to_string()))?;
        let peer = match header.addresses {
            v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
            v1::Addresses::Tcp6(tcp) => Some(tcp.source_address.into()),
            v1::Addresses::Unknown => None,
        };
        return Ok(Some((line.len(), peer)));
    }
    match v2::Header::try_from(bytes) {
        Ok(header) => {
            let peer = match (header.command, header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Some(ip.source_address.into()),
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Some(ip.source_address.into()),
                _ => None,
            };
            Ok(Some((header.header.len(), peer)))
        }
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => Ok(None),
        Err(e) => Err(wrong(&e.to_string())),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_of(command: u8, payload: &[u8], family: u8) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, payload].concat()
    }

    async fn read_all(parts: &[&[u8]]) -> io::Result<Opening> {
        let mut script = tokio_test_stream(parts);
        read(&mut script).await
    }

    /// A stream that gives one part at each read.
    fn tokio_test_stream(parts: &[&[u8]]) -> impl AsyncRead + Unpin {
        let empty: Box<dyn AsyncRead + Unpin> = Box::new(tokio::io::empty());
        parts
            .iter()
            .rev()
            .fold(empty, |rest, part| Box::new(io::Cursor::new(part.to_vec()).chain(rest)))
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_it_said() {
        let v4 = [10, 0, 0, 7, 127, 0, 0, 1, 0, 80, 1, 187];
        let v6: Vec<u8> = [[0; 15].as_slice(), &[1], &[0; 16], &[0, 80, 1, 187]].concat();
        let tlv = [v4.as_slice(), &[4, 0, 1, 42]].concat();
        for (header, peer) in [
            (b"PROXY TCP4 10.0.0.7 127.0.0.1 56324 443\r\n".to_vec(), Some("10.0.0.7")),
            (b"PROXY TCP6 ::1 ::1 5 443\r\n".to_vec(), Some("::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 x\r\n".to_vec(), None),
            (v2_of(1, &v4, 0x11), Some("10.0.0.7")),
            (v2_of(1, &tlv, 0x11), Some("10.0.0.7")),
            (v2_of(1, &v6, 0x21), Some("::1")),
            (v2_of(0, &v4, 0x11), None),
            (v2_of(0, &[], 0x00), None),
        ] {
            let peer = peer.map(|peer| peer.parse().unwrap());
            let wanted = Opening { peer, early: b"GET /\xff\r\n".to_vec() };
            let whole = [&header[..], b"GET /\xff\r\n"].concat();
            assert_eq!(read_all(&[&whole]).await.unwrap(), wanted, "{header:?}");
            // However it is cut, the header is the same one.
            for at in 1..header.len() {
                let (one, two) = header.split_at(at);
                let opening = read_all(&[one, two]).await.unwrap();
                assert_eq!((opening.peer, opening.early.len()), (peer, 0), "{header:?} at {at}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_does_not_say_it_is_not_served() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY",
            b"PROXY TCP4 10.0.0.7 127.0.0.1 56324\r\n",
            b"PROXY TCP4 10.0.0.999 127.0.0.1 1 2\r\n",
            &[b'P'; 10],
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(),
            b"PROXY UNKNOWN \n\rX\r\n",
            &[b"PROXY UNKNOWN \n\rX".as_slice(), &[b'1'; 200], b"\r\n"].concat(),
            &v2_of(7, &[], 0),
            &v2_of(1, &[1, 2], 0x11),
            &v2_of(1, &vec![0; 60_000], 0),
            b"",
        ] {
            assert!(read_all(&[bytes]).await.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(
            start in prop_oneof![Just(&b"PROXY "[..]), Just(v2::PROTOCOL_PREFIX), Just(&b""[..])],
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = header(&[start, &bytes].concat());
        }
    }
}
