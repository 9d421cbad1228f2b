//! The pages as text.

use super::super::rig::Rig;
use crate::registry::Earlier;

#[test]
fn fleet_and_device_are_pages() {
    for rig in Rig::both() {
        let (status, media_type, text) = rig.text("/");
        assert_eq!((status, media_type.as_str()), (200, "text/html; charset=utf-8"));
        for wanted in
            ["<strong>3</strong> <span>offline</span>", "1–3", "of 3 in all", "/devices/869731052403821"]
        {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        assert!(text.contains("data-stream=\"/api/events/stream?after=3\""), "{text}");
        let (status, _, text) = rig.text("/devices/869731052403821");
        assert_eq!(status, 200);
        for wanted in ["CN=Fleet CA", "silent for too long", "Quectel EC25", "2033-05-18T03:33:20.000Z"] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        assert!(
            text.contains("data-stream=\"/api/events/stream?after=3&amp;imei=869731052403821\""),
            "{text}"
        );
    }
}

#[test]
fn form_may_send_empty_fields_and_links_keep_the_others() {
    let rig = Rig::memory();
    let (status, _, text) = rig.text("/?search=&online=&protocol=native&limit=1&after=");
    assert_eq!(status, 200);
    assert!(text.contains("of 2 that match"), "{text}");
    assert!(text.contains("href=\"/?protocol=native&amp;limit=1&amp;after=015184008301272\""), "{text}");
    let (_, _, text) = rig.text("/?search=a%26b%22c&limit=1&after=004999010640000");
    assert!(text.contains("href=\"/?search=a%26b%22c&amp;limit=1\""), "{text}");
}

#[test]
fn browsers_get_pages_of_mistakes_and_programs_get_problems() {
    let rig = Rig::memory();
    let ask = |path: &str, accept: &str| {
        rig.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        ))
    };
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    for (path, status) in [("/devices/990016259811154", 404), ("/?limit=0", 400), ("/nowhere", 404)] {
        let page = ask(path, browser).to_lowercase();
        assert!(page.starts_with(&format!("http/1.1 {status} ")), "{page}");
        assert!(
            page.contains("content-type: text/html") && page.contains("content-security-policy: "),
            "{page}"
        );
        assert!(page.contains("<h1>"), "{page}");
        for accept in ["*/*", "application/json", "application/json, text/html"] {
            assert!(ask(path, accept).contains("application/problem+json"), "{accept}");
        }
    }
    let foreign = "GET / HTTP/1.1\r\nHost: <b>.example\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    assert!(!rig.raw(foreign).contains("<b>"));
}

#[test]
fn assets_are_what_they_say() {
    let rig = Rig::memory();
    for (path, wanted) in [
        ("/assets/page.js", "text/javascript; charset=utf-8"),
        ("/assets/page.css", "text/css; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let (status, media_type, text) = rig.text(path);
        assert_eq!((status, media_type.as_str()), (200, wanted));
        // A page is light also where the line is not.
        assert!(text.len() < 16 * 1024, "{path}: {}", text.len());
    }
}

#[test]
fn earlier_page_is_found() {
    let rig = Rig::memory();
    let registry = &rig.operators.registry;
    let all = registry.list(&crate::registry::Filter::default(), None, 9).devices;
    let imei = |n: usize| all[n].imei;
    let earlier = |place, limit| registry.earlier(&crate::registry::Filter::default(), imei(place), limit);
    assert_eq!(earlier(2, 1), Earlier { count: 3, after: Some(imei(1)) });
    assert_eq!(earlier(1, 1), Earlier { count: 2, after: Some(imei(0)) });
    assert_eq!(earlier(0, 1), Earlier { count: 1, after: None });
    assert_eq!(earlier(2, 2), Earlier { count: 3, after: Some(imei(0)) });
    assert_eq!(earlier(2, 3), Earlier { count: 3, after: None });
}
