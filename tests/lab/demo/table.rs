//! The last page: every fault, through each balancer, with hcf and without.

use std::fmt::Write as _;

use crate::arm::{Arm, Row};
use crate::fault::Fault;
use crate::tally::Tally;

/// Where an arm was not run.
const EMPTY: [&str; 5] = ["-"; 5];

/// The table and what its columns mean.
pub fn render(with_hcf: &[Row], today: &[Row]) -> String {
    let mut text = String::new();
    let heading = |arm: Arm| format!("{:^32}", arm.title());
    line(&mut text, ["", "", &heading(Arm::Hcf), &heading(Arm::Today)]);
    let columns = cells(["sent", "failed", "refused", "unsafe", "lost"].map(str::to_owned));
    line(&mut text, ["fault", "through", &columns, &columns]);
    for fault in Fault::ALL {
        let of = |rows: &[Row], balancer: fn(&Row) -> &Tally| {
            let found = rows.iter().find(|row| row.fault == fault);
            found.map_or_else(|| cells(EMPTY.map(str::to_owned)), |found| row(balancer(found)))
        };
        let haproxy: fn(&Row) -> &Tally = |row| &row.haproxy;
        let envoy: fn(&Row) -> &Tally = |row| &row.envoy;
        line(&mut text, [fault.title(), "HAProxy", &of(with_hcf, haproxy), &of(today, haproxy)]);
        line(&mut text, ["", "Envoy", &of(with_hcf, envoy), &of(today, envoy)]);
    }
    let all = |rows: &[Row]| sum(rows.iter().flat_map(|row| [&row.haproxy, &row.envoy]));
    line(&mut text, ["all", "both", &all(with_hcf), &all(today)]);
    text.push_str(
        "\nfailed: errors from a gateway, or no answer within 5 s. refused: 503 from the balancer, nothing was done.\n\
         unsafe: directory updates accepted by a gateway that saw fewer servers than `happy`.\n\
         lost: directory updates that were accepted and are not there after everything was mended.\n",
    );
    text
}

fn line(text: &mut String, [fault, through, left, right]: [&str; 4]) {
    let line = format!("{fault:<43} {through:<8} |{left}  |{right}");
    _ = writeln!(text, "{}", line.trim_end());
}

fn row(tally: &Tally) -> String {
    numbers([tally.requests, tally.failed, tally.refused, tally.blind, tally.lost])
}

fn sum<'a>(tallies: impl Iterator<Item = &'a Tally>) -> String {
    let mut total = [0; 5];
    for tally in tallies {
        let values = [tally.requests, tally.failed, tally.refused, tally.blind, tally.lost];
        for (sum, value) in total.iter_mut().zip(values) {
            *sum += value;
        }
    }
    numbers(total)
}

fn numbers(values: [usize; 5]) -> String {
    cells(values.map(|value| value.to_string()))
}

fn cells([sent, failed, refused, blind, lost]: [String; 5]) -> String {
    format!("{sent:>6}{failed:>7}{refused:>8}{blind:>7}{lost:>5}")
}
