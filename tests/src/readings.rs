//! The real readings under examples/data as JSON payloads, in the publisher's order.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// One reading of one meter.
#[derive(Debug, Clone)]
pub struct Reading {
    pub meter: String,
    /// `YYYY-MM-DDThh:mm:ssZ`
    pub ts: String,
    /// The other fields, as JSON text without braces.
    pub fields: String,
}

impl Reading {
    /// The payload with the test's own sequence number in front.
    pub fn payload(&self, seq: u64) -> String {
        format!("{{\"seq\":{seq},\"meter\":\"{}\",\"ts\":\"{}\",{}}}", self.meter, self.ts, self.fields)
    }
}

fn lines(file: &str) -> Result<Vec<String>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/data").join(file);
    let packed = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let text = String::from_utf8(zstd::decode_all(packed.as_slice())?)?;
    Ok(text.lines().skip(1).map(str::to_owned).collect())
}

/// Half-hourly readings of forty London households.
pub fn london() -> Result<Vec<Reading>> {
    let lines = lines("london_30min_2013-02-04_2013-02-17_40_meters.csv.zst")?;
    lines
        .iter()
        .map(|line| {
            let mut columns = line.split(',');
            let (meter, time, energy) = (columns.next(), columns.next(), columns.next());
            let (meter, time, energy) = meter.zip(time).zip(energy).map(|((m, t), e)| (m, t, e)).context("columns")?;
            Ok(Reading {
                meter: meter.to_owned(),
                ts: format!("{}Z", time.replace(' ', "T")),
                fields: format!("\"energy_kwh\":{}", energy.trim()),
            })
        })
        .collect()
}

/// One-minute readings of a household near Paris; minutes without a reading are left out.
pub fn household() -> Result<Vec<Reading>> {
    let lines = lines("household_1min_2009-02-01_2009-02-07.csv.zst")?;
    let mut readings = Vec::with_capacity(lines.len());
    for line in lines.iter().filter(|line| !line.contains('?')) {
        let columns: Vec<&str> = line.split(',').collect();
        let [time, power, _, voltage, current, ..] = columns.as_slice() else { anyhow::bail!("columns: {line}") };
        readings.push(Reading {
            meter: "sceaux-1".to_owned(),
            ts: format!("{}Z", time.replace(' ', "T")),
            fields: format!("\"voltage\":{voltage},\"power_kw\":{power},\"current_a\":{current}"),
        });
    }
    Ok(readings)
}
