//! Infers the shape of payloads: the fields a segment brings, merged into what the topic's table already has.

use super::json::{Parser, Syntax, check_object};
use super::schema::{Field, Kind, MAX_COLUMN_DEPTH, MAX_FIELDS, MAX_KEY_BYTES, Shape, column_name};
use super::style::Decimals;
use super::time::{self, TimeStyle};
use super::token::Next;

/// Watches payloads and widens a shape by what they hold.
///
/// A settled field keeps its type for ever (readers of a table would not survive a change); the way numbers and times
/// are printed is taken anew from each segment.
pub struct Inference {
    base: Shape,
    fields: Vec<Seen>,
    count: usize,
    spaced: Option<bool>,
}

/// What was seen of one field.
struct Seen {
    key: String,
    values: Values,
}

#[derive(Default)]
struct Values {
    bools: u64,
    numbers: u64,
    texts: u64,
    objects: u64,
    arrays: u64,
    /// A number that is no 64-bit integer.
    reals: bool,
    /// A text that is no timestamp.
    words: bool,
    time_style: Option<TimeStyle>,
    decimals: Decimals,
    fields: Vec<Seen>,
    element: Option<Box<Values>>,
    too_deep: bool,
}

impl Inference {
    /// Starts from what the topic's table has.
    pub fn new(base: Shape) -> Inference {
        let count = base.field_count();
        Inference { base, fields: Vec::new(), count, spaced: None }
    }

    /// Takes one payload into account; what is not a JSON object brings nothing.
    pub fn observe(&mut self, payload: &[u8]) {
        if check_object(payload).is_err() {
            return;
        }
        let Ok(mut parser) = Parser::new(payload) else { return };
        let mut walk = Walk { count: &mut self.count, spaced: &mut self.spaced };
        // The payload was checked just now: it cannot fail here.
        let _ = parser.peek().and_then(|_| walk.object(&mut parser, &mut self.fields, 0));
    }

    /// The widened shape.
    #[must_use]
    pub fn finish(self) -> Shape {
        let mut room = MAX_FIELDS.saturating_sub(self.base.field_count());
        let mut fields = self.base.fields;
        merge(&mut fields, &self.fields, true, &mut room);
        Shape { spaced: self.spaced.unwrap_or(self.base.spaced), fields }
    }
}

struct Walk<'i> {
    count: &'i mut usize,
    spaced: &'i mut Option<bool>,
}

impl Walk<'_> {
    fn object(&mut self, parser: &mut Parser<'_>, fields: &mut Vec<Seen>, depth: usize) -> Result<(), Syntax> {
        parser.enter();
        let mut expected = 0;
        let mut first = true;
        while let Some(key) = parser.key(first)? {
            first = false;
            if self.spaced.is_none() {
                *self.spaced = Some(parser.at_space());
            }
            let Some(key) = key.text().filter(|key| key.len() <= MAX_KEY_BYTES) else {
                parser.skip()?;
                continue;
            };
            let at = if fields.get(expected).is_some_and(|field| field.key == key) {
                Some(expected)
            } else {
                fields.iter().position(|field| field.key == key)
            };
            let at = match at {
                Some(at) => at,
                None if *self.count < MAX_FIELDS * 2 => {
                    *self.count += 1;
                    // After the key before it: then payloads that leave fields out still have one order.
                    fields.insert(expected, Seen { key: key.into_owned(), values: Values::default() });
                    expected
                }
                None => {
                    parser.skip()?;
                    continue;
                }
            };
            expected = at + 1;
            self.value(parser, &mut fields[at].values, depth + 1)?;
        }
        Ok(())
    }

    fn value(&mut self, parser: &mut Parser<'_>, seen: &mut Values, depth: usize) -> Result<(), Syntax> {
        let next = parser.peek()?;
        if depth > MAX_COLUMN_DEPTH && matches!(next, Next::Object | Next::Array) {
            seen.too_deep = true;
            return parser.skip().map(|_| ());
        }
        match next {
            Next::Object => {
                seen.objects += 1;
                self.object(parser, &mut seen.fields, depth)?;
            }
            Next::Array => {
                seen.arrays += 1;
                parser.enter();
                let mut first = true;
                while parser.element(first)? {
                    first = false;
                    self.value(parser, seen.element.get_or_insert_default(), depth + 1)?;
                }
            }
            Next::Text => {
                seen.texts += 1;
                match parser.quoted()?.text().as_deref().and_then(time::parse) {
                    Some((_, style)) => {
                        seen.time_style.get_or_insert(style);
                    }
                    None => seen.words = true,
                }
            }
            Next::Number => {
                seen.numbers += 1;
                let number = parser.number()?;
                seen.reals |= number.bigint().is_none();
                seen.decimals.note(number);
            }
            Next::Bool => {
                seen.bools += 1;
                parser.bool()?;
            }
            Next::Null => parser.null()?,
        }
        Ok(())
    }
}

