//! Two shapes of one topic, found by the leaders of different partitions, brought together.

use super::schema::{Field, Kind, MAX_FIELDS, Shape, column_name};

impl Shape {
    /// Adds the fields that `other` has and this one has not. A field of both keeps the type that it has here.
    pub fn absorb(&mut self, other: &Shape) {
        let mut room = MAX_FIELDS.saturating_sub(self.field_count());
        absorb_fields(&mut self.fields, &other.fields, true, &mut room);
    }
}

fn absorb_fields(fields: &mut Vec<Field>, others: &[Field], top: bool, room: &mut usize) {
    let mut at = 0;
    for other in others {
        if let Some(known) = fields.iter().position(|field| field.key == other.key) {
            absorb_kind(&mut fields[known].kind, &other.kind, room);
            at = known + 1;
            continue;
        }
        let count = Shape { spaced: false, fields: vec![other.clone()] }.field_count();
        let Some(left) = room.checked_sub(count) else { continue };
        *room = left;
        let taken = fields.iter().any(|field| field.column.eq_ignore_ascii_case(&other.column));
        let column = if taken { column_name(&other.key, fields, top) } else { other.column.clone() };
        // After the field before it, as the payloads have it.
        fields.insert(at, Field { column, ..other.clone() });
        at += 1;
    }
}

fn absorb_kind(kind: &mut Kind, other: &Kind, room: &mut usize) {
    match (kind, other) {
        (Kind::Struct(fields), Kind::Struct(others)) => absorb_fields(fields, others, false, room),
        (Kind::List(element), Kind::List(other)) => absorb_kind(element, other, room),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::Inference;
    use super::*;

    fn shape(payload: &str) -> Shape {
        let mut inference = Inference::new(Shape::default());
        inference.observe(payload.as_bytes());
        inference.finish()
    }

    #[test]
    fn what_another_partition_has_brought_is_added_in_its_place_and_nothing_changes_its_type() {
        let mut merged = shape(r#"{"m":"a","v":1,"o":{"x":1}}"#);
        merged.absorb(&shape(r#"{"m":"a","ts":"2013-01-01 00:00:00","v":1.5,"o":{"w":true,"x":"s"},"V":2}"#));
        let keys: Vec<&str> = merged.fields.iter().map(|field| field.key.as_str()).collect();
        assert_eq!(keys, ["m", "ts", "v", "o", "V"]);
        assert_eq!((&merged.fields[2].kind, merged.fields[4].column.as_str()), (&Kind::Bigint, "V_"));
        let Kind::Struct(inner) = &merged.fields[3].kind else { panic!("an object") };
        assert_eq!((inner[0].key.as_str(), &inner[1].kind), ("w", &Kind::Bigint));
        let once = merged.clone();
        merged.absorb(&once.clone());
        assert_eq!(merged, once);
    }
}
