//! What passes a gate before a real gateway: all that passes without one, in every form that clients use.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use super::farm::beside_gates;
use super::gate::{bytes, peak};
use crate::lab::hcf::Hcf;
use crate::lab::http::{self, Response};
use crate::lab::tahoe::{Gateway, Grid};
use crate::lab::wait::{LONG, wait_until};
use crate::lab::{large, place};

/// One gateway with one storage server, for what does not depend on their number.
fn small() -> Grid {
    let mut grid = Grid::builder().storage(1).gateways(1).shares(1, 1, 1).start();
    grid.wait_ready();
    grid
}

/// An open gate of this kind.
fn open(gateway: &Gateway, kind: &str) -> (Hcf, String) {
    let hcf = beside_gates(gateway, &[kind], "");
    super::farm::wait_line(&hcf, "write\n", "up ready 100%\n");
    let gate = hcf.address(&format!("gate/{kind}")).to_owned();
    wait_until("the gate to serve", LONG, || http::get(&gate, "/?t=json").is_ok());
    (hcf, gate)
}

#[test]
fn a_gibibyte_passes_both_ways_bit_for_bit_and_is_not_kept_in_memory() {
    const SIZE: usize = 1 << 30;
    let grid = small();
    for (kind, seed) in [("close", 1), ("refuse_writes", 2)] {
        let (mut hcf, gate) = open(&grid.gateways[0], kind);
        let before = peak(&mut hcf);
        let cap = large::upload(&gate, seed, SIZE).expect("a capability");
        large::download(&gate, &format!("/uri/{cap}"), seed, SIZE).expect("the same bytes");
        let after = peak(&mut hcf);
        println!("{kind}: VmHWM {before} MiB, then {after} MiB");
        assert!(after - before < 16, "{kind}: {before} MiB, then {after}");
    }
}

#[test]
fn uploads_ranges_and_heads_pass_as_they_do_without_a_gate() {
    let grid = small();
    let node = &grid.gateways[0];
    let file = bytes(3 << 20);
    let folder = place::folder("upload");
    let name = folder.path().join("file").display().to_string();
    std::fs::write(&name, &file).unwrap();
    let upload = |address: &str, how: &str| {
        let script = format!("exec curl -sS --max-time 60 {how} http://{address}/uri < {name}");
        let curl =
            Command::new("sh").args(["-c", &script.replace("FILE", &name)]).output().unwrap();
        let said = String::from_utf8_lossy(&curl.stdout).trim().to_owned();
        assert!(said.starts_with("URI:CHK:"), "{how}: {curl:?}");
        said
    };
    let cap = upload(&node.web, "-T FILE");
    let path = format!("/uri/{cap}");
    for kind in ["close", "refuse_writes"] {
        let (_hcf, gate) = open(node, kind);
        for how in [
            "-T FILE",
            "-T FILE -H 'Expect: 100-continue'",
            "-T FILE -H Expect:",
            "-T -",
            "-T . -H Expect:",
            "-T FILE --http1.0",
        ] {
            assert_eq!(upload(&gate, how), cap, "{kind}, {how}: the same bytes have the same name");
        }
        let both = |method: &str, path: &str, headers: &[(&str, &str)]| {
            let ask = |address: &str| {
                let answer = http::request(address, method, path, headers, None, LONG).unwrap();
                let lengths = ["content-length", "content-range", "content-type", "etag"]
                    .map(|name| answer.header(name).map(str::to_owned));
                (answer.status, lengths, answer.body)
            };
            let (with, without) = (ask(&gate), ask(&node.web));
            assert!(
                with == without,
                "{kind}, {method} {path} {headers:?}: {:?}, not {:?}",
                (with.0, with.1),
                (without.0, without.1)
            );
            with
        };
        for range in [
            "bytes=0-0",
            "bytes=1000-1999",
            "bytes=-5",
            "bytes=3145727-",
            "bytes=9999999-",
            "bytes=5-2",
            "lines=1-2",
            "bytes=0-1,5-6",
        ] {
            both("GET", &path, &[("Range", range)]);
            both("HEAD", &path, &[("Range", range)]);
        }
        assert_eq!(both("GET", &path, &[("Range", "bytes=1000-1999")]).0, 206);
        let (status, lengths, body) = both("HEAD", &path, &[]);
        assert_eq!((status, lengths[0].as_deref(), body.len()), (200, Some("3145728"), 0));
        assert!(both("GET", &path, &[]).2 == file);
        both("GET", &path, &[("If-None-Match", "\"x\"")]);
        both("OPTIONS", &path, &[]);
        both("GET", "/uri", &[]);
        both("GET", &format!("/uri?uri={cap}"), &[]);
    }
}

/// The connections to a port of 127.0.0.1 whose server has not closed them.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let end = format!(":{port:04X}");
    let held = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        // Established, or closed by the other side only.
        local.ends_with(&end) && matches!(state, "01" | "08")
    };
    table.lines().filter(held).count()
}

