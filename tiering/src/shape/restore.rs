//! A record batch back into records: offsets, timestamps, keys, headers and payloads as appended.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, BinaryArray, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use forebay_log::{Millis, Offset};

use super::encode::Encoder;
use super::names;
use super::schema::Shape;

/// Reads the rows of one record batch as records.
pub struct Restorer<'a> {
    encoder: Encoder<'a>,
    offsets: &'a Int64Array,
    timestamps: &'a TimestampMicrosecondArray,
    keys: &'a BinaryArray,
    headers: &'a ListArray,
    header_names: &'a StringArray,
    header_values: &'a BinaryArray,
    values: &'a BinaryArray,
    text: String,
    names: Vec<u8>,
    name_ends: Vec<usize>,
}

/// One record; its fields live until the next is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct RestoredRecord<'r> {
    pub offset: Offset,
    pub timestamp: Millis,
    pub key: Option<&'r [u8]>,
    pub value: Option<&'r [u8]>,
    pub headers: Vec<(&'r [u8], Option<&'r [u8]>)>,
}

impl<'a> Restorer<'a> {
    /// `None` if the batch has not the columns of the shape.
    pub fn new(shape: &Shape, batch: &'a RecordBatch) -> Option<Restorer<'a>> {
        let column = |name: &str| batch.column_by_name(name);
        let headers: &ListArray = column("_headers")?.as_list_opt()?;
        let entries = headers.values().as_struct_opt()?;
        Some(Restorer {
            encoder: Encoder::new(shape, column)?,
            offsets: column("_offset")?.as_primitive_opt::<Int64Type>()?,
            timestamps: column("_timestamp")?.as_primitive_opt::<TimestampMicrosecondType>()?,
            keys: column("_key")?.as_binary_opt()?,
            headers,
            header_names: entries.column_by_name("name")?.as_string_opt()?,
            header_values: entries.column_by_name("value")?.as_binary_opt()?,
            values: column("_value")?.as_binary_opt()?,
            text: String::new(),
            names: Vec::new(),
            name_ends: Vec::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub fn offset(&self, row: usize) -> Offset {
        Offset(self.offsets.value(row))
    }

    pub fn timestamp(&self, row: usize) -> Millis {
        Millis(self.timestamps.value(row).div_euclid(1000))
    }

    /// The record of a row.
    pub fn record(&mut self, row: usize) -> RestoredRecord<'_> {
        let value = if self.values.is_valid(row) {
            Some(self.values.value(row))
        } else if self.encoder.write(row, &mut self.text) {
            Some(self.text.as_bytes())
        } else {
            None
        };
        self.names.clear();
        self.name_ends.clear();
        let entries = if self.headers.is_valid(row) {
            let ends = self.headers.value_offsets();
            let at = |end: i32| usize::try_from(end).unwrap_or(0);
            at(ends[row])..at(ends[row + 1])
        } else {
            0..0
        };
        for at in entries.clone() {
            names::to_bytes(self.header_names.value(at), &mut self.names);
            self.name_ends.push(self.names.len());
        }
        let mut start = 0;
        let headers = entries
            .zip(&self.name_ends)
            .map(|(at, end)| {
                let name = &self.names[start..*end];
                start = *end;
                (name, self.header_values.is_valid(at).then(|| self.header_values.value(at)))
            })
            .collect();
        RestoredRecord {
            offset: Offset(self.offsets.value(row)),
            timestamp: Millis(self.timestamps.value(row).div_euclid(1000)),
            key: self.keys.is_valid(row).then(|| self.keys.value(row)),
            value,
            headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use forebay_log::record::{Record, RecordHeader};
    use proptest::prelude::*;

    use super::super::{Inference, Shaper};
    use super::*;

    fn record(offset: i64, value: Option<&[u8]>) -> Record {
        Record {
            offset: Offset(offset),
            timestamp: Millis(1_700_000_000_123 + offset),
            key: (offset % 2 == 0).then(|| Bytes::from(format!("meter{offset}"))),
            value: value.map(Bytes::copy_from_slice),
            headers: (0..offset % 3)
                .map(|n| RecordHeader {
                    name: Bytes::from_static(b"same"),
                    value: (n == 1).then(|| Bytes::from_static(b"\xff")),
                })
                .collect(),
        }
    }

    fn push(shaper: &mut Shaper, record: &Record) {
        let headers = record.headers.iter().map(|header| (header.name.as_ref(), header.value.as_deref()));
        shaper.push(record.offset, record.timestamp, record.key.as_deref(), record.value.as_deref(), headers);
    }

    fn through(payloads: &[Option<Vec<u8>>]) -> (RecordBatch, Arc<Shape>) {
        let mut inference = Inference::new(Shape::default());
        payloads.iter().flatten().for_each(|payload| inference.observe(payload));
        let shape = Arc::new(inference.finish());
        let mut shaper = Shaper::new(shape.clone(), shape.schema(), 3);
        for (offset, payload) in payloads.iter().enumerate() {
            push(&mut shaper, &record(offset as i64, payload.as_deref()));
        }
        (shaper.take().expect("a batch").batch, shape)
    }

    fn check(payloads: &[Option<Vec<u8>>]) -> RecordBatch {
        let (batch, shape) = through(payloads);
        let mut restorer = Restorer::new(&shape, &batch).expect("the shape's columns");
        for (row, payload) in payloads.iter().enumerate() {
            let sent = record(row as i64, payload.as_deref());
            let back = restorer.record(row);
            assert_eq!(
                back.value,
                payload.as_deref(),
                "{:?}",
                payload.as_ref().map(|p| String::from_utf8_lossy(p).into_owned())
            );
            assert_eq!((back.offset, back.timestamp, back.key), (sent.offset, sent.timestamp, sent.key.as_deref()));
            let headers: Vec<_> = sent.headers.iter().map(|h| (h.name.as_ref(), h.value.as_deref())).collect();
            assert_eq!(back.headers, headers);
        }
        batch
    }

    fn texts(payloads: &[&str]) -> Vec<Option<Vec<u8>>> {
        payloads.iter().map(|text| Some(text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn regular_readings_are_reproduced_from_their_columns_alone() {
        let batch = check(&texts(&[
            r#"{"meter":"MAC1","ts":"2013-01-01 00:00:00","kwh":0.25,"on":true,"at":{"x":1},"l":[1.5,2.0]}"#,
            r#"{"meter":"MAC2","ts":"2013-01-01 00:30:00","kwh":1.5,"on":false,"at":{"x":-7},"l":[]}"#,
        ]));
        let (values, errors) = (batch.column_by_name("_value"), batch.column_by_name("_error"));
        assert_eq!(values.map(|c| c.null_count()), Some(2));
        assert_eq!(errors.map(|c| c.null_count()), Some(2));
        assert_eq!(batch.column_by_name("l").map(|c| c.as_list::<i32>().value_length(0)), Some(2));
    }

    #[test]
    fn malformed_and_misfitting_payloads_say_why_and_keep_their_bytes() {
        let batch = check(&texts(&[
            r#"{"a":1,"o":{"x":"t"}}"#,
            r#"{"a":2,"o":{"x":"t"}}"#,
            r#"{"a":"x"}"#,
            "{\"a\":3",
            "42",
            "",
            r#"{"o":{"x":1}}"#,
        ]));
        let errors: &StringArray = batch.column_by_name("_error").expect("column").as_string();
        assert!(errors.is_null(0));
        assert_eq!(errors.value(2), "field a: string does not fit BIGINT");
        assert!(errors.value(3).starts_with("not JSON: "), "{}", errors.value(3));
        assert_eq!(errors.value(4), "not a JSON object: number");
        assert_eq!(errors.value(5), "empty payload");
        assert_eq!(errors.value(6), "field o.x: number does not fit STRING");
        assert!(batch.column_by_name("a").expect("column").is_null(3), "a malformed payload leaves no typed value");
    }

    #[test]
    fn a_payload_cut_off_anywhere_leaves_nothing_in_the_columns() {
        let whole = r#"{"a":1,"o":{"x":1.5,"on":true,"p":{"t":"u"}},"l":[1,2],"s":[{"y":"z"},{"y":"w"}],"m":"n"}"#;
        let mut payloads = vec![whole];
        payloads.extend((0..whole.len()).flat_map(|end| [&whole[..end], whole]));
        let batch = check(&texts(&payloads));
        let lists: &ListArray = batch.column_by_name("l").expect("column").as_list();
        let objects: &ListArray = batch.column_by_name("s").expect("column").as_list();
        for row in 0..payloads.len() {
            let expected = if row % 2 == 0 { 2 } else { 0 };
            assert_eq!((lists.value_length(row), objects.value_length(row)), (expected, expected), "row {row}");
        }
        assert_eq!(batch.column_by_name("_value").map(|values| values.null_count()), Some(whole.len() + 1));
    }

    #[test]
    fn a_missing_payload_is_told_from_an_empty_one_and_from_an_empty_object() {
        check(&[
            None,
            Some(Vec::new()),
            Some(b"{}".to_vec()),
            Some(b"{\"a\":null}".to_vec()),
            Some(b"{\"a\":1}".to_vec()),
        ]);
    }

    #[test]
    fn a_list_of_empty_objects_cannot_fill_memory_with_nulls() {
        let fields: Vec<_> = (0..400).map(|n| format!("\"k{n}\":{n}")).collect();
        let bomb = format!("{{\"l\":[{}{{}}]}}", "{},".repeat(5000));
        let batch = check(&texts(&[&format!("{{\"l\":[{{{}}}]}}", fields.join(",")), &bomb, r#"{"l":[{"k7":7}]}"#]));
        let errors: &StringArray = batch.column_by_name("_error").expect("column").as_string();
        assert!(errors.value(1).starts_with("more values than"), "{}", errors.value(1));
        assert!(errors.is_null(0) && errors.is_null(2));
        assert!(batch.column_by_name("l").expect("column").is_null(1));
    }

    #[test]
    fn what_rows_take_in_memory_beyond_their_bytes_is_counted() {
        let fields: Vec<_> = (0..400).map(|n| format!("\"k{n}\":{n}")).collect();
        let mut inference = Inference::new(Shape::default());
        inference.observe(format!("{{{}}}", fields.join(",")).as_bytes());
        let shape = Arc::new(inference.finish());
        let mut shaper = Shaper::new(shape.clone(), shape.schema(), 3);
        push(&mut shaper, &Record { headers: Vec::new(), ..record(0, Some(b"{}")) });
        assert!(shaper.cells() >= 400);
        let header = RecordHeader { name: Bytes::new(), value: None };
        push(&mut shaper, &Record { headers: vec![header; 1000], ..record(1, None) });
        assert!(shaper.cells() >= 400 + 400 + 1000);
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
            (0i32..1000, 0usize..4).prop_map(|(n, places)| format!("{:.places$}", f64::from(n) / 100.0)),
            "[a-zé\u{1}\"\\\\\n]{0,6}".prop_map(|s| serde_json::to_string(&s).expect("a string")),
            (0i64..4_000_000_000).prop_map(|s| {
                let mut text = String::from("\"");
                let style = crate::shape::time::TimeStyle {
                    t: s % 2 == 0,
                    digits: (s % 7) as u8,
                    zone: crate::shape::time::Zone::Zulu,
                };
                crate::shape::time::write(&mut text, s * 1_000_003, style);
                text + "\""
            }),
            Just("\"\\ud800\"".to_owned()),
            Just("-0".to_owned()),
            Just("1e400".to_owned()),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                proptest::collection::vec(("[abAB_]{0,2}", inner), 0..4).prop_map(|members| {
                    let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    fn payload() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![
            1 => Just(None),
            2 => any::<Vec<u8>>().prop_map(Some),
            8 => proptest::collection::vec(("[abc_]{0,2}", json()), 0..5).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                Some(format!("{{{}}}", members.join(",")).into_bytes())
            }),
        ]
    }

    proptest! {
        #[test]
        fn any_payload_comes_back_byte_for_byte(payloads in proptest::collection::vec(payload(), 1..12)) {
            check(&payloads);
        }
    }
}
