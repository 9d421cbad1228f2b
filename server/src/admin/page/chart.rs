//! Charts as inline SVG, drawn here from what the store keeps: the fleet over the last day, a device's signal over a week. All
//! of it is pure. They hold no text, so that they can be stretched to any width; what is to be read stands beside them.

use std::fmt::Write as _;

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::count;
use crate::store::{Hour, SLOT_MS, Slot, Span};

/// What the fleet's charts show.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// What a device's chart shows.
pub(super) const WEEK_MS: i64 = 7 * DAY_MS;

/// How much of the day one bar shows.
const BAR_MS: i64 = 30 * 60 * 1000;
const BARS: usize = 48;
/// Where a device told nothing for so long, its line is broken: it tells at least once a day.
const SIGNAL_GAP_MS: i64 = 26 * 60 * 60 * 1000;
/// What a modem can tell (3GPP TS 27.007 section 8.5), dBm.
const WEAKEST: i16 = -113;
const STRONGEST: i16 = -51;

/// The size of a drawing, in units of its own.
const WIDTH: f64 = 288.0;
const BAR_WIDTH: f64 = WIDTH / BARS as f64;
const HEIGHT: f64 = 60.0;

/// How many devices were online.
pub(super) fn online(slots: &[Slot], now_ms: i64) -> Markup {
    let start_ms = now_ms.saturating_sub(DAY_MS);
    let is_shown = |slot: &&Slot| slot.at_ms >= start_ms && slot.at_ms <= now_ms;
    let shown: Vec<&Slot> = slots.iter().filter(is_shown).collect();
    let most = shown.iter().map(|slot| slot.online).max().unwrap_or_default();
    let least = shown.iter().map(|slot| slot.online).min().unwrap_or_default();
    let top = round_up(most);
    // A slot tells how many were online at its end.
    let points = shown.iter().map(|slot| {
        let end_ms = slot.at_ms.saturating_add(SLOT_MS).min(now_ms);
        (end_ms, x(end_ms, start_ms, DAY_MS), HEIGHT - HEIGHT * slot.online as f64 / top as f64)
    });
    let (line, area) = paths(points, SLOT_MS + SLOT_MS / 2);
    let words = match shown.last() {
        Some(last) => {
            format!("now {}, least {}, most {}", count(last.online), count(least), count(most))
        }
        None => "nothing is known of it".to_owned(),
    };
    html! {
        figure.chart {
            figcaption { strong { "Online" } " in the last day: " (words) }
            div.plot {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
                    (grid())
                    path.area d=(area) {}
                    path.line d=(line) {}
                }
                (scale(&count(top), "0"))
            }
            (times(["24 h ago", "18 h", "12 h", "6 h", "now"]))
        }
    }
}

/// What of the fleet changed.
pub(super) fn changes(slots: &[Slot], now_ms: i64) -> Markup {
    // Whole half hours, so that bars stay as they are while time goes on.
    let start_ms =
        now_ms.saturating_sub(now_ms.rem_euclid(BAR_MS)).saturating_add(BAR_MS).saturating_sub(DAY_MS);
    let mut bars = vec![Slot::default(); BARS];
    for slot in slots {
        let place = slot.at_ms.saturating_sub(start_ms).div_euclid(BAR_MS);
        if let Some(bar) = usize::try_from(place).ok().and_then(|place| bars.get_mut(place)) {
            *bar = bar.then(*slot);
        }
    }
    let sum = |pick: fn(&Slot) -> u32| bars.iter().map(|bar| pick(bar) as usize).sum::<usize>();
    let above = bars.iter().map(|bar| bar.came.saturating_add(bar.refused)).max().unwrap_or_default();
    let below = bars.iter().map(|bar| bar.went).max().unwrap_or_default();
    let top = round_up(above.max(below) as usize);
    html! {
        figure.chart {
            figcaption {
                strong.came { "Came " (count(sum(|bar| bar.came))) } ", "
                strong.refused { "refused " (count(sum(|bar| bar.refused))) } ", "
                strong.went { "went " (count(sum(|bar| bar.went))) } " in the last day"
            }
            div.plot {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
                    (grid())
                    path.came d=(columns(&bars, top, |bar| (0, bar.came))) {}
                    path.refused d=(columns(&bars, top, |bar| (bar.came, bar.refused))) {}
                    path.went d=(columns(&bars, top, |bar| (0, bar.went)).replace("v-", "v")) {}
                    @for (place, bar) in (0..).zip(&bars) {
                        @if bar.came > 0 || bar.went > 0 || bar.refused > 0 { (hit(bar, place, start_ms)) }
                    }
                }
                (scale(&count(top), &count(top)))
            }
            (times(["24 h ago", "18 h", "12 h", "6 h", "now"]))
        }
    }
}

