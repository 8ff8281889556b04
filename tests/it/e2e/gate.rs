//! Gates before real gateways: whatever passes arrives as it was, and what must not pass does not.

use super::farm::{self, beside_gates};
use crate::lab::hcf::Hcf;
use crate::lab::http;
use crate::lab::measure::memory;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{LONG, wait_until};

/// Bytes that no two places have alike.
pub(super) fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// The most memory that a process has had, in MiB.
pub(super) fn peak(hcf: &mut Hcf) -> u64 {
    memory(hcf.process().pid(), "VmHWM").expect("it runs") / 1024
}

#[test]
fn a_large_file_passes_both_ways_bit_for_bit_and_is_not_kept_in_memory() {
    let grid = Grid::ready();
    let file = bytes(48 << 20);
    for when_bad in ["close", "refuse_writes"] {
        let mut hcf = beside_gates(&grid.gateways[0], &[when_bad], "");
        let gate = hcf.address(&format!("gate/{when_bad}")).to_owned();
        farm::wait_line(&hcf, "write\n", "up ready 100%\n");
        wait_until("the gate to serve", LONG, || http::get(&gate, "/?t=json").is_ok());
        let before = peak(&mut hcf);
        let stored = http::put(&gate, "/uri", &file).expect("an answer");
        assert_eq!(stored.status, 200, "{when_bad}: {}", stored.text());
        let back = http::get(&gate, &format!("/uri/{}", stored.text().trim())).expect("an answer");
        assert!(back.body == file, "{when_bad}: the file's own bytes");
        let part = http::request(
            &gate,
            "GET",
            &format!("/uri/{}", stored.text().trim()),
            &[("Range", "bytes=1000-1999")],
            None,
            LONG,
        )
        .expect("an answer");
        assert_eq!(part.status, 206);
        assert!(part.body == file[1000..2000]);
        let grown = peak(&mut hcf) - before;
        assert!(grown < 16, "{when_bad}: {grown} MiB for a file of 48");
    }
}

#[test]
fn a_gate_refuses_what_a_real_gateway_would_take() {
    let mut grid = Grid::ready();
    let cap = grid.gateways[0].upload(&bytes(2000));
    let hcf = beside_gates(&grid.gateways[0], &["refuse_writes"], "");
    let gate = hcf.address("gate/refuse_writes").to_owned();
    farm::wait_line(&hcf, "write\n", "up ready 100%\n");
    // Every alias that the gateway serves, and every way to spell it, while all is well.
    let places = [
        format!("/uri/{cap}"),
        format!("/file/{cap}"),
        format!("/%75ri/{cap}"),
        format!("//uri/{cap}"),
    ];
    for place in &places {
        assert_eq!(http::get(&gate, place).expect("an answer").status, 200, "{place}");
    }
    assert_eq!(http::put(&gate, "/uri", &bytes(2000)).expect("an answer").status, 200);
    grid.storage[..2].iter_mut().for_each(crate::lab::tahoe::Node::kill);
    farm::wait_line(&hcf, "write\n", "#servers-few");
    for place in &places {
        assert_eq!(http::get(&gate, place).expect("an answer").status, 200, "{place}: reads pass");
        let refused = http::post(&gate, &format!("{place}?t=check"), b"").expect("an answer");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{place}");
    }
    let curl = std::process::Command::new("curl")
        .args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-T",
            "/dev/zero",
            "--max-time",
            "20",
        ])
        .arg(format!("http://{gate}/uri"))
        .output()
        .expect("deploy/parts installs curl");
    let said = String::from_utf8_lossy(&curl.stdout);
    assert!(said.starts_with("503"), "an upload without end: {curl:?}");
    assert_eq!(
        http::get(&gate, "/statistics?t=json").expect("an answer").status,
        200,
        "diagnosis passes"
    );
}
