//! A report as one page that needs nothing else: tables, and plots as SVG.

mod plot;

use std::{collections::BTreeMap, fmt::Write as _};

use self::plot::{Line, Plot, Scale, escape, short};
use crate::{
    bench::{BenchReport, Compared},
    crowd::measure::Second,
    outcome::{FIGURES, Outcome, number},
    stats::Spread,
};

const STYLE: &str = include_str!("style.css");
/// Places of a latency plot: a quantile stands at `1 / (1 - quantile)`.
const PERCENTILES: [(f64, &str); 5] = [(1.0, "0"), (2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1000.0, "99.9 %")];
/// Where the largest value stands.
const LAST_PLACE: f64 = 20_000.0;
/// Colours that the style has.
const COLOURS: usize = 6;

/// The page of a report.
pub fn page(report: &BenchReport) -> String {
    let title = report.outcomes.first().map_or("loadtest", |outcome| &outcome.scenario.name);
    let about = report.outcomes.first().map_or("", |outcome| &outcome.scenario.about);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}: loadtest</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{}. {}.</p>\n",
        escape(about),
        escape(&report.machine),
        title = escape(title)
    );
    let (class, verdict) = if report.ok { ("good", "every check holds") } else { ("bad", "checks failed, see below") };
    let _ = writeln!(out, "<p class=\"{class}\">{verdict}</p>");
    if report.compared.is_empty() {
        write_runs(&mut out, report)
    } else {
        write_compared(&mut out, &report.compared)
    }
    out.push_str("<div class=\"plots\">\n");
    plots(report).iter().for_each(|plot| out.push_str(&plot.svg()));
    out.push_str("</div>\n");
    write_remarks(&mut out, report);
    out.push_str("</html>\n");
    out
}

fn write_runs(out: &mut String, report: &BenchReport) {
    let Some(first) = report.outcomes.first() else { return };
    out.push_str("<table><tr><th>figure</th>");
    for outcome in &report.outcomes {
        let _ = write!(out, "<th>{}, {} connections</th>", outcome.target, outcome.connections);
    }
    out.push_str("<th>unit</th></tr>\n");
    for name in &first.scenario.figures {
        let _ = write!(out, "<tr><td>{}</td>", escape(name));
        for outcome in &report.outcomes {
            let value = outcome.figure(name).map_or_else(|| "unknown".to_owned(), number);
            let _ = write!(out, "<td class=\"n\">{value}</td>");
        }
        let _ = writeln!(out, "<td>{}</td></tr>", unit(name));
    }
    out.push_str("</table>\n");
}

fn write_compared(out: &mut String, compared: &[Compared]) {
    let base = compared[0].servers.last().map_or("", |server| server.0);
    let _ = writeln!(
        out,
        "<table><tr><th>figure</th><th>connections</th><th>server</th><th>median</th><th>least to most</th><th>against {base}</th><th>least to most</th><th>unit</th></tr>"
    );
    for Compared { connections, figure, servers, .. } in compared {
        for (server, values, ratios) in servers {
            let _ = writeln!(
                out,
                "<tr><td>{figure}</td><td class=\"n\">{connections}</td><td>{server}</td>{}{}<td>{}</td></tr>",
                cells(values),
                cells(ratios),
                unit(figure)
            );
        }
    }
    out.push_str("</table>\n");
}

fn cells(spread: &Spread) -> String {
    match spread.count {
        0 => "<td class=\"n\">unknown</td><td></td>".to_owned(),
        _ => format!(
            "<td class=\"n\">{}</td><td class=\"n\">{} to {}</td>",
            number(spread.median),
            number(spread.min),
            number(spread.max)
        ),
    }
}

fn unit(name: &str) -> &'static str {
    FIGURES.iter().find(|figure| figure.name == name).map_or("", |figure| figure.unit)
}

fn write_remarks(out: &mut String, report: &BenchReport) {
    out.push_str("<h2>Runs</h2>\n<table><tr><th>server</th><th>connections</th><th>seconds</th><th>of</th><th>count</th><th>p50 ms</th><th>p99 ms</th><th>p99.9 ms</th><th>max ms</th><th>harness CPUs</th><th>remarks</th></tr>\n");
    for outcome in &report.outcomes {
        let remarks = match &outcome.harness.saturated {
            Some(why) => format!("harness saturated: {why}; {}", outcome.findings),
            None => outcome.findings.to_string(),
        };
        for (at, curve) in outcome.curves.iter().filter(|curve| curve.quantiles.count > 0).enumerate() {
            let q = &curve.quantiles;
            let (remarks, harness) =
                if at == 0 { (escape(&remarks), short(outcome.harness.cpu_share)) } else { Default::default() };
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td><td class=\"n\">{harness}</td><td>{remarks}</td></tr>",
                outcome.target,
                outcome.connections,
                outcome.seconds,
                escape(&curve.name),
                q.count,
                q.p50_ms,
                q.p99_ms,
                q.p999_ms,
                q.max_ms
            );
        }
    }
    out.push_str("</table>\n");
}

