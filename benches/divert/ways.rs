//! The ways to tell a balancer: each is one balancer with one kind of configuration, and one port for clients.

use std::any::Any;

use crate::lab::eds::Eds;
use crate::lab::envoy::Envoy;
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::ports::free_port;
use crate::lab::shipped::{self, Place, shipped};

/// One way, running.
pub(crate) struct Way {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// How often the balancer asks, in the configuration's own words.
    pub(crate) pace: String,
    /// Where clients ask.
    pub(crate) web: String,
    /// Whether it hears weights.
    pub(crate) weighs: bool,
    /// Whether it knows only what the node itself says.
    pub(crate) plain: bool,
    /// What runs for it, until it is dropped.
    programs: Vec<Box<dyn Any>>,
}

impl Way {
    fn haproxy(name: &'static str, config: &str, web: u16) -> Self {
        let mut said: Vec<String> = Vec::new();
        // Once each: the backends are alike, and the last one is that of writes.
        for (word, of) in [("agent-inter ", "agent-inter"), ("check inter ", "inter")] {
            said.extend(following(config, word).map(|time| format!("{of} {time}")));
        }
        said.extend(following(config, "hold=").map(|time| format!("hold={time}")));
        Self {
            name,
            pace: said.join(", "),
            web: format!("127.0.0.1:{web}"),
            weighs: config.contains("agent-inter"),
            plain: !config.contains("agent-inter"),
            programs: vec![Box::new(Haproxy::start(Version::V2_8, config))],
        }
    }

    fn envoy(name: &'static str, config: &str, web: u16) -> Self {
        let keys =
            [(" interval: ", "interval"), ("weight_update_period: ", "weight_update_period")];
        let said = keys
            .iter()
            .filter_map(|(word, of)| following(config, word).map(|time| format!("{of} {time}")));
        let pace = said.collect::<Vec<_>>().join(", ");
        let envoy = Envoy::start(config);
        envoy.wait_live();
        Self {
            name,
            pace: if pace.is_empty() { "told at once".to_owned() } else { pace },
            web: format!("127.0.0.1:{web}"),
            weighs: false,
            plain: false,
            programs: vec![Box::new(envoy)],
        }
    }

    fn weighing(self) -> Self {
        Self { weighs: true, ..self }
    }
}

/// The word behind the last of these.
fn following(text: &str, before: &str) -> Option<String> {
    let code = text.lines().filter(|line| !line.trim().starts_with('#'));
    let found = code.filter_map(|line| line.split_once(before)).next_back()?.1;
    Some(found.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect())
}

pub(crate) fn haproxy_poll(places: &[Place]) -> Way {
    let web = free_port();
    Way::haproxy("HAProxy, poll", &shipped::haproxy("recommended.cfg", web, places), web)
}

pub(crate) fn haproxy_hold(places: &[Place]) -> Way {
    let web = free_port();
    Way::haproxy("HAProxy, hold=", &shipped::haproxy("longpoll.cfg", web, places), web)
}

/// The recommended file with another algorithm.
pub(crate) fn haproxy_balancing(name: &'static str, algorithm: &str, places: &[Place]) -> Way {
    let web = free_port();
    let config = shipped::haproxy("recommended.cfg", web, places);
    Way::haproxy(name, &config.replace("balance roundrobin", algorithm), web)
}

pub(crate) fn envoy(name: &'static str, file: &str, places: &[Place]) -> Way {
    let web = free_port();
    Way::envoy(name, &shipped::envoy(file, web, places), web)
}

pub(crate) fn orca(places: &[Place]) -> Way {
    envoy("Envoy, ORCA weights", "weights.yaml", places).weighing()
}

/// ORCA with another `weight_update_period`.
pub(crate) fn orca_updated(period: &str, places: &[Place]) -> Way {
    let web = free_port();
    let config = shipped::envoy("weights.yaml", web, places);
    let old = "weight_update_period: 0.5s";
    assert!(config.contains(old));
    let config = config.replace(old, &format!("weight_update_period: {period}"));
    Way::envoy("Envoy, ORCA weights", &config, web).weighing()
}

pub(crate) fn slots(places: &[Place]) -> Way {
    envoy("Envoy, slots", "slots.yaml", places).weighing()
}

/// The file of `hcf eds`, which follows the sidecars at these status listeners.
pub(crate) fn eds(places: &[Place], sidecars: &[String]) -> Way {
    let nodes: Vec<_> = places
        .iter()
        .zip(sidecars)
        .map(|(place, status)| {
            (place.name.clone(), format!("{}:{}", place.ip, place.node), format!("http://{status}"))
        })
        .collect();
    let eds = Eds::start(&Eds::config("service: read", &nodes));
    let web = free_port();
    let config = shipped::envoy("eds.yaml", web, &[]);
    let config = config.replace("/run/hcf/webapi.eds.json", &eds.output().display().to_string());
    let mut way = Way::envoy("Envoy, file by hcf eds", &config, web).weighing();
    way.programs.push(Box::new(eds));
    way
}

/// HAProxy's check of the node itself, as often as it checks hcf.
pub(crate) fn haproxy_plain(places: &[Place]) -> Way {
    let web = free_port();
    let config = include_str!("../../tests/lab/demo/haproxy-today.cfg");
    let config = config.replace("httpchk GET /?t=json", "httpchk GET /");
    Way::haproxy("HAProxy, GET / of the node", &shipped::haproxy_of(&config, web, places), web)
}

/// Envoy's check of the node itself.
pub(crate) fn envoy_plain(places: &[Place]) -> Way {
    let web = free_port();
    let config = shipped("envoy", "no-traffic.yaml");
    assert!(config.contains("path: /health/write"));
    let config = config.replace("path: /health/write", "path: /");
    let places: Vec<Place> =
        places.iter().map(|place| Place { health: place.node, ..place.clone() }).collect();
    let way =
        Way::envoy("Envoy, GET / of the node", &shipped::envoy_of(&config, web, &places), web);
    Way { plain: true, ..way }
}
