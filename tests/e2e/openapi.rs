//! The description of the operators' API, held against a server that answers: every operation is tried, every answer is of the
//! form that it says, and the server knows no methods or parameters beside those that it names.

use std::collections::BTreeSet;

use moorline_testbed::failure::Failure;
use moorline_testbed::rig::{IMEI, Rig, Server};
use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

const NEWCOMER: &str = "869731052403821";

/// A request, and the operation that it is one of.
struct Try {
    operation: &'static str,
    method: &'static str,
    path: String,
    media_type: Option<&'static str>,
    body: String,
}

fn get(operation: &'static str, path: impl Into<String>) -> Try {
    Try { operation, method: "get", path: path.into(), media_type: None, body: String::new() }
}

fn change(operation: &'static str, method: &'static str, path: String, body: &Value) -> Try {
    let (media_type, body) = match body {
        Value::Null => (None, String::new()),
        Value::String(csv) => (Some("text/csv"), csv.clone()),
        json => (Some("application/json"), json.to_string()),
    };
    Try { operation, method, path, media_type, body }
}

/// At least one for every operation, in an order in which each meets a fleet that has something to show.
fn tries() -> Vec<Try> {
    let device = |what: &str| format!("/api/devices/{IMEI}{what}");
    let filters = "?limit=1&after=004401083030128&online=true&seen=true&state=active&protocol=native&signal_below=0&search=a\
                   &agent_version=0.1.0&certificate=expiring";
    vec![
        change("addDevices", "post", "/api/devices".to_owned(), &json!(format!("{NEWCOMER},Pump\n"))),
        change("setHeartbeat", "put", device("/heartbeat"), &json!({"min_s": 60})),
        get("device", device("")),
        change("clearHeartbeat", "delete", device("/heartbeat"), &Value::Null),
        change("setLabel", "put", device("/label"), &json!({"label": "Crane"})),
        change("drop", "post", device("/drop"), &Value::Null),
        change("setState", "put", device("/state"), &json!({"state": "blocked", "reason": "stolen"})),
        get("listDevices", "/api/devices"),
        get("listDevices", format!("/api/devices{filters}")),
        get("device", format!("/api/devices/{NEWCOMER}")),
        get("deviceHistory", device("/history?days=1")),
        get("fleet", "/api/fleet?hours=1"),
        get("listEvents", "/api/events"),
        get("listEvents", format!("/api/events?after=0&imei={IMEI}&limit=1000")),
        change("backup", "post", "/api/backup".to_owned(), &Value::Null),
        get("openapi", "/api/openapi.json"),
        get("followEvents", "/api/events/stream"),
        get("healthz", "/healthz"),
        get("nodes", "/api/nodes"),
        get("readyz", "/readyz"),
        get("metrics", "/metrics"),
    ]
}

struct Description(Value);

impl Description {
    /// Every operation with its path and method.
    fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().into_iter().flatten();
        paths
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().into_iter().flatten();
                methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
            })
            .collect()
    }

    #[track_caller]
    fn operation(&self, id: &str) -> (&str, &str, &Value) {
        let found = self.operations().into_iter().find(|(.., operation)| operation["operationId"] == id);
        found.unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    /// What a value lacks to be of this schema.
    #[track_caller]
    fn faults(&self, schema: &Value, value: &Value) -> Result<Vec<String>, Failure> {
        let mut whole = schema.clone();
        whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        whole["components"] = self.0["components"].clone();
        let validator = jsonschema::options().should_validate_formats(true).build(&whole)?;
        let faults = validator.iter_errors(value);
        Ok(faults.map(|fault| format!("{}: {fault}", fault.instance_path())).collect())
    }
}

fn ask(server: &Server, attempt: &Try) -> Result<Response<Body>, Failure> {
    let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = Request::builder()
        .method(attempt.method.to_uppercase().as_str())
        .uri(server.operators().url(&attempt.path));
    if let Some(media_type) = attempt.media_type {
        request = request.header("Content-Type", media_type);
    }
    Ok(agent.run(request.body(attempt.body.clone())?)?)
}