fn plots(report: &BenchReport) -> Vec<Plot> {
    let seconds = |title, axis, of: fn(&Second) -> f64| Plot {
        title,
        axes: ("seconds", axis),
        scales: (Scale::Linear, Scale::Linear),
        lines: lines(report, |outcome| outcome.series.iter().map(|second| (second.at_s, of(second))).collect()),
    };
    let mut plots = vec![
        Plot {
            title: "Latency from the intended time",
            axes: ("percentile", "ms"),
            scales: (Scale::Named(PERCENTILES.to_vec()), Scale::Log),
            lines: curves(report),
        },
        seconds("Deliveries or answers", "a second", |second| second.deliveries as f64),
        seconds("Latency, 99th percentile of each second", "ms", |second| second.p99_ms),
        seconds("CPUs of the server", "CPUs", |second| second.server_cpu),
        seconds("CPUs of the harness", "CPUs", |second| second.harness_cpu),
        seconds("Open connections", "", |second| second.open as f64),
    ];
    plots.extend(of_connections(report, "Cost against connections", "cpu_us_per_delivery", "µs of CPU a delivery"));
    plots.extend(of_connections(report, "Latency against connections", "p99_ms", "p99, ms"));
    plots.extend(of_connections(report, "Memory against connections", "resident_bytes_per_connection", "bytes each"));
    plots.retain(|plot| plot.lines.iter().any(|line| line.points.iter().any(|point| point.1 > 0.0)));
    plots
}

/// One line an outcome; those of one server and size share colour and name.
fn lines(report: &BenchReport, of: impl Fn(&Outcome) -> Vec<(f64, f64)>) -> Vec<Line> {
    let mut names: Vec<String> = Vec::new();
    let mut line = |outcome: &Outcome| {
        let name = name(report, outcome);
        let known = names.iter().position(|known| *known == name);
        let colour = known.unwrap_or(names.len()) % COLOURS;
        if known.is_none() {
            names.push(name.clone());
        }
        Line { name, colour, points: of(outcome) }
    };
    report.outcomes.iter().map(&mut line).collect()
}

fn name(report: &BenchReport, outcome: &Outcome) -> String {
    let is_sweep = report.outcomes.iter().any(|other| other.connections != outcome.connections);
    if is_sweep { format!("{}, {}", outcome.target, outcome.connections) } else { outcome.target.to_owned() }
}

/// The curve that a scenario is about: its first with values that is not of the harness itself.
fn curves(report: &BenchReport) -> Vec<Line> {
    let place = |quantile: f64| if quantile >= 1.0 { LAST_PLACE } else { 1.0 / (1.0 - quantile) };
    lines(report, |outcome| {
        let curve = outcome.curves.iter().find(|curve| curve.quantiles.count > 0 && curve.name != "sending");
        curve.map_or_else(Vec::new, |curve| curve.points.iter().map(|(quantile, ms)| (place(*quantile), *ms)).collect())
    })
}

/// A figure's median at each size, a line a server; nothing where there is one size only.
fn of_connections(report: &BenchReport, title: &'static str, figure: &str, unit: &'static str) -> Option<Plot> {
    let mut values: BTreeMap<(&str, usize), Vec<f64>> = BTreeMap::new();
    for outcome in &report.outcomes {
        values.entry((outcome.target, outcome.connections)).or_default().extend(outcome.figure(figure));
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut targets: Vec<&str> = report.outcomes.iter().map(|outcome| outcome.target).collect();
    targets.dedup();
    let colour = |target: &str| targets.iter().position(|known| *known == target).unwrap_or_default() % COLOURS;
    for ((target, connections), values) in values.into_iter().filter(|(_, values)| !values.is_empty()) {
        let point = (connections as f64, Spread::of(values).median);
        match lines.iter_mut().find(|line| line.name == target) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name: target.to_owned(), colour: colour(target), points: vec![point] }),
        }
    }
    let is_sweep = lines.iter().any(|line| line.points.len() > 1);
    is_sweep.then_some(Plot { title, axes: ("connections", unit), scales: (Scale::Linear, Scale::Linear), lines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::Findings,
        outcome::{Curve, Harness},
        report::latency,
        scenario::{Changes, Scenario},
    };

    fn outcome(target: &'static str, subscribers: usize) -> Outcome {
        let changes = Changes { subscribers: Some(subscribers), ..Changes::default() };
        let mut histogram = latency();
        (1..2000).for_each(|us| histogram.record(us).expect("in bounds"));
        let mut findings = Findings::default();
        findings.add("lost", "<script>alert(1)</script>");
        Outcome {
            target,
            scenario: Scenario::load("latency", &changes).expect("a scenario"),
            ok: true,
            connections: subscribers,
            seconds: 1.0,
            figures: BTreeMap::from([("p99_ms", 1.5), ("cpu_us_per_delivery", subscribers as f64)]),
            curves: vec![Curve::of("all", &histogram), Curve::of("sending", &latency())],
            series: (1..4).map(|at| Second { at_s: f64::from(at), deliveries: 10, ..Second::default() }).collect(),
            harness: Harness::default(),
            findings,
        }
    }

    #[test]
    fn a_page_needs_nothing_else_and_escapes_what_it_shows() {
        let outcomes = vec![outcome("ours", 10), outcome("ours", 20)];
        let report = BenchReport { ok: true, machine: "m".into(), outcomes, compared: Vec::new() };
        let page = page(&report);
        for outside in ["http:", "https:", "src=", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("Cost against connections") && page.contains("ours, 20"), "{page}");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(!page.contains("CPUs of the server"), "nothing but zeros");
    }

    #[test]
    fn a_comparison_shows_medians_and_ratios() {
        let spread = |value| Spread::of([value, value * 2.0, value * 3.0]);
        let servers = vec![("ours", spread(1.0), spread(1.1)), ("ideal", spread(1.0), Spread::default())];
        let compared = vec![Compared { connections: 10, figure: "p99_ms", more_is_better: false, servers }];
        let outcomes = vec![outcome("ours", 10), outcome("ideal", 10)];
        let page = page(&BenchReport { ok: false, machine: String::new(), outcomes, compared });
        assert!(page.contains("against ideal") && page.contains("1.100 to 3.300"), "{page}");
        assert!(page.contains("class=\"bad\"") && !page.contains("Cost against"), "{page}");
    }
}