/// One bar for each that stands on others, up from the middle; `pick` says on how many, and how many it is itself.
fn columns(bars: &[Slot], top: usize, pick: fn(&Slot) -> (u32, u32)) -> String {
    let high = |number: u32| HEIGHT / 2.0 * f64::from(number) / top as f64;
    let mut path = String::new();
    for (place, bar) in (0..).zip(bars) {
        let (others, own) = pick(bar);
        if own > 0 {
            let left = f64::from(place) * BAR_WIDTH + 0.5;
            let (foot, width) = (tenths(HEIGHT / 2.0 - high(others)), BAR_WIDTH - 1.0);
            // Low ones are to be seen too. A `String` takes everything.
            let high = tenths(high(own).max(0.7));
            let _ = write!(path, "M{left} {foot}v-{high}h{width}V{foot}z");
        }
    }
    path
}

/// What the numbers of a bar are, for whoever points at it.
fn hit(bar: &Slot, place: i64, start_ms: i64) -> Markup {
    let from_ms = start_ms + place * BAR_MS;
    html! {
        path.hit d={ "M" (place as f64 * BAR_WIDTH) " 0h" (BAR_WIDTH) "V" (HEIGHT) "h-" (BAR_WIDTH) "z" } {
            title {
                (clock(from_ms)) "–" (clock(from_ms + BAR_MS)) " UTC: " (bar.came) " came, " (bar.refused)
                " refused, " (bar.went) " went"
            }
        }
    }
}

/// A device's signal over the last week; nothing where it told of none.
pub(super) fn signal(hours: &[Hour], now_ms: i64) -> Markup {
    let start_ms = now_ms.saturating_sub(WEEK_MS);
    let told: Vec<(i64, Span)> = hours
        .iter()
        .filter(|hour| hour.at_ms >= start_ms)
        .filter_map(|hour| Some((hour.at_ms, hour.signal?)))
        .collect();
    let (Some(weakest), Some(strongest)) =
        (told.iter().map(|(_, span)| span.min).min(), told.iter().map(|(_, span)| span.max).max())
    else {
        return html! {};
    };
    let y = |dbm: i16| {
        let dbm = dbm.clamp(WEAKEST, STRONGEST);
        HEIGHT * f64::from(STRONGEST - dbm) / f64::from(STRONGEST - WEAKEST)
    };
    let (line, _) = paths(
        told.iter().map(|(at_ms, span)| (*at_ms, x(*at_ms, start_ms, WEEK_MS), y(span.last))),
        SIGNAL_GAP_MS,
    );
    let mut ranges = String::new();
    for (at_ms, span) in &told {
        let x = tenths(x(*at_ms, start_ms, WEEK_MS));
        // A dot, where there is no range: a line without length has round ends.
        let _ = write!(ranges, "M{x} {}V{}", tenths(y(span.max)), tenths(y(span.min)));
    }
    html! {
        figure.chart.small {
            figcaption { "Signal in the last week: −" (weakest.unsigned_abs()) " to −" (strongest.unsigned_abs()) " dBm" }
            div.plot {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
                    (grid())
                    path.range d=(ranges) {}
                    path.line d=(line) {}
                }
                (scale("−51", "−113"))
            }
            (times(["7 days ago", "", "now"]))
        }
    }
}

/// A line through points in the order of their times, broken where two are further apart than `gap_ms`; and the area below it.
fn paths(points: impl Iterator<Item = (i64, f64, f64)>, gap_ms: i64) -> (String, String) {
    let (mut line, mut area) = (String::new(), String::new());
    let mut last: Option<(i64, f64)> = None;
    for (at_ms, x, y) in points {
        let goes_on = last.is_some_and(|(last_ms, _)| at_ms.saturating_sub(last_ms) <= gap_ms);
        let (px, py) = (tenths(x), tenths(y));
        // A `String` takes everything.
        if goes_on {
            let _ = write!(line, "L{px} {py}");
            let _ = write!(area, "L{px} {py}");
        } else {
            end_area(&mut area, last);
            // Without length, so that a lonely point is a dot.
            let _ = write!(line, "M{px} {py}h0");
            let _ = write!(area, "M{px} {HEIGHT}V{py}");
        }
        last = Some((at_ms, x));
    }
    end_area(&mut area, last);
    (line, area)
}

fn end_area(area: &mut String, last: Option<(i64, f64)>) {
    if last.is_some() {
        let _ = write!(area, "V{HEIGHT}Z");
    }
}

fn x(at_ms: i64, start_ms: i64, whole_ms: i64) -> f64 {
    (at_ms.saturating_sub(start_ms) as f64 / whole_ms as f64).clamp(0.0, 1.0) * WIDTH
}

/// A tenth of a unit is less than a pixel.
fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// The next number that is one digit and zeros, which leaves little room above it.
fn round_up(number: usize) -> usize {
    let mut step = 1_usize;
    loop {
        for round in [1, 2, 3, 4, 5, 6, 8] {
            let round = step.saturating_mul(round);
            if round >= number || round == usize::MAX {
                return round;
            }
        }
        step = step.saturating_mul(10);
    }
}

