//! A chart of lines as SVG: something over the number of sessions, a line for each server.

use std::fmt::Write as _;

const COLOURS: [&str; 5] = ["#2a7", "#27a", "#c33", "#a72", "#777"];
const LEFT: f64 = 70.0;
const WIDTH: f64 = 560.0;
const TOP: f64 = 40.0;
const HEIGHT: f64 = 240.0;

/// One line: its name, and its points.
pub(super) type Line = (String, Vec<(f64, f64)>);

/// Draws it. Both axes begin at 0, so that what is half as high is half as much.
pub(super) fn chart(title: &str, unit: &str, lines: &[Line]) -> String {
    let most = |pick: fn(&(f64, f64)) -> f64| {
        lines.iter().flat_map(|(_, points)| points.iter().map(pick)).fold(1.0, f64::max)
    };
    let (right, top) = (most(|point| point.0), most(|point| point.1) * 1.1);
    let x = |value: f64| LEFT + value / right * WIDTH;
    let y = |value: f64| TOP + HEIGHT - value / top * HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 320\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"840\" height=\"320\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{title}</text>\n"
    );
    for part in 0..=4 {
        let (value, sessions) = (top * f64::from(part) / 4.0, right * f64::from(part) / 4.0);
        let _ = writeln!(
            svg,
            "<path stroke=\"#ddd\" d=\"M{LEFT} {at:.0}h{WIDTH}\"/>\
             <text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{value:.0}</text>\
             <text x=\"{:.0}\" y=\"{}\" text-anchor=\"middle\">{sessions:.0}</text>",
            LEFT - 6.0,
            y(value) + 4.0,
            x(sessions),
            TOP + HEIGHT + 18.0,
            at = y(value),
        );
    }
    for (place, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let path: Vec<_> =
            points.iter().map(|(at, value)| format!("{:.0} {:.0}", x(*at), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" d=\"M{}\"/>",
            path.join("L")
        );
        for (at, value) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.0}\" cy=\"{:.0}\" r=\"3\" fill=\"{colour}\"/>",
                x(*at),
                y(*value)
            );
        }
        let row = TOP + 14.0 + 18.0 * place as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{row:.0}\" fill=\"{colour}\">{name}</text>",
            LEFT + WIDTH + 12.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">sessions</text>\n<text x=\"{LEFT}\" y=\"34\" fill=\"#555\">{unit}</text>\n</svg>",
        TOP + HEIGHT + 36.0
    );
    svg
}
