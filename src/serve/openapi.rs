//! What the status listener answers, as OpenAPI 3.1: the bodies come from the types that are written there, and a test
//! holds a running listener against it.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use super::http::Problem;
use super::status::Status;
use super::watch::{Change, Everything, Fresh};
use super::words::{Body, Plain};
use crate::history::record::History;
use crate::overrides::Shown;

const JSON: &str = "application/json";
const HEALTH: &str = "application/health+json";

/// The document.
#[must_use]
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut bodies = Bodies(
        settings.with(|s| s.definitions_path = "/components/schemas".into()).into_generator(),
    );
    let paths = paths(&mut bodies);
    let problem = bodies.json::<Problem>(JSON, "Not a request that is answered.");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "hcf, the status listener",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            "description": "What one sidecar knows of its node. Nothing can be changed here: any method but GET and \
                            HEAD is answered with 405. The health listener answers /health, /livez and /readyz alike.",
        },
        "servers": [{"url": "http://127.0.0.1:5293"}],
        "paths": paths,
        "components": {
            "responses": {"Problem": problem},
            "schemas": bodies.0.take_definitions(true),
        },
    })
}

/// The bodies of answers; their types are gathered on the way.
struct Bodies(SchemaGenerator);

impl Bodies {
    fn json<T: JsonSchema>(&mut self, media: &str, description: &str) -> Value {
        answer(media, description, &json!(self.0.subschema_for::<T>()))
    }
}

fn answer(media: &str, description: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {media: {"schema": schema}}})
}

/// A GET with these parameters, and its answers by status.
fn get(id: &str, summary: &str, parameters: &[Value], answers: &[(&str, Value)]) -> Value {
    let problem = json!({"$ref": "#/components/responses/Problem"});
    let own = answers.iter().map(|(status, answer)| ((*status).to_owned(), answer.clone()));
    let usual = ["400", "431"].map(|status| (status.to_owned(), problem.clone()));
    let responses: Map<String, Value> = usual.into_iter().chain(own).collect();
    let mut get = json!({"operationId": id, "summary": summary, "responses": responses});
    if !parameters.is_empty() {
        get["parameters"] = json!(parameters);
    }
    json!({"get": get})
}

fn in_path(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

fn in_query(name: &str, value: &str, description: &str) -> Value {
    // Any other value is ignored, as an unknown name is.
    let schema = json!({"type": "string", "examples": [value]});
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn paths(bodies: &mut Bodies) -> Value {
    let text = json!({"type": "string"});
    let status = bodies.json::<Status>(JSON, "Everything.");
    let overrides = bodies.json::<Overrides<'_>>(JSON, "What operators have ordered.");
    let history = bodies.json::<History>(JSON, "What was; `next` is where it goes on.");
    let unread = bodies.json::<Problem>(JSON, "It cannot be read, or not in time.");
    let unheard = bodies.json::<Problem>(JSON, "No such service, now or then.");
    let asked = [
        in_query(
            "since",
            "2h",
            "From when on: a length back, or a time as RFC 3339 has it; 24h unless said.",
        ),
        in_query("service", "write", "One service; all of them unless said."),
        in_query("after", "0", "Only what has a higher number: from `next`."),
    ];
    let alive = bodies.json::<Plain>(JSON, "It runs.");
    let ready =
        bodies.json::<Plain>(JSON, "Every listener is bound, and the first look has finished.");
    let not_ready = bodies.json::<Plain>(JSON, "Not yet.");
    let used = bodies.json::<Plain>(JSON, "Use it.");
    let unused = bodies.json::<Plain>(JSON, "Do not.");
    let full = bodies.json::<Problem>(JSON, "As many watch as may.");
    let none = bodies.json::<Problem>(JSON, "No such service or path.");
    let drain =
        in_query("drain", "404", "`404`: a drain is answered with 404, as HAProxy wants it.");
    let service = in_path(
        "service",
        "Its name in the configuration.",
        &json!({"type": "string", "examples": ["write"]}),
    );
    let number = json!({"type": "integer", "minimum": 1, "maximum": 100});
    let slots = [
        service.clone(),
        in_path("slot", "Which one.", &number),
        in_path("slots", "Of how many.", &number),
    ];
    let mut health = |id: &str, summary: &str, parameters: &[Value]| {
        let up = bodies.json::<Body<'_>>(HEALTH, "It is up; degraded or forced ones have `warn`.");
        let not = json!({"description": "It is not up, or (with drain=404) there is no such service.", "content": {
            HEALTH: {"schema": bodies.0.subschema_for::<Body<'_>>()},
            JSON: {"schema": bodies.0.subschema_for::<Plain>()},
        }});
        let gone = json!({"description": "No such service; with drain=404, a drain.", "content": {
            HEALTH: {"schema": bodies.0.subschema_for::<Body<'_>>()},
            JSON: {"schema": bodies.0.subschema_for::<Problem>()},
        }});
        get(id, summary, parameters, &[("200", up), ("503", not), ("404", gone)])
    };
    let default = health("health", "The default service's health.", std::slice::from_ref(&drain));
    let one = health("healthOf", "One service's health.", &[service, drain]);
    let events = json!({
        "description": "Server-sent events, for as long as they are read: `verdicts` once and whenever the services are \
                        others, `verdict` at each change, `fresh` in between. The data of each is a line of JSON.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "x-events": {
            "verdicts": bodies.0.subschema_for::<Everything<'_>>(),
            "verdict": bodies.0.subschema_for::<Change<'_>>(),
            "fresh": bodies.0.subschema_for::<Fresh>(),
        },
    });
    let metrics = json!({"description": "A scrape.", "content": {
        "application/openmetrics-text": {"schema": text},
        "text/plain": {"schema": text},
    }});
    let format = in_query("format", "text", "`text`: in Prometheus' older form.");
    let page = answer("text/html", "For people.", &text);
    let style = answer("text/css", "The page's style.", &text);
    json!({
        "/": get("page", "The status page.", &[], &[("200", page)]),
        "/style.css": get("style", "The style of the status page.", &[], &[("200", style)]),
        "/v1/status": get("status", "Everything that is known.", &[], &[("200", status)]),
        "/v1/overrides": get("overrides", "What operators have ordered.", &[], &[("200", overrides)]),
        "/v1/history": get(
            "history",
            "What was, and why.",
            &asked,
            &[("200", history), ("404", unheard), ("503", unread)],
        ),
        "/v1/watch": get("watch", "Verdicts as they change.", &[], &[("200", events), ("503", full)]),
        "/metrics": get("metrics", "Figures for Prometheus.", &[format], &[("200", metrics)]),
        "/health": default,
        "/health/{service}": one,
        "/health/{service}/slot/{slot}/of/{slots}": get(
            "slot",
            "Whether this slot of a service is within its weight.",
            &slots,
            &[("200", used), ("503", unused), ("404", none)],
        ),
        "/livez": get("alive", "Whether the sidecar runs.", &[], &[("200", alive)]),
        "/readyz": get("ready", "Whether the sidecar is ready.", &[], &[("200", ready), ("503", not_ready)]),
    })
}

/// The answer of `/v1/overrides`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its form alone is needed; it is written from entries")]
struct Overrides<'a> {
    overrides: Vec<Shown<'a>>,
}

/// A time as RFC 3339 has it, in UTC.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// The same, or none.
pub(super) fn perhaps_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["string", "null"], "format": "date-time"})
}
