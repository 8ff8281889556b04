//! What a service's weight is made of.

use std::time::Duration;

use super::super::file;
use super::super::units::{OrOff, Span, Switch, Whole};
use super::Resolver;
use crate::health::{Scale, Weighing, Weight};

/// The share of a core from which a node, one thread of Python, is busy, and from which it is too busy.
const NODE: Scale = Scale { full: 500, zero: 950 };

impl Resolver<'_> {
    /// The weighing of the service at `key`, and the same with every default written out. `counted` says that it has the
    /// criterion `servers`.
    pub(super) fn weighing(
        &mut self,
        key: &str,
        file: Option<&OrOff<file::Weighing>>,
        counted: bool,
    ) -> (Option<Weighing>, Option<OrOff<file::Weighing>>) {
        let Some(OrOff::On(file)) = file else { return (None, file.cloned()) };
        let key = format!("{key}.weight");
        let on = |switch: Option<Switch>| switch.is_some_and(|switch| switch.0);
        let servers = on(file.servers) || file.servers_full.is_some();
        if servers && !counted {
            self.problems.add(
                &format!("{key}.servers"),
                "this service has no criterion `servers` to count by",
            );
        }
        let full = file
            .servers_full
            .map(|full| self.whole(&format!("{key}.servers_full"), Some(full), 1, 1..=1_000_000));
        let full = full.map(|full| usize::try_from(full).unwrap_or(usize::MAX));
        let latency = file.latency.as_ref().map(|scale| {
            let ms = |span: Span| u32::try_from(span.0.as_millis()).unwrap_or(u32::MAX);
            self.scale(
                &format!("{key}.latency"),
                Scale { full: ms(scale.full), zero: ms(scale.zero) },
            )
        });
        let load = file.load.as_ref().map(|scale| {
            self.scale(&format!("{key}.load"), Scale { full: scale.full.0, zero: scale.zero.0 })
        });
        let min = self.whole(&format!("{key}.min"), file.min, 10, 1..=100);
        let step = self.whole(&format!("{key}.step"), file.step, 5, 1..=100);
        let hour = Duration::ZERO..=Duration::from_hours(1);
        let settle = self.span(&format!("{key}.settle"), file.settle, Span::secs(5), hour);
        let shown = file::Weighing {
            servers: Some(Switch(servers)),
            node: Some(Switch(on(file.node))),
            min: Some(Whole(min)),
            step: Some(Whole(step)),
            settle: Some(Span(settle)),
            ..file.clone()
        };
        let weighing = Weighing {
            servers: servers.then_some(full),
            latency,
            load,
            node: on(file.node).then_some(NODE),
            min: Weight::clamped(min),
            step: u8::try_from(step).unwrap_or(100),
            settle,
        };
        (Some(weighing), Some(OrOff::On(shown)))
    }

    fn scale(&mut self, key: &str, scale: Scale) -> Scale {
        if scale.zero <= scale.full {
            self.problems.add(key, "`zero` must be beyond `full`");
        }
        scale
    }
}
