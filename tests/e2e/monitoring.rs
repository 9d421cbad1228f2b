//! The dashboard and the alerts that are shipped: right by Prometheus's own tool, and about what the server shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moorline_protocol::{Imei, ServerMessage};
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::promtool;
use moorline_testbed::rig::{IMEI, Rig};
use serde_json::Value;

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn rules() -> Result<String, Failure> {
    Ok(fs::read_to_string(source("packaging/monitoring/moorline.rules.yml"))?)
}

fn dashboard() -> Result<Value, Failure> {
    Ok(serde_json::from_str(&fs::read_to_string(source("packaging/monitoring/moorline.dashboard.json"))?)?)
}

/// Every expression of the dashboard.
fn expressions(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let of_panels = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let of_annotations = dashboard["annotations"]["list"].as_array().into_iter().flatten();
    of_panels.chain(of_annotations).filter_map(|target| target["expr"].as_str()).collect()
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("moorline_") || word.starts_with("process_"));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

#[test]
fn every_metric_that_is_looked_at_is_there() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.set("tls.crl", rig.pki().crl(&[])?.display()).start()?;
    // Some series come with what they count: a device that is refused, and one that comes and goes.
    let imei: Imei = IMEI.parse()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei)?))?;
    drop(Settings::new(rig.pki(), None)?.connect(server.devices()).map(|mut client| client.end()));
    let mut client = settings.connect(server.devices())?;
    client.say_hello(imei)?;
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    client.cut()?;
    server.operators().wait_events(IMEI, &["online", "offline"])?;
    let text = server.operators().text("/metrics")?;
    let shown: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let dashboard = dashboard()?;
    let queries = &dashboard["templating"]["list"];
    let looked_at = names(&[expressions(&dashboard).join("\n"), queries.to_string(), rules()?].join("\n"));
    assert!(looked_at.len() > 30, "{looked_at:?}");
    let missing: Vec<_> = looked_at.difference(&shown).collect();
    assert!(missing.is_empty(), "{missing:?} is not in\n{text}");
    // And none is kept from those who look.
    let guide = fs::read_to_string(source("docs/operating.md"))?;
    let mentioned = names(&guide);
    let untold: Vec<_> = shown
        .iter()
        .filter(|name| {
            !name.starts_with("process_") && !looked_at.contains(*name) && !mentioned.contains(*name)
        })
        .collect();
    assert!(untold.is_empty(), "{untold:?} is in no panel, no alert and not in the guide");
    Ok(())
}

#[test]
fn rules_stand_promtools_judgement() -> Result<(), Failure> {
    let rules = source("packaging/monitoring/moorline.rules.yml");
    promtool::judge(&["check", "rules", &rules.display().to_string()], "")
}

#[test]
fn alerts_fire_when_they_should_and_not_else() -> Result<(), Failure> {
    promtool::judge(&["test", "rules", &source("tests/monitoring/rules-test.yml").display().to_string()], "")
}

#[test]
fn every_alert_is_tried_and_explained() -> Result<(), Failure> {
    let (rules, guide) = (rules()?, fs::read_to_string(source("docs/operating.md"))?);
    let tried = fs::read_to_string(source("tests/monitoring/rules-test.yml"))?;
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        assert!(guide.contains(&format!("`{alert}`")), "docs/operating.md says nothing of {alert}");
        assert!(tried.contains(alert), "{alert} is not tried");
    }
    Ok(())
}

#[test]
fn dashboards_queries_are_understood() -> Result<(), Failure> {
    let dashboard = dashboard()?;
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        }
    }
    // As rules, which promtool reads; Grafana's own variables in words that it knows.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yml");
    let mut text = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in expressions(&dashboard).iter().enumerate() {
        let expression =
            expression.replace("$__rate_interval", "5m").replace("$job", "a").replace("$instance", "b");
        assert!(!expression.contains('$'), "{expression}");
        text += &format!("  - record: panel:{number}\n    expr: {}\n", Value::from(expression));
    }
    fs::write(&file, text)?;
    promtool::judge(&["check", "rules", &file.display().to_string()], "")
}
