//! The checker: asks balancers and gateways, sends requests of clients, and holds what it sees against the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bounds::Kind;
use crate::lab::http::{self, Response};
use crate::lab::shipped::Place;
use crate::lab::wait::pause;
use crate::lab::{envoy, haproxy};
use crate::shared::{Shared, lock};
use crate::world::{Demand, GATEWAYS, SERVICES, STORAGE, World};

const LOOK: Duration = Duration::from_millis(200);
/// A cheap request, and one that the grid has to work for.
const CHEAP: Duration = Duration::from_secs(2);
const DEAR: Duration = Duration::from_secs(20);
/// Longer than any pause of this machine that the bounds allow for.
const STALL: Duration = Duration::from_millis(700);

/// One balancer, as it is asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub kind: Kind,
    pub web: String,
    pub mind: String,
}

/// Starts all of it.
pub fn start(shared: &Arc<Shared>, fronts: &[Asked], places: &[Place]) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    let mut run = |work: Box<dyn Fn(&Shared) + Send>| {
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || work(&shared)));
    };
    run(Box::new(pulse));
    for (at, place) in places.iter().enumerate() {
        let web = format!("{}:{}", place.ip, place.node);
        run(Box::new(move |shared| probe(shared, at, &web)));
    }
    for front in fronts {
        let (asked, nodes) = (front.clone(), places.to_vec());
        run(Box::new(move |shared| minds(shared, &asked, &nodes)));
        for service in 0..SERVICES.len() {
            for cheap in [true, false] {
                let (asked, nodes) = (front.clone(), places.to_vec());
                run(Box::new(move |shared| clients(shared, &asked, &nodes, service, cheap)));
            }
        }
    }
    threads
}

/// Notices when this machine gives us no time.
fn pulse(shared: &Shared) {
    let mut last = Instant::now();
    while shared.goes_on() {
        pause(Duration::from_millis(20));
        let gap = last.elapsed();
        last = Instant::now();
        if gap > STALL {
            shared.world().stall = last;
            let mut stalls = lock(&shared.stalls);
            *stalls = (stalls.0 + 1, stalls.1.max(gap));
        }
    }
}

/// Asks a gateway itself whom it is connected to: until it says so, nobody expects it to be in.
fn probe(shared: &Shared, gateway: usize, web: &str) {
    while shared.goes_on() {
        let page = http::request(web, "GET", "/?t=json", &[], None, Duration::from_secs(1));
        let page = page.ok().filter(|answer| answer.status == 200).map(|answer| answer.json());
        let connected = |server: usize| {
            let servers = page.as_ref()?["servers"].as_array()?;
            let name = format!("store{}", server + 1);
            let found = servers.iter().find(|one| one["nickname"] == name.as_str())?;
            let words = found["connection_status"].as_str()?;
            ((words == "connected" || words.starts_with("Connected "))
                && found["version"].is_string())
            .then_some(())
        };
        let now = Instant::now();
        let mut world = shared.world();
        let keep = |old: Option<Instant>, seen: bool| seen.then(|| old.unwrap_or(now));
        world.page[gateway] = keep(world.page[gateway], page.is_some());
        for server in 0..STORAGE {
            let seen = connected(server).is_some();
            world.seen[gateway][server] = keep(world.seen[gateway][server], seen);
        }
        drop(world);
        pause(LOOK);
    }
}

/// What a balancer thinks, by gateway and service; nothing where it cannot be asked.
type View = BTreeMap<(usize, usize), bool>;

