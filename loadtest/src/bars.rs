//! Recorded OHLCV bars from a CSV file, and the updates that a feed would have sent while each bar was open.
//!
//! A number leaves exactly as it stands in the file: no price is ever parsed and printed again. Within a symbol the
//! times rise, so that every payload of a tag occurs once and can be recognised. No clock, no socket.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};

/// Most rows that are read of a file.
const BARS_MAX: usize = 1_000_000;

/// One recorded bar; every number is JSON text as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The symbol, part of the tag.
    pub symbol: String,
    /// When the bar opens, Unix milliseconds.
    pub open_time_ms: i64,
    /// Price at the open.
    pub open: String,
    /// Highest price.
    pub high: String,
    /// Lowest price.
    pub low: String,
    /// Price at the close.
    pub close: String,
    /// Traded volume of the whole bar.
    pub volume: String,
}

/// One publication to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Index into [`Plan::tags`].
    pub tag: usize,
    /// How many updates of the same tag come before it.
    pub index: usize,
    /// When it is meant to leave, since the start: latency is measured from here, whenever it really leaves.
    pub due: Duration,
    /// The bar as JSON.
    pub payload: String,
    /// A closed bar: never to be merged away.
    pub keep: bool,
}

/// All publications of a run, in the order in which they are meant to leave.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The names of the tags, `<prefix><symbol>.<interval>`.
    pub tags: Vec<String>,
    /// The updates, by `due`.
    pub updates: Vec<Update>,
    /// How many bars they are the life of.
    pub bars: usize,
}

/// How a plan is made of bars.
pub struct PlanSettings<'a> {
    /// What a tag begins with, for example `kline.`.
    pub prefix: &'a str,
    /// The bars' interval, for example `1d`.
    pub interval: &'a str,
    /// Bars a second, all symbols together.
    pub rate: f64,
    /// Most bars of the plan; 0 is all.
    pub bars_max: usize,
}

/// Reads a CSV file with a header that names at least `open high low close volume`, one of `date time timestamp t`
/// (Unix seconds, Unix milliseconds or `YYYY-MM-DD`, with `THH:MM:SSZ` or not), and perhaps `symbol` or `ticker`. The
/// bars come back ordered by time, then symbol.
pub fn read(text: &str, symbol_default: &str) -> Result<Vec<Bar>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().context("the file is empty")?;
    let columns = Columns::of(header)?;
    let mut bars = Vec::new();
    for (at, line) in lines {
        ensure!(bars.len() < BARS_MAX, "more than {BARS_MAX} rows");
        bars.push(columns.bar(line, symbol_default).with_context(|| format!("line {}", at + 1))?);
    }
    bars.sort_by(|a, b| (a.open_time_ms, &a.symbol).cmp(&(b.open_time_ms, &b.symbol)));
    for pair in bars.windows(2) {
        let same = (pair[0].open_time_ms, &pair[0].symbol) == (pair[1].open_time_ms, &pair[1].symbol);
        ensure!(!same, "two bars of {} at {}", pair[0].symbol, pair[0].open_time_ms);
    }
    Ok(bars)
}

/// Lays the bars on a timetable: `rate` bars a second, each bar's updates evenly inside its slot.
pub fn plan(bars: &[Bar], settings: &PlanSettings<'_>) -> Plan {
    let count = if settings.bars_max == 0 { bars.len() } else { settings.bars_max.min(bars.len()) };
    let slot = 1.0 / settings.rate;
    let mut plan = Plan { bars: count, ..Plan::default() };
    let mut tags: HashMap<&str, (usize, usize)> = HashMap::new();
    for (number, bar) in bars[..count].iter().enumerate() {
        let (tag, sent) = tags.entry(&bar.symbol).or_insert_with(|| {
            plan.tags.push(format!("{}{}.{}", settings.prefix, bar.symbol, settings.interval));
            (plan.tags.len() - 1, 0)
        });
        let walk = walk(bar, settings.interval);
        let steps = walk.len();
        for (step, (payload, keep)) in walk.into_iter().enumerate() {
            let due = Duration::from_secs_f64(slot * (number as f64 + step as f64 / steps as f64));
            plan.updates.push(Update { tag: *tag, index: *sent, due, payload, keep });
            *sent += 1;
        }
    }
    plan
}

/// The life of a bar: open, then high, low and close as they are reached, then the closed bar. A step that says
/// nothing new is left out (a node may pass over a value that equals the last).
fn walk(bar: &Bar, interval: &str) -> Vec<(String, bool)> {
    let Bar { open, high, low, close, .. } = bar;
    let part = |quarters: u128| match bar.volume.parse::<u128>() {
        Ok(volume) => (volume / 4 * quarters).to_string(),
        Err(_) => bar.volume.clone(),
    };
    let steps = [
        (open, open, open, part(1), false),
        (high, open, high, part(2), false),
        (high, low, low, part(3), false),
        (high, low, close, part(4), false),
        (high, low, close, bar.volume.clone(), true),
    ];
    let mut payloads: Vec<(String, bool)> = steps
        .into_iter()
        .map(|(high, low, now, volume, closed)| {
            let (symbol, t) = (&bar.symbol, bar.open_time_ms);
            let text = format!(
                r#"{{"symbol":"{symbol}","interval":"{interval}","t":{t},"o":{open},"h":{high},"l":{low},"c":{now},"v":{volume},"closed":{closed}}}"#
            );
            (text, closed)
        })
        .collect();
    payloads.dedup();
    payloads
}

struct Columns {
    symbol: Option<usize>,
    time: usize,
    numbers: [usize; 5],
}

