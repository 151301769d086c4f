//! Readings of about 200 bytes for the benches: the household's real values under the names of a fleet of meters.

use std::io::Read;

const HOUSEHOLD: &[u8] = include_bytes!("../../examples/data/household_1min_2009-02-01_2009-02-07.csv.zst");
const FIELDS: [&str; 7] = [
    "power_kw",
    "reactive_power_kvar",
    "voltage",
    "current_a",
    "sub_metering_1_wh",
    "sub_metering_2_wh",
    "sub_metering_3_wh",
];

/// The name of a meter of the fleet.
pub(crate) fn meter(index: usize) -> String {
    format!("MAC{index:06}")
}

/// `count` JSON readings, one of each meter, each with the values of another minute of the household.
pub(crate) fn payloads(count: usize) -> Vec<String> {
    let mut text = String::new();
    let mut unpacked = zstd::Decoder::new(HOUSEHOLD).expect("the readings are Zstandard");
    unpacked.read_to_string(&mut text).expect("the readings are text");
    let rows: Vec<&str> = text.lines().skip(1).filter(|line| !line.contains('?')).collect();
    let payload = |index: usize| {
        let (time, values) = rows[index * 37 % rows.len()].split_once(',').expect("a time, then values");
        let fields: Vec<String> =
            FIELDS.iter().zip(values.split(',')).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let (ts, fields) = (time.replace(' ', "T"), fields.join(","));
        format!("{{\"meter\":\"{}\",\"ts\":\"{ts}Z\",{fields}}}", meter(index))
    };
    (0..count).map(payload).collect()
}