impl Values {
    /// Types seen.
    fn types(&self) -> usize {
        [self.bools, self.numbers, self.texts, self.objects, self.arrays].iter().filter(|count| **count > 0).count()
    }

    /// The type of a field not seen before, its own fields taken from `room`; `None` while nothing tells (nulls, empty
    /// arrays and objects).
    fn kind(&self, room: &mut usize) -> Option<Kind> {
        if self.too_deep {
            return Some(Kind::Opaque);
        }
        let most =
            [self.numbers, self.texts, self.bools, self.objects, self.arrays].into_iter().max().filter(|n| *n > 0)?;
        if most == self.numbers {
            return Some(if self.reals { Kind::Double(self.decimals.style()) } else { Kind::Bigint });
        }
        if most == self.texts {
            return Some(match self.time_style {
                Some(style) if !self.words => Kind::Time(style),
                _ => Kind::Text,
            });
        }
        if most == self.bools {
            return Some(Kind::Bool);
        }
        if most == self.objects {
            let mut fields = Vec::new();
            merge(&mut fields, &self.fields, false, room);
            return (!fields.is_empty()).then_some(Kind::Struct(fields));
        }
        let element = self.element.as_ref()?;
        if element.types() > 1 {
            return Some(Kind::Opaque);
        }
        Some(match element.kind(room)? {
            Kind::Opaque => Kind::Opaque,
            kind => Kind::List(Box::new(kind)),
        })
    }

    /// Widens a settled type: new fields inside, and how values are written now.
    fn settle(&self, kind: &mut Kind, room: &mut usize) {
        match kind {
            Kind::Double(style) if self.numbers > 0 => *style = self.decimals.style(),
            Kind::Time(style) => *style = self.time_style.unwrap_or(*style),
            Kind::Struct(fields) => merge(fields, &self.fields, false, room),
            Kind::List(element) => {
                if let Some(seen) = &self.element {
                    seen.settle(element, room);
                }
            }
            _ => {}
        }
    }
}