/// Hours and minutes, UTC.
fn clock(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map(|time| time.strftime("%H:%M").to_string()).unwrap_or_default()
}

fn grid() -> Markup {
    html! { path.grid d={ "M0 0H" (WIDTH) "M0 " (HEIGHT / 2.0) "H" (WIDTH) "M0 " (HEIGHT) "H" (WIDTH) } {} }
}

fn scale(top: &str, bottom: &str) -> Markup {
    html! { div.scale aria-hidden="true" { span { (top) } span { (bottom) } } }
}

fn times<const N: usize>(words: [&str; N]) -> Markup {
    html! { div.times aria-hidden="true" { @for word in words { span { (word) } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_764_000_000_000;

    fn slot(minutes_ago: i64, online: usize) -> Slot {
        let at_ms = NOW - minutes_ago * 60_000;
        Slot { at_ms: at_ms - at_ms.rem_euclid(SLOT_MS), online, came: 2, went: 1, refused: 0 }
    }

    fn attribute<'a>(drawn: &'a str, before: &str) -> &'a str {
        drawn.split_once(before).unwrap().1.split('"').next().unwrap()
    }

    #[test]
    fn line_goes_from_left_to_right_and_is_broken_where_the_server_did_not_run() {
        let drawn = online(&[slot(1440, 0), slot(1435, 5), slot(60, 10), slot(55, 10)], NOW).into_string();
        assert_eq!(attribute(&drawn, "class=\"line\" d=\""), "M1 60h0L2 30M277 0h0L278 0");
        assert_eq!(attribute(&drawn, "class=\"area\" d=\""), "M1 60V60L2 30V60ZM277 60V0L278 0V60Z");
        assert!(drawn.contains("now 10, least 0, most 10"), "{drawn}");
    }

    #[test]
    fn nothing_known_is_an_empty_chart() {
        let drawn = online(&[], NOW).into_string();
        assert_eq!(attribute(&drawn, "class=\"line\" d=\""), "");
        assert!(drawn.contains("nothing is known of it"), "{drawn}");
        assert!(changes(&[], NOW).into_string().contains("Came 0"));
        assert_eq!(signal(&[], NOW).into_string(), "");
    }

    #[test]
    fn slots_are_put_together_to_bars_that_fit() {
        // The half hour that begins now is shown too, and the oldest one no more.
        let day: Vec<_> = (1..=288).rev().map(|slots| Slot { refused: 3, ..slot(slots * 5, 7) }).collect();
        let drawn = changes(&day, NOW).into_string();
        assert!(
            drawn.contains("Came 564") && drawn.contains("refused 846") && drawn.contains("went 282"),
            "{drawn}"
        );
        assert_eq!(drawn.matches("<title>").count(), 47);
        assert!(drawn.contains("12 came, 18 refused, 6 went"), "{drawn}");
        assert!(attribute(&drawn, "class=\"refused\" d=\"").starts_with("M0.5 18v-18h5V18z"), "{drawn}");
        assert!(attribute(&drawn, "class=\"went\" d=\"").starts_with("M0.5 30v6h5V30z"), "{drawn}");
    }

    #[test]
    fn older_slots_and_clocks_that_jumped_draw_nothing() {
        let strange =
            [slot(3000, 5), Slot { at_ms: i64::MIN, ..slot(0, 1) }, Slot { at_ms: i64::MAX, ..slot(0, 1) }];
        assert!(!changes(&strange, NOW).into_string().contains("<title>"));
        let _ = online(&strange, i64::MIN);
        let _ = online(&strange, i64::MAX);
    }

    #[test]
    fn signal_has_its_range_and_a_gap() {
        let hour = |hours_ago: i64, last, min, max| Hour {
            at_ms: NOW - hours_ago * 3_600_000,
            signal: Some(Span { last, min, max }),
            operator: None,
            memory_kb: None,
            load: None,
            temperature: None,
        };
        let drawn = signal(&[hour(168, -113, -113, -51), hour(40, -51, -51, -51), hour(0, -82, -90, 7)], NOW);
        let drawn = drawn.into_string();
        assert_eq!(attribute(&drawn, "class=\"line\" d=\""), "M0 60h0M219.4 0h0M288 30h0");
        assert_eq!(attribute(&drawn, "class=\"range\" d=\""), "M0 0V60M219.4 0V0M288 0V37.7");
        assert!(drawn.contains("−113 to −7 dBm"), "{drawn}");
    }

    #[test]
    fn scales_end_in_round_numbers() {
        for (number, round) in
            [(0, 1), (1, 1), (7, 8), (11, 20), (230, 300), (98_231, 100_000), (usize::MAX, usize::MAX)]
        {
            assert_eq!(round_up(number), round);
        }
    }
}