#[test]
fn a_real_gateway_sees_it_when_a_client_gives_up() {
    let grid = small();
    let node = &grid.gateways[0];
    let cap = node.upload(&bytes(48 << 20));
    for kind in ["close", "refuse_writes"] {
        let (hcf, gate) = open(node, kind);
        // One is hcf's own, by which it looks.
        let held = || connections(node.port());
        wait_until("the others to be closed", LONG, || held() == 1);
        let connect = || {
            let stream = TcpStream::connect(&gate).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream
        };
        let mut up = connect();
        up.write_all(b"PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\nhalf")
            .unwrap();
        let mut down = connect();
        write!(down, "GET /uri/{cap} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        down.read_exact(&mut [0; 1 << 12]).unwrap();
        wait_until("both to have come", LONG, || held() == 3);
        drop((up, down));
        wait_until("the node to close both", LONG, || held() == 1);
        drop(hcf);
    }
    wait_until("no operation to be left", LONG, || {
        let status = http::get(&node.web, "/status/?t=json").unwrap().json();
        status["active"].as_array().is_some_and(Vec::is_empty)
    });
}

/// Every way to write the first part of a path that anybody might read as `name`.
fn spellings(name: &str) -> Vec<String> {
    let coded = |upper: bool| -> String {
        let code = |b: u8| if upper { format!("%{b:02X}") } else { format!("%{b:02x}") };
        name.bytes().map(code).collect()
    };
    let (lower, upper) = (coded(false), coded(true));
    let first = format!("{}{}", &lower[..3], &name[1..]);
    let twice = lower.replace('%', "%25");
    [
        "/N",
        "//N",
        "///N",
        "/./N",
        "/.//N",
        "//./N",
        "/%2e/N",
        "/../N",
        "/%2e%2e/N",
        "/..%2fN",
        "/x/../N",
        "/uri/../N",
        "/status/../N",
        "/status/N",
        "/N;x=y",
        "/;x/N",
        "/;/N",
        "/%2fN",
        "/%2FN",
        "/%5cN",
        "/\\N",
        "/N\\",
        "/%00N",
        "/N%00",
        "/N%20",
        "/%20N",
        "/N.",
        "/N%2f..",
        "/N/.",
        "/N/./",
        "/N/../N",
        "/N/",
        "/N//",
        "/+N",
        "//h/N",
        "/http://h/N",
        "http://h/N",
        "http://h//N",
        "HTTP://h/N",
        "https://h/N",
        "http://h/./N",
        "http:///N",
        "xN",
        "N",
        "*N",
        "*/N",
        "?/N",
        "#/N",
        "/#/N",
        "/?/N",
        "x://h/N",
        "h:80/N",
        "/%/N",
        "/%2/N",
        "/%u0075ri",
        "/N#",
        "/%0aN",
        "/%09N",
        "/%c0%afN",
        "/~/N",
        "/%N",
    ]
    .iter()
    .flat_map(|form| [name, &first, &lower, &upper, &twice].map(|name| form.replace('N', name)))
    .collect()
}

#[test]
fn whatever_a_real_gateway_serves_as_files_is_judged_as_files() {
    let grid = small();
    let node = &grid.gateways[0];
    let file = bytes(2000);
    let cap = node.upload(&file);
    let config = format!(
        "node: {{dir: \"{}\", every: 200ms, timeout: 5s}}\nservices: {{write: {{criteria: {{servers: {{min: 99}}}}}}}}\n\
         gates: {{all: {{listen: \"127.0.0.1:0\", when_bad: refuse_uri}}, writes: {{listen: \"127.0.0.1:0\", when_bad: refuse_writes}}}}\n",
        node.dir().display()
    );
    let hcf = Hcf::configured(&config, &[]);
    super::farm::wait_line(&hcf, "write\n", "#servers-few");
    let (all, writes) = (hcf.address("gate/all"), hcf.address("gate/writes"));
    // To some of these the node has no answer, and closes.
    let get = |address: &str, path: &str| http::get(address, path).ok();
    let put = |address: &str, path: &str| http::put(address, path, &file).ok();
    let status = |answer: Option<Response>| answer.map_or(0, |answer| answer.status);
    let stored =
        |answer: Response| matches!(answer.status, 200 | 201) && answer.text().starts_with("URI:");
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for name in [
        "uri",
        "cap",
        "file",
        "named",
        "URI",
        "Uri",
        "storage-plugins",
        "operations",
        "static",
        "private",
    ] {
        for place in spellings(name) {
            let path = format!("{place}/{cap}");
            if get(&node.web, &path).is_some_and(|answer| answer.body == file) {
                let status = status(get(all, &path));
                assert!(matches!(status, 400 | 503), "{path} is served as a file, and passes");
                // A target that is no path passes nowhere.
                if status == 503 {
                    assert!(
                        get(writes, &path).is_some_and(|answer| answer.body == file),
                        "{path}: reads pass"
                    );
                }
                read.push(place.clone());
            }
            if put(&node.web, &place).is_some_and(stored) {
                for gate in [all, writes] {
                    assert!(matches!(status(put(gate, &place)), 400 | 503), "PUT {place} passes");
                }
                written.push(place);
            }
        }
    }
    println!("served as files: {read:?}\nwritten to: {written:?}");
    for place in ["/uri", "/cap", "/file", "/named", "//uri", "/%75ri", "/%75%72%69", "///cap"] {
        assert!(read.iter().any(|served| served == place), "{place} is served");
    }
    for place in ["/uri", "/cap", "//uri", "/%75ri"] {
        assert!(written.iter().any(|served| served == place), "{place} is written to");
    }
    let path = format!("/uri/{cap}");
    for method in [
        "PUT", "POST", "DELETE", "PATCH", "put", "Post", "MKCOL", "PROPFIND", "LOCK", "BREW",
        "get", "GETX", "head",
    ] {
        let answer = http::request(writes, method, &path, &[], None, LONG).unwrap();
        assert_eq!(answer.status, 503, "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let answer = http::request(writes, method, &path, &[], None, LONG).unwrap();
        assert_ne!(answer.status, 503, "{method}");
    }
    // Diagnosis passes.
    for path in
        ["/", "/?t=json", "/status/", "/statistics?t=json", "/uri-is-not-this", "/operations/x"]
    {
        assert_eq!(status(get(all, path)), status(get(&node.web, path)), "{path}");
    }
}
