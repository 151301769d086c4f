//! The readings that a demo replays: real ones carried in the binary, or a CSV file of the user's.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use forebay_log::Millis;

/// Forty London households, half-hourly, two weeks of 2013 (UK Power Networks, CC BY 4.0).
const LONDON: &[u8] = include_bytes!("../../../examples/data/london_30min_2013-02-04_2013-02-17_40_meters.csv.zst");
/// One household near Paris, every minute of a week of 2009 (Hebrail and Berard, CC BY 4.0).
const HOUSEHOLD: &[u8] = include_bytes!("../../../examples/data/household_1min_2009-02-01_2009-02-07.csv.zst");
/// What the household's meter is called: its data has no name for it.
const HOUSEHOLD_METER: &str = "sceaux-1";

/// Names of the column that tells the meter, and of the one that tells the time.
const METER_COLUMNS: [&str; 5] = ["meter", "meter_id", "LCLid", "device", "id"];
const TIME_COLUMNS: [&str; 6] = ["ts", "time", "timestamp", "tstp", "date_time", "datetime"];
/// Columns of the publishers, and the fields that they become.
const FIELDS: [(&str, &str); 8] = [
    ("energy(kWh/hh)", "energy_kwh"),
    ("Global_active_power", "power_kw"),
    ("Global_reactive_power", "reactive_power_kvar"),
    ("Voltage", "voltage"),
    ("Global_intensity", "current_a"),
    ("Sub_metering_1", "sub_metering_1_wh"),
    ("Sub_metering_2", "sub_metering_2_wh"),
    ("Sub_metering_3", "sub_metering_3_wh"),
];

/// One meter and its readings, in the order of their time.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) name: String,
    /// The time at which the replay of this meter's data set begins.
    pub(crate) origin: Millis,
    readings: Vec<Reading>,
    /// The fields of all readings as JSON members, one text for all.
    members: String,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Millis,
    start: usize,
    end: usize,
}

impl Meter {
    pub(crate) fn len(&self) -> usize {
        self.readings.len()
    }

    /// When the reading is due, in milliseconds of the meters' time since the replay began.
    pub(crate) fn due(&self, index: usize) -> Option<i64> {
        self.readings.get(index).map(|reading| reading.at.0 - self.origin.0)
    }

    /// The payload of a reading, as a meter would send it, its time moved by `shift` milliseconds.
    pub(crate) fn payload(&self, index: usize, shift: i64) -> Option<String> {
        let reading = self.readings.get(index)?;
        let ts = chrono::DateTime::from_timestamp_millis(reading.at.0 + shift)?;
        let members = self.members.get(reading.start..reading.end)?;
        let meter = serde_json::Value::from(self.name.as_str());
        Some(format!("{{\"meter\":{meter},\"ts\":\"{}\",{members}}}", ts.format("%Y-%m-%dT%H:%M:%SZ")))
    }

    fn add(&mut self, at: Millis, members: &str) {
        let start = self.members.len();
        self.members.push_str(members);
        self.readings.push(Reading { at, start, end: self.members.len() });
    }
}

/// All meters of a demo.
#[derive(Debug)]
pub(crate) struct Readings {
    pub(crate) meters: Vec<Meter>,
    /// Milliseconds of the meters' time from the first reading to the last, over all data sets.
    pub(crate) span: i64,
    /// For the first line of the demo.
    pub(crate) description: String,
}

impl Readings {
    /// The real readings in the binary.
    ///
    /// # Errors
    /// None but for a broken build.
    pub(crate) fn embedded() -> anyhow::Result<Readings> {
        let mut meters = parse(&unpack(LONDON)?, "london").context("embedded London readings")?;
        meters.extend(parse(&unpack(HOUSEHOLD)?, HOUSEHOLD_METER).context("embedded household readings")?);
        let description = "real: London, half-hourly, 2013; near Paris, every minute, 2009";
        Ok(Readings::new(meters, description.to_owned()))
    }

    /// A CSV file, or one compressed with Zstandard, with a header line: a column for the meter, one for the time, the
    /// others become fields.
    ///
    /// # Errors
    /// What cannot be read, with its line.
    pub(crate) fn from_file(path: &Path) -> anyhow::Result<Readings> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_zstd = path.extension().is_some_and(|extension| extension == "zst");
        let text = if is_zstd { unpack(&bytes).with_context(|| path.display().to_string())? } else { bytes };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let meter = name.split('.').next().unwrap_or("meter").to_owned();
        let meters = parse(&text, &meter).with_context(|| path.display().to_string())?;
        Ok(Readings::new(meters, format!("from {name}")))
    }

    fn new(meters: Vec<Meter>, description: String) -> Readings {
        let last = |meter: &Meter| meter.due(meter.len().saturating_sub(1)).unwrap_or_default();
        let span = meters.iter().map(last).max().unwrap_or_default();
        Readings { meters, span, description }
    }

    pub(crate) fn len(&self) -> usize {
        self.meters.iter().map(Meter::len).sum()
    }
}