fn view(front: &Asked, places: &[Place]) -> std::io::Result<(View, String)> {
    let mut view = View::new();
    let mut words = String::new();
    match front.kind {
        Kind::Poll | Kind::Hold => {
            for stat in haproxy::stats_at(&front.mind)? {
                let at = places.iter().position(|place| place.name == stat.field("svname"));
                let of = |(service, _): &(&str, usize)| {
                    stat.field("pxname").strip_prefix("be_") == Some(*service)
                };
                let service = SERVICES.iter().position(of);
                if let (Some(at), Some(service)) = (at, service) {
                    view.insert((at, service), stat.is_up() && stat.weight() > 0);
                    words.push_str(&format!(
                        "  {}/{} {} weight {} check {} agent {} {:?}\n",
                        stat.field("pxname"),
                        stat.field("svname"),
                        stat.status(),
                        stat.weight(),
                        stat.check_status(),
                        stat.agent_status(),
                        stat.last_agent()
                    ));
                }
            }
        }
        Kind::Check | Kind::File => {
            let clusters = envoy::clusters_at(&front.mind)?;
            for (at, place) in places.iter().enumerate() {
                let address = format!("{}:{}", place.ip, place.node);
                for (service, (name, _)) in SERVICES.iter().enumerate() {
                    // The file's metadata is not shown there, so for writes requests alone tell.
                    let cluster = match (front.kind, *name) {
                        (Kind::File, "read") => "webapi".to_owned(),
                        (Kind::File, _) => continue,
                        _ => format!("nodes_{name}"),
                    };
                    view.insert((at, service), envoy::is_up(&clusters, &cluster, &address));
                    let flags = envoy::health(&clusters, &cluster, &address);
                    words.push_str(&format!("  {cluster} {} {flags:?}\n", place.name));
                }
            }
        }
    }
    Ok((view, words))
}

/// Whether the same is demanded of both worlds, so that nothing has changed between them.
fn stays(demand: &Demand, of: &[Demand]) -> bool {
    of.iter().any(|other| other.why == demand.why && other.since == demand.since)
}

/// Looks at what a balancer thinks. What is wrong twice in a row is a violation.
///
/// A gateway whose servers announce themselves anew is without them for a moment, which hcf may see and the checker miss.
/// So a good node that was in goes out at no cost, and must be back within the bound.
fn minds(shared: &Shared, front: &Asked, places: &[Place]) {
    let mut out_since: BTreeMap<(usize, usize), Instant> = BTreeMap::new();
    let mut wrong: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut silent = 0;
    while shared.goes_on() {
        let (before, asked) = (shared.world().clone(), Instant::now());
        let answer = view(front, places);
        let after = shared.world().clone();
        match answer {
            Ok((view, words)) => {
                silent = 0;
                for ((at, service), is_in) in view {
                    let demands = |world: &World| {
                        if is_in {
                            world.out(at, service, front.kind)
                        } else {
                            world.well(at, service, front.kind).into_iter().collect()
                        }
                    };
                    let later = demands(&after);
                    let out = if is_in {
                        out_since.remove(&(at, service));
                        None
                    } else {
                        Some(*out_since.entry((at, service)).or_insert(asked))
                    };
                    let standing = demands(&before).into_iter().filter(|d| stays(d, &later));
                    let standing: Vec<Demand> = standing
                        .map(|demand| Demand {
                            since: out.max(Some(demand.since)).unwrap_or(asked),
                            ..demand
                        })
                        .collect();
                    for demand in &standing {
                        shared.took(front.kind, demand, asked);
                    }
                    let broken = standing.iter().find(|demand| demand.holds(asked));
                    let count = wrong.entry((at, service)).or_default();
                    let Some(demand) = broken else {
                        *count = 0;
                        continue;
                    };
                    *count += 1;
                    if *count >= 2 {
                        let what = format!(
                            "{} has gw{} {} for {}, although for {:.1} s ({:?}) it must be {}; the bound is {:.1} s",
                            front.kind.name(),
                            at + 1,
                            if is_in { "in" } else { "out" },
                            SERVICES[service].0,
                            (asked - demand.since).as_secs_f64(),
                            demand.why,
                            if is_in { "out" } else { "in" },
                            demand.bound.as_secs_f64()
                        );
                        shared.violation(&what, Some(at), &words);
                    }
                }
            }
            Err(error) => {
                let running = |world: &World| {
                    matches!(world.fronts[front.kind as usize], crate::world::Part::Well(_))
                };
                silent = if running(&before) && running(&after) { silent + 1 } else { 0 };
                if silent > 20 {
                    shared.violation(&format!("{}: {error}", front.kind.name()), None, "");
                }
            }
        }
        pause(LOOK);
    }
}

