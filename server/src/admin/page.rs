//! The page: what there is, and how many devices there are.

use axum::extract::State;
use axum::response::Html;

use super::Operators;
use crate::registry::Counts;

pub(super) async fn page(State(operators): State<Operators>) -> Html<String> {
    let Counts { online, known, .. } = operators.registry.counts();
    Html(format!(
        "<!doctype html>\n\
         <html lang=\"en\"><meta charset=\"utf-8\"><title>Moorline</title>\n\
         <h1>Moorline</h1>\n\
         <p>{online} of {known} devices are online.</p>\n\
         <ul>\n\
         <li><a href=\"/api/devices\">/api/devices</a>: all devices; with \
         <code>?online=true|false</code>, <code>?protocol=native|classic</code>, <code>?search=</code>, \
         <code>?limit=</code>, <code>?after=IMEI</code></li>\n\
         <li>/api/devices/IMEI: one device</li>\n\
         <li>/api/devices/IMEI/heartbeat: PUT <code>{{\"min_s\": 60, \"max_s\": 300}}</code> bounds its longest silence, \
         DELETE leaves that to the fleet's bounds</li>\n\
         <li>/api/devices/IMEI/state: PUT <code>{{\"state\": \"blocked\", \"reason\": \"stolen\"}}</code> keeps it out, \
         <code>active</code> lets it in again</li>\n\
         <li><a href=\"/api/events\">/api/events</a>: what happened; with <code>?after=ID</code>, \
         <code>?imei=</code>, <code>?limit=</code></li>\n\
         <li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\n\
         <li><a href=\"/healthz\">/healthz</a>, <a href=\"/readyz\">/readyz</a>: alive, ready</li>\n\
         </ul>\n"
    ))
}