fn unpack(packed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    zstd::stream::read::Decoder::new(packed)?.read_to_end(&mut text).context("not Zstandard data")?;
    Ok(text)
}

/// Reads one data set; `single` names the meter where no column does.
fn parse(text: &[u8], single: &str) -> anyhow::Result<Vec<Meter>> {
    let mut csv = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let header = csv.headers().context("no header line")?.clone();
    let find = |names: &[&str]| header.iter().position(|column| names.contains(&column));
    let Some(time) = find(&TIME_COLUMNS) else {
        bail!("no column for the time: the header must have one of {}", TIME_COLUMNS.join(", "));
    };
    let meter = find(&METER_COLUMNS);
    let fields: Vec<(usize, String)> = header
        .iter()
        .enumerate()
        .filter(|&(index, _)| index != time && Some(index) != meter)
        .map(|(index, column)| (index, field_name(column)))
        .collect();

    let mut meters: Vec<Meter> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut row = csv::StringRecord::new();
    let mut members = String::new();
    while csv.read_record(&mut row)? {
        members.clear();
        for (index, name) in &fields {
            put_member(&mut members, name, row.get(*index).unwrap_or_default());
        }
        // A row without a value is a reading that never came.
        if members.is_empty() {
            continue;
        }
        let stamp = row.get(time).unwrap_or_default();
        let line = row.position().map_or(0, csv::Position::line);
        let at = forebay_sinks::time::parse_plain(stamp)
            .with_context(|| format!("line {line}: \"{stamp}\" is not a time"))?;
        let name = meter.and_then(|index| row.get(index)).unwrap_or(single);
        let index = *by_name.entry(name.to_owned()).or_insert_with(|| {
            meters.push(Meter { name: name.to_owned(), origin: at, readings: Vec::new(), members: String::new() });
            meters.len() - 1
        });
        meters[index].add(at, &members);
    }
    let Some(origin) = meters.iter().flat_map(|m| m.readings.iter().map(|r| r.at)).min() else {
        bail!("no readings in it");
    };
    for meter in &mut meters {
        meter.origin = origin;
        meter.readings.sort_by_key(|reading| reading.at);
        if meter.name.is_empty() || meter.name.contains(['+', '#', '/', '\0']) {
            bail!("\"{}\" cannot be a meter: its name becomes a level of an MQTT topic", meter.name);
        }
    }
    Ok(meters)
}

fn field_name(column: &str) -> String {
    match FIELDS.iter().find(|(theirs, _)| *theirs == column) {
        Some((_, ours)) => (*ours).to_owned(),
        None => column.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect(),
    }
}

/// Adds `"name":value`; the number's text stays the publisher's. `?` and nothing are missing values.
fn put_member(members: &mut String, name: &str, value: &str) {
    if value.is_empty() || value == "?" {
        return;
    }
    if !members.is_empty() {
        members.push(',');
    }
    members.push_str(&serde_json::Value::from(name).to_string());
    members.push(':');
    match serde_json::from_str::<serde_json::Number>(value) {
        Ok(_) => members.push_str(value),
        Err(_) => members.push_str(&serde_json::Value::from(value).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_readings_are_all_there_and_keep_their_text() {
        let readings = Readings::embedded().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(readings.meters.len(), 41);
        assert_eq!(readings.len(), 26_872 + 10_080 - 38);
        let first = readings.meters[0].payload(0, 0);
        assert_eq!(first.as_deref(), Some(r#"{"meter":"MAC000002","ts":"2013-02-04T00:00:00Z","energy_kwh":0.267}"#));
        let household = &readings.meters[40];
        assert_eq!(household.name, HOUSEHOLD_METER);
        let payload = household.payload(1, 86_400_000).unwrap_or_default();
        assert!(
            payload.starts_with(r#"{"meter":"sceaux-1","ts":"2009-02-02T00:01:00Z","power_kw":3.428,"#),
            "{payload}"
        );
        assert_eq!(household.due(1), Some(60_000));
    }

    #[test]
    fn a_file_of_ones_own_needs_only_a_time_column() {
        let text = b"Time,Volts A,state\n2024-01-01T00:00:10Z,230.5,ok\n1704067200,231,\n";
        let lower = String::from_utf8_lossy(text).replace("Time", "time");
        let meters = parse(lower.as_bytes(), "mine").unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(
            meters[0].payload(0, 0).as_deref(),
            Some(r#"{"meter":"mine","ts":"2024-01-01T00:00:00Z","volts_a":231}"#)
        );
        assert_eq!(
            meters[0].payload(1, 0).as_deref().map(|p| p.ends_with(r#""volts_a":230.5,"state":"ok"}"#)),
            Some(true)
        );
        let error = parse(text, "mine").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("no column for the time"), "{error}");
    }

    #[test]
    fn a_time_that_is_none_names_its_line() {
        let error = parse(b"meter,ts,v\na,2024-01-01,1\n", "x").err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(error, "line 2: \"2024-01-01\" is not a time");
    }
}