/// Clients of one balancer and service, one request after the other.
fn clients(shared: &Shared, front: &Asked, places: &[Place], service: usize, cheap: bool) {
    let names: Vec<[String; 2]> = places
        .iter()
        .map(|place| [place.name.clone(), format!("{}:{}", place.ip, place.node)])
        .collect();
    let what = match (SERVICES[service].0, cheap) {
        ("read", true) => "read",
        ("read", false) => "download",
        (_, true) => "write",
        (_, false) => "upload",
    };
    let (mut number, mut cap) = (0, None::<String>);
    while shared.goes_on() {
        pause(if cheap { LOOK } else { Duration::from_secs(3) });
        number += 1;
        let content = format!("{what} {number} through {:>80}", front.web);
        let (before, sent) = (shared.world().clone(), Instant::now());
        let answer = ask(&front.web, what, &content, cap.as_deref());
        if what == "download" && cap.is_none() {
            // It reads what it has uploaded itself.
            cap = answer.ok().filter(is_good).map(|answer| answer.text().trim().to_owned());
            continue;
        }
        let after = shared.world().clone();
        let gateway = answer.as_ref().ok().and_then(|answer| {
            let name = answer.header("x-gateway")?;
            names.iter().position(|names| names.iter().any(|known| known == name))
        });
        let how = match (&answer, gateway) {
            (Ok(answer), Some(_)) if is_good(answer) || answer.status == 400 => "served".to_owned(),
            (Ok(answer), None) if answer.header("retry-after").is_some() => "refused".to_owned(),
            (Ok(answer), _) => answer.status.to_string(),
            (Err(error), _) => format!("{:?}", error.kind()),
        };
        shared.ended(front.kind, what, &how);
        if let Some(at) = gateway {
            let later = after.out(at, service, front.kind);
            let demands = before.out(at, service, front.kind);
            let broken = demands.iter().find(|d| d.holds(sent) && stays(d, &later));
            if let Some(demand) = broken {
                let what = format!(
                    "{} sent a {what} to gw{}, which had to be out for {:.1} s ({:?}); the bound is {:.1} s",
                    front.kind.name(),
                    at + 1,
                    (sent - demand.since).as_secs_f64(),
                    demand.why,
                    demand.bound.as_secs_f64()
                );
                shared.violation(&what, Some(at), &format!("{answer:?}"));
            }
        }
        let well = |at| {
            let demand = before.well(at, service, front.kind);
            let later = after.well(at, service, front.kind);
            demand
                .zip(later)
                .is_some_and(|(demand, later)| demand.holds(sent) && demand.since == later.since)
        };
        let refused = how == "refused" && (0..GATEWAYS).any(well);
        // One that an operator holds in may not be able to serve.
        let able = |at| well(at) && !before.is_forced(at, service);
        if refused || (how != "served" && (0..GATEWAYS).all(able)) {
            let what = format!(
                "a {what} through {} ended with {how}, although {} well",
                front.kind.name(),
                if refused { "a gateway was" } else { "all were" }
            );
            shared.violation(&what, None, &format!("{answer:?}"));
        }
    }
}

fn ask(web: &str, what: &str, content: &str, cap: Option<&str>) -> std::io::Result<Response> {
    match (what, cap) {
        ("read", _) => http::request(web, "GET", "/statistics?t=json", &[], None, CHEAP),
        ("write", _) => http::request(web, "POST", "/uri?t=nothing", &[], Some(b""), CHEAP),
        ("download", Some(cap)) => {
            http::request(web, "GET", &format!("/uri/{cap}"), &[], None, DEAR)
        }
        _ => http::request(web, "PUT", "/uri", &[], Some(content.as_bytes()), DEAR),
    }
}

fn is_good(answer: &Response) -> bool {
    matches!(answer.status, 200 | 201)
}
