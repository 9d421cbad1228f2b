//! Bars as SVG, a panel for each quantity, for light and for dark pages. Every bar begins at 0, so that what is half as long is half as
//! much.

use std::fmt::Write as _;

/// One quantity of every client.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) digits: usize,
    pub(super) bars: Vec<(&'static str, f64)>,
}

const WIDTH: f64 = 420.0;
const NAMES: f64 = 130.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 34.0;

/// Two panels in a row.
pub(super) fn draw(panels: &[Panel]) -> String {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let height = HEAD + ROW * most as f64 + 16.0;
    let all = height * panels.len().div_ceil(2) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {all:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>\nrect {{ fill: #fff }} text {{ fill: #222 }} .bar {{ fill: #98a2ad }} .ours {{ fill: #2a7a52 }}\n\
         @media (prefers-color-scheme: dark) {{ rect {{ fill: #0d1117 }} text {{ fill: #ddd }} .bar {{ fill: #5a6672 }} \
         .ours {{ fill: #3fb37c }} }}\n</style>\n<rect width=\"100%\" height=\"100%\"/>\n",
        2.0 * WIDTH,
    );
    for (place, panel) in panels.iter().enumerate() {
        let (left, top) = ((place % 2) as f64 * WIDTH + 12.0, (place / 2) as f64 * height);
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            top + 22.0,
            panel.title
        );
        let longest = panel.bars.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        for (row, (name, value)) in panel.bars.iter().enumerate() {
            let y = top + HEAD + ROW * row as f64;
            let length = value / longest * (WIDTH - NAMES - 80.0);
            let class = if name.starts_with("agent") { "ours" } else { "bar" };
            let (bar, base) = (left + NAMES, y + 12.0);
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{name}</text>\
                 <path class=\"{class}\" d=\"M{bar:.0} {y:.0}h{length:.1}v16h-{length:.1}z\"/>\
                 <text x=\"{:.1}\" y=\"{base:.0}\">{value:.*}</text>",
                bar - 6.0,
                bar + length + 6.0,
                panel.digits,
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