/// Widens `fields` by what was seen, while there is `room` for new ones.
fn merge(fields: &mut Vec<Field>, seen: &[Seen], top: bool, room: &mut usize) {
    let mut at = 0;
    for Seen { key, values } in seen {
        if let Some(settled) = fields.iter().position(|field| field.key == *key) {
            values.settle(&mut fields[settled].kind, room);
            at = settled + 1;
        } else if let Some(left) = room.checked_sub(1) {
            *room = left;
            match values.kind(room) {
                Some(kind) => {
                    fields.insert(at, Field { key: key.clone(), column: column_name(key, fields, top), kind });
                    at += 1;
                }
                None => *room += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::NumberStyle;
    use super::super::time::Zone;
    use super::*;

    fn infer(base: Shape, payloads: &[&str]) -> Shape {
        let mut inference = Inference::new(base);
        for payload in payloads {
            inference.observe(payload.as_bytes());
        }
        inference.finish()
    }

    fn kind<'a>(shape: &'a Shape, key: &str) -> Option<&'a Kind> {
        shape.fields.iter().find(|field| field.key == key).map(|field| &field.kind)
    }

    #[test]
    fn types_follow_the_values_of_the_first_segment() {
        let shape = infer(
            Shape::default(),
            &[
                r#"{"meter":"m1","ts":"2013-01-01 00:00:00","v":230,"kw":0.5,"ok":true,"at":{"lat":1.5},"phases":[1,2]}"#,
                r#"{"meter":"m2","ts":"2013-01-01 00:30:00","v":231,"kw":1,"ok":false,"mixed":[1,"a"],"none":null}"#,
                "garbage",
            ],
        );
        assert_eq!(kind(&shape, "meter"), Some(&Kind::Text));
        let style = TimeStyle { t: false, digits: 0, zone: Zone::None };
        assert_eq!(kind(&shape, "ts"), Some(&Kind::Time(style)));
        assert_eq!(kind(&shape, "v"), Some(&Kind::Bigint));
        assert_eq!(kind(&shape, "kw"), Some(&Kind::Double(NumberStyle::Bare)));
        assert_eq!(kind(&shape, "ok"), Some(&Kind::Bool));
        assert!(matches!(kind(&shape, "at"), Some(Kind::Struct(fields)) if fields[0].key == "lat"));
        assert_eq!(kind(&shape, "phases"), Some(&Kind::List(Box::new(Kind::Bigint))));
        assert_eq!(kind(&shape, "mixed"), Some(&Kind::Opaque));
        assert_eq!(kind(&shape, "none"), None);
    }

    #[test]
    fn a_new_field_widens_and_a_settled_type_stays() {
        let first = infer(Shape::default(), &[r#"{"a":1,"o":{"x":1}}"#]);
        let second = infer(first, &[r#"{"b":"x","a":1.5,"o":{"y":2}}"#]);
        let keys: Vec<_> = second.fields.iter().map(|field| field.key.as_str()).collect();
        assert_eq!(keys, ["b", "a", "o"]);
        assert_eq!(kind(&second, "a"), Some(&Kind::Bigint));
        assert!(matches!(kind(&second, "o"), Some(Kind::Struct(fields)) if fields.len() == 2));
    }

    #[test]
    fn fields_that_some_payloads_leave_out_take_their_place_among_the_others() {
        let shape = infer(Shape::default(), &[r#"{"a":1,"d":1}"#, r#"{"a":1,"b":1,"d":1}"#, r#"{"b":1,"c":1,"d":1}"#]);
        let keys: Vec<_> = shape.fields.iter().map(|field| field.key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c", "d"]);
    }

    #[test]
    fn fixed_decimals_and_spaces_are_noticed() {
        let shape = infer(Shape::default(), &[r#"{"a": 0.500, "b": 230.10}"#, r#"{"a": 1.250, "b": 229.95}"#]);
        assert!(shape.spaced);
        assert_eq!(kind(&shape, "a"), Some(&Kind::Double(NumberStyle::Fixed(3))));
        assert_eq!(kind(&shape, "b"), Some(&Kind::Double(NumberStyle::Fixed(2))));
    }

    #[test]
    fn random_keys_cannot_widen_a_table_without_end() {
        let mut inference = Inference::new(Shape::default());
        for n in 0..5000 {
            inference.observe(format!("{{\"k{n}\":{n}}}").as_bytes());
        }
        assert!(inference.finish().field_count() <= MAX_FIELDS);
    }

    #[test]
    fn nested_fields_count_and_so_do_those_of_every_segment() {
        let object = |from: usize| (from..from + 700).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",");
        let mut shape = Shape::default();
        for segment in 0..3 {
            let fields = object(segment * 700);
            shape = infer(shape, &[&format!("{{\"a{segment}\":{{{fields}}},\"b{segment}\":[{{{fields}}}]}}")]);
        }
        assert_eq!(shape.field_count(), MAX_FIELDS);
    }

    #[test]
    fn a_thousand_keys_that_become_one_name_are_told_apart_in_no_time() {
        // Ten characters, each of two that become `_`.
        let key = |n: usize| (0..10).map(|bit| if n >> bit & 1 == 0 { ' ' } else { '=' }).collect::<String>();
        let members: Vec<_> = (0..MAX_FIELDS).map(|n| format!("\"{}\":1", key(n))).collect();
        let began = std::time::Instant::now();
        let shape = infer(Shape::default(), &[&format!("{{{}}}", members.join(","))]);
        assert_eq!(shape.field_count(), MAX_FIELDS);
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
