//! A past: a state directory with a history of seven days, as much as is ever kept.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;

/// Minutes of seven days.
const MINUTES: u64 = 7 * 24 * 60;

/// Writes it into this state directory: a minute of its own for each of seven days, and a change every ten minutes.
pub fn write(state: &Path) {
    let dir = state.join("history");
    std::fs::create_dir_all(&dir).expect("a folder can be made");
    let start = SystemTime::now() - Duration::from_secs(MINUTES * 60);
    let (mut text, mut file, mut seq) = (String::new(), 1, 0_u64);
    let mut put = |at: SystemTime, mut record: serde_json::Value, last: bool| {
        seq += 1;
        record["seq"] = seq.into();
        record["at"] = humantime::format_rfc3339_millis(at).to_string().into();
        let json = record.to_string();
        let _ = writeln!(text, "{:08x} {json}", crc32fast::hash(json.as_bytes()));
        if text.len() > 250 << 10 || last {
            std::fs::write(dir.join(format!("{file:08}.log")), &text).expect("it can be written");
            text.clear();
            file += 1;
        }
    };
    for minute in 0..MINUTES {
        let at = start + Duration::from_secs(minute * 60);
        let spent = json!({"states_ms": {"up": 60_000}, "weight": {"least": 100 - minute % 30, "last": 100}});
        let looks = json!({"good": 60, "mean_ms": 3.2, "max_ms": minute % 100, "usable": {"least": 9, "last": 10}});
        let minutes = json!({"kind": "minutes", "lasted_ms": 60_000, "services": {"read": spent, "write": spent}, "looks": looks});
        put(at, minutes, minute + 1 == MINUTES);
        if minute % 10 == 0 {
            let state = if minute % 20 == 0 { "down" } else { "up" };
            let standing = |state: &str| json!({"state": state, "degraded": false, "forced": false, "weight": 100});
            let text = "4 of 7 storage servers usable, 3 refused";
            let why = json!({"code": "servers-few", "criterion": "servers", "else": "down", "text": text});
            let found = json!({"criterion": "servers", "pass": false, "code": "servers-few", "else": "down", "observed": 4.0, "threshold": 7.0, "text": text});
            let change = json!({"kind": "transition", "service": "write", "from": standing("up"), "to": standing(state), "reasons": [why], "findings": [found]});
            put(at, change, false);
        }
    }
}