impl Columns {
    fn of(header: &str) -> Result<Self> {
        let names: Vec<String> =
            header.split(',').map(|name| name.trim().trim_matches('"').to_ascii_lowercase()).collect();
        let find = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
        let need = |wanted: &[&str]| find(wanted).with_context(|| format!("no column {}", wanted.join(" or ")));
        Ok(Self {
            symbol: find(&["symbol", "ticker"]),
            time: need(&["date", "time", "timestamp", "t", "open_time"])?,
            numbers: [need(&["open"])?, need(&["high"])?, need(&["low"])?, need(&["close"])?, need(&["volume"])?],
        })
    }

    fn bar(&self, line: &str, symbol_default: &str) -> Result<Bar> {
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let field = |at: usize| fields.get(at).copied().context("too few fields");
        let number = |at: usize| {
            let text = field(at)?;
            ensure!(is_json_number(text), "{text:?} is no JSON number");
            anyhow::Ok(text.to_owned())
        };
        let symbol = self.symbol.map_or(Ok(symbol_default), field)?;
        ensure!(is_tag_part(symbol), "{symbol:?} does not fit into a tag");
        let [open, high, low, close, volume] = self.numbers;
        Ok(Bar {
            symbol: symbol.to_owned(),
            open_time_ms: parse_time(field(self.time)?)?,
            open: number(open)?,
            high: number(high)?,
            low: number(low)?,
            close: number(close)?,
            volume: number(volume)?,
        })
    }
}

/// Whether `text` may be part of a tag.
pub fn is_tag_part(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:@/-".contains(&byte))
}

fn is_json_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

fn parse_time(text: &str) -> Result<i64> {
    if let Ok(number) = text.parse::<i64>() {
        // Seconds reach this only in the year 5138, milliseconds passed it in 1973.
        return Ok(if number.abs() < 100_000_000_000 { number * 1000 } else { number });
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "0:0:0"));
    let [year, month, day] = three(date, '-').with_context(|| format!("{text:?} is no time"))?;
    let [hour, minute, second] =
        three(time.trim_end_matches('Z'), ':').with_context(|| format!("{text:?} is no time"))?;
    let plausible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !plausible {
        bail!("{text:?} is no time");
    }
    Ok((days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
}

fn three(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<u32>().ok().map(i64::from));
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in eras of 400 years from 1 March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    //! Method: small files by hand, and the recorded file that is shipped.
    use std::collections::HashSet;

    use super::*;

    const SHIPPED: &str = include_str!("../data/stocks.csv");

    fn planned(text: &str) -> Plan {
        let settings = PlanSettings { prefix: "kline.", interval: "1d", rate: 10.0, bars_max: 0 };
        plan(&read(text, "X").expect("a good file"), &settings)
    }

    #[test]
    fn numbers_leave_as_they_stand_in_the_file() {
        let plan = planned("Date,Open,High,Low,Close,Volume\n2012-01-03,1.10,2.00,0.50,1.500,7\n");
        let last = plan.updates.last().expect("updates");
        let expected = r#"{"symbol":"X","interval":"1d","t":1325548800000,"o":1.10,"h":2.00,"l":0.50,"c":1.500,"v":7,"closed":true}"#;
        assert_eq!(last.payload, expected);
        assert!(last.keep);
        assert_eq!(plan.tags, ["kline.X.1d"]);
        assert!(plan.updates[0].payload.contains(r#""h":1.10,"l":1.10,"c":1.10,"v":1,"closed":false"#));
    }

    #[test]
    fn a_bar_that_never_moved_is_published_without_repeats() {
        let plan = planned("t,open,high,low,close,volume\n1,5,5,5,5,0\n2,5,5,5,5,0\n");
        assert_eq!(plan.updates.len(), 4, "{:?}", plan.updates);
    }

    #[test]
    fn the_timetable_keeps_the_rate_and_never_goes_back() {
        let plan = planned(SHIPPED);
        assert_eq!(plan.bars, 1396);
        assert!(plan.updates.windows(2).all(|pair| pair[0].due <= pair[1].due));
        assert_eq!(plan.updates.last().expect("updates").due.as_secs_f64().round(), 140.0);
    }

    #[test]
    fn no_payload_of_the_shipped_bars_occurs_twice_and_all_are_json() {
        let plan = planned(SHIPPED);
        let distinct: HashSet<&str> = plan.updates.iter().map(|update| update.payload.as_str()).collect();
        assert_eq!(distinct.len(), plan.updates.len());
        for update in &plan.updates {
            serde_json::from_str::<serde_json::Value>(&update.payload).expect("JSON");
        }
        assert_eq!(plan.updates.iter().filter(|update| update.keep).count(), plan.bars);
    }

    #[test]
    fn bad_files_are_refused_with_the_line() {
        let refused = |text: &str| format!("{:#}", read(text, "X").expect_err("refused"));
        let head = "t,open,high,low,close,volume\n";
        assert!(refused("open,close\n1,2\n").contains("no column date"));
        assert!(refused(&format!("{head}1,.5,2,1,1,1\n")).contains("line 2: \".5\" is no JSON number"));
        assert!(refused(&format!("{head}1,1,2,1\n")).contains("too few fields"));
        assert!(refused(&format!("{head}1,1,2,1,1,1\n1,1,2,1,1,1\n")).contains("two bars"));
        assert!(refused(&format!("{head}soon,1,2,1,1,1\n")).contains("no time"));
    }

    #[test]
    fn times_are_read_in_every_form() {
        for text in ["2012-02-29", "2012-02-29T00:00:00Z", "2012-02-29 00:00:00", "1330473600", "1330473600000"] {
            assert_eq!(parse_time(text).expect("a time"), 1_330_473_600_000, "{text}");
        }
        assert!(parse_time("2012-13-01").is_err());
    }
}
