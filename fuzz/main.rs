//! All targets in one program, which takes longest to link: `HCF_FUZZ` names the one that it tries.

#![no_main]

use std::sync::LazyLock;

use hcf::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("HCF_FUZZ").expect("HCF_FUZZ names a target");
    let (_, target) =
        TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    *target
});

fuzz_target!(|data: &[u8]| TARGET(data));