/// The schema under an answer's own media type, and the answer.
#[track_caller]
fn read(content: &Value, mut answer: Response<Body>) -> Result<(Value, Value), Failure> {
    let named = answer.headers()["content-type"].to_str()?.to_owned();
    let media_type = named.split(';').next().unwrap_or_default().trim();
    let schema = content.get(media_type).unwrap_or_else(|| panic!("{media_type} is not in {content}"));
    if media_type == "text/event-stream" {
        // It has no end.
        return Ok((json!({}), Value::Null));
    }
    let bytes = answer.body_mut().with_config().limit(64 << 20).read_to_vec()?;
    let value = if media_type.ends_with("json") {
        serde_json::from_slice(&bytes)?
    } else {
        json!(String::from_utf8_lossy(&bytes))
    };
    Ok((schema.get("schema").cloned().unwrap_or_else(|| json!({})), value))
}

#[test]
fn every_operation_answers_as_it_is_described() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let agent = rig.agent(server.devices(), IMEI)?.start()?;
    server.operators().wait_online(IMEI, true)?;
    let description = Description(server.operators().json("/api/openapi.json")?);
    let mut tried = BTreeSet::new();
    for attempt in tries() {
        let (path, method, operation) = description.operation(attempt.operation);
        tried.insert(attempt.operation);
        assert_eq!(method, attempt.method, "{path}");
        let answer = ask(&server, &attempt)?;
        assert_eq!(answer.status(), 200, "{} {}", attempt.method, attempt.path);
        let (schema, value) = read(&operation["responses"]["200"]["content"], answer)?;
        let faults = description.faults(&schema, &value)?;
        assert!(faults.is_empty(), "{} {}: {faults:#?} in {value:#}", attempt.method, attempt.path);
        // What is sent is of the form described as well.
        if attempt.media_type == Some("application/json") {
            let form = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(description.faults(form, &serde_json::from_str(&attempt.body)?)?, [""; 0]);
        }
    }
    let described: BTreeSet<_> = description
        .operations()
        .iter()
        .filter_map(|(.., operation)| operation["operationId"].as_str())
        .collect();
    assert_eq!(tried, described);
    drop(agent);
    Ok(())
}

#[test]
fn server_knows_the_methods_and_parameters_that_are_described_and_no_others() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let description = Description(server.operators().json("/api/openapi.json")?);
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let paths = description.0["paths"].as_object().cloned().unwrap_or_default();
    for (path, methods) in &paths {
        let path = path.replace("{imei}", IMEI);
        let answer = ask(&server, &change("", "patch", path.clone(), &Value::Null))?;
        assert_eq!(answer.status(), 405, "{path}");
        let allowed = answer.headers()["allow"].to_str()?.to_lowercase();
        let allowed: BTreeSet<_> = allowed.split(',').filter(|method| *method != "head").collect();
        assert_eq!(
            allowed,
            methods.as_object().into_iter().flatten().map(|(method, _)| method.as_str()).collect()
        );
    }
    for (path, method, operation) in description.operations() {
        let named: Vec<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|named| named["in"] == "query")
            .collect();
        if method != "get" || named.is_empty() {
            continue;
        }
        let attempt = get("", format!("{}?sheep=1", path.replace("{imei}", IMEI)));
        let (_, value) = read(&operation["responses"]["default"]["content"], ask(&server, &attempt)?)?;
        assert_eq!(description.faults(&problem, &value)?, [""; 0]);
        let known = value["allowed"].as_str().and_then(|allowed| allowed.split_once(", which are "));
        let known: BTreeSet<_> = known.map(|(_, known)| known.split(", ").collect()).unwrap_or_default();
        assert_eq!(known, named.iter().filter_map(|named| named["name"].as_str()).collect(), "{path}");
    }
    Ok(())
}

/// A change to nonsense, for each that takes a body.
#[test]
fn every_refusal_is_a_problem() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let description = Description(server.operators().json("/api/openapi.json")?);
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let mut refused = 0;
    for (path, method, operation) in description.operations() {
        let Some(content) = operation["requestBody"]["content"].as_object() else { continue };
        let media_type = content.keys().next().map(String::as_str);
        let attempt = Try {
            operation: "",
            method: ["put", "post", "delete"].into_iter().find(|known| *known == method).unwrap_or("get"),
            path: path.replace("{imei}", IMEI),
            media_type: media_type
                .map(|named| if named == "text/csv" { "text/csv" } else { "application/json" }),
            body: "sheep".to_owned(),
        };
        let answer = ask(&server, &attempt)?;
        assert_eq!(answer.status(), 400, "{path}");
        let (_, value) = read(&operation["responses"]["default"]["content"], answer)?;
        assert_eq!(description.faults(&problem, &value)?, [""; 0], "{path}");
        refused += 1;
    }
    assert_eq!(refused, 4);
    Ok(())
}
