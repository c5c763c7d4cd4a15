//! Line plots as SVG text. Pure; a dozen lines of axis arithmetic are less than any plotting crate brings along.

use std::fmt::Write as _;

/// Size of a plot, and of its margins.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// About so many ticks an axis.
const TICKS: f64 = 5.0;
/// Points beyond these are lines only.
const DOTS_MAX: usize = 40;

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend; lines of one name share an entry.
    pub name: String,
    /// Which of the page's colours, from 0.
    pub colour: usize,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// A scale.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// By decades; what is not above 0 is left out.
    Log,
    /// Named places, by decades.
    Named(Vec<(f64, &'static str)>),
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// Names of the axes.
    pub axes: (&'static str, &'static str),
    /// Their scales.
    pub scales: (Scale, Scale),
    /// The lines.
    pub lines: Vec<Line>,
}

struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Plot {
    /// The plot as an `svg` element; empty where there is nothing to see.
    pub fn svg(&self) -> String {
        let Some((x, y)) = self.axes() else { return String::new() };
        let mut out = format!(
            "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><text class=\"title\" x=\"{LEFT}\" y=\"20\">{title}</text>",
            title = escape(self.title)
        );
        write_grid(&mut out, &x, &y);
        let (bottom, middle) = (HEIGHT - 8.0, (LEFT + WIDTH - RIGHT) / 2.0);
        let _ = write!(out, "<text class=\"axis\" x=\"{middle}\" y=\"{bottom}\">{}</text>", escape(self.axes.0));
        let _ = write!(
            out,
            "<text class=\"axis\" transform=\"translate(14 {}) rotate(-90)\">{}</text>",
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(self.axes.1)
        );
        for line in &self.lines {
            write_line(&mut out, line, &x, &y);
        }
        out.push_str("</svg><figcaption>");
        let mut named: Vec<&str> = Vec::new();
        for Line { name, colour, .. } in &self.lines {
            if !named.contains(&name.as_str()) {
                named.push(name);
                let _ = write!(out, "<span><i class=\"c{colour}\"></i>{}</span>", escape(name));
            }
        }
        out.push_str("</figcaption></figure>\n");
        out
    }

    fn axes(&self) -> Option<(Axis, Axis)> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        Some((
            Axis::of(&self.scales.0, points().map(|point| point.0))?,
            Axis::of(&self.scales.1, points().map(|point| point.1))?,
        ))
    }
}

impl Axis {
    fn of(scale: &Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let is_log = *scale != Scale::Linear;
        let values = values.filter(|value| value.is_finite() && (!is_log || *value > 0.0));
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        Some(match scale {
            Scale::Linear => Self::linear(low.min(0.0), high),
            Scale::Log => Self::decades(low, high),
            Scale::Named(places) => {
                let ticks = places.iter().filter(|(at, _)| *at <= high).map(|(at, name)| (*at, (*name).to_owned()));
                Self { low: low.min(1.0), high: high.max(low * 10.0), is_log, ticks: ticks.collect() }
            }
        })
    }

    fn linear(low: f64, high: f64) -> Self {
        let span = if high > low { high - low } else { 1.0 };
        let rough = span / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough).unwrap_or(rough);
        let high = low + (span / step).ceil() * step;
        let count = ((high - low) / step).round() as usize;
        let ticks = (0..=count).map(|at| low + at as f64 * step).map(|at| (at, short(at)));
        Self { low, high, is_log: false, ticks: ticks.collect() }
    }

    fn decades(low: f64, high: f64) -> Self {
        let (first, last) =
            (low.log10().floor() as i32, (high.log10().ceil() as i32).max(low.log10().floor() as i32 + 1));
        let ticks = (first..=last).map(|power| 10_f64.powi(power)).map(|at| (at, short(at)));
        Self { low: 10_f64.powi(first), high: 10_f64.powi(last), is_log: true, ticks: ticks.collect() }
    }

    /// 0 to 1 along the axis; nothing for what has no place on it.
    fn share(&self, value: f64) -> Option<f64> {
        if !value.is_finite() || (self.is_log && value <= 0.0) {
            return None;
        }
        Some(match self.is_log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        })
    }
}

fn x_of(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn y_of(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

fn write_grid(out: &mut String, x: &Axis, y: &Axis) {
    let (left, right, top, bottom) = (x_of(0.0), x_of(1.0), y_of(1.0), y_of(0.0));
    for (value, name) in &y.ticks {
        let Some(at) = y.share(*value).map(y_of) else { continue };
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    for (value, name) in &x.ticks {
        let Some(at) = x.share(*value).map(x_of) else { continue };
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/><text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{name}</text>",
            bottom + 16.0
        );
    }
}

fn write_line(out: &mut String, line: &Line, x: &Axis, y: &Axis) {
    let placed: Vec<(f64, f64, f64, f64)> = line
        .points
        .iter()
        .filter_map(|(at, value)| Some((x_of(x.share(*at)?), y_of(y.share(*value)?), *at, *value)))
        .collect();
    let Line { name, colour, .. } = line;
    for (at, (left, top, ..)) in placed.iter().enumerate() {
        let _ = match at {
            0 => write!(out, "<path class=\"line c{colour}\" d=\"M{left:.1} {top:.1}"),
            _ => write!(out, "L{left:.1} {top:.1}"),
        };
    }
    if !placed.is_empty() {
        out.push_str("\"/>");
    }
    for (left, top, at, value) in placed.iter().filter(|_| placed.len() <= DOTS_MAX) {
        let told = format!("{name}: {} at {}", short(*value), short(*at));
        let _ = write!(
            out,
            "<circle class=\"c{colour}\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"2.5\"><title>{}</title></circle>",
            escape(&told)
        );
    }
}

/// A number in few characters.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match size {
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, points: Vec<(f64, f64)>) -> Plot {
        let line = Line { name: "a<b".into(), colour: 0, points };
        Plot { title: "t", axes: ("x", "y"), scales: (Scale::Linear, scale), lines: vec![line.clone(), line] }
    }

    #[test]
    fn a_plot_has_its_points_inside_and_one_entry_a_name() {
        for scale in [Scale::Linear, Scale::Log] {
            let svg = plot(scale, vec![(0.0, 0.5), (1.0, 20.0), (2.0, 3000.0)]).svg();
            assert_eq!(svg.matches("<span>").count(), 1);
            assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{svg}");
            for circle in svg.split("cx=\"").skip(1) {
                let x: f64 = circle.split('"').next().expect("a place").parse().expect("a number");
                assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
            }
            for circle in svg.split("cy=\"").skip(1) {
                let y: f64 = circle.split('"').next().expect("a place").parse().expect("a number");
                assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
            }
        }
    }

    #[test]
    fn nothing_to_see_is_nothing_and_odd_numbers_are_left_out() {
        assert_eq!(plot(Scale::Linear, vec![]).svg(), "");
        assert_eq!(plot(Scale::Log, vec![(1.0, 0.0)]).svg(), "");
        let svg = plot(Scale::Log, vec![(0.0, 0.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 1.0)]).svg();
        assert_eq!(svg.matches("<circle").count(), 4, "two points of two lines");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 1.5, 20.0, 999.0, 1000.0, 12_500.0, 3_000_000.0].map(short);
        assert_eq!(shown, ["0", "0.25", "1.5", "20", "999", "1000", "12.5k", "3M"].map(str::to_owned));
    }
}
