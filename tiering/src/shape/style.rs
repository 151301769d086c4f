//! How values are written where JSON leaves a choice: what is seen of it, and whether a value as written is the canonical form.

use super::schema::NumberStyle;
use super::time::{TimeStyle, Zone};
use super::token::Number;

/// Whether the canonical form of what a payload means is, byte for byte, the payload. `Same` must be certain: such a payload
/// is stored as its columns only. `Differs` may be said of any: it costs space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    #[default]
    Same,
    /// Writing it tells.
    Open,
    Differs,
}

/// How the numbers of a field are written.
#[derive(Debug, Default)]
pub(super) struct Decimals {
    bare: bool,
    /// `None`: none seen; `Some(None)`: they vary.
    places: Option<Option<u8>>,
    /// A zero ends a fraction, other than `.0`.
    padded: bool,
    point_zero: bool,
}

impl Decimals {
    pub(super) fn note(&mut self, number: Number<'_>) {
        if number.integral() {
            self.bare = true;
            self.places = Some(None);
            return;
        }
        let Some(count) = number.places else { return };
        let places = u8::try_from(count).ok().filter(|_| !number.exponent);
        self.places = match self.places {
            None => Some(places),
            Some(same) if same == places => Some(same),
            Some(_) => Some(None),
        };
        if number.text.ends_with('0') && !number.exponent {
            self.point_zero |= count == 1;
            self.padded |= count > 1;
        }
    }

    /// The style of the numbers seen; `None` if there were none.
    pub(super) fn seen(&self) -> Option<NumberStyle> {
        (self.bare || self.places.is_some() || self.point_zero).then(|| self.style())
    }

    pub(super) fn style(&self) -> NumberStyle {
        match self.places {
            Some(Some(places)) if self.padded && places <= 17 => NumberStyle::Fixed(places),
            _ if self.bare && !self.point_zero => NumberStyle::Bare,
            _ => NumberStyle::Shortest,
        }
    }
}

/// Whether the encoder writes this number, as a double, just so.
pub(super) fn double_proof(number: Number<'_>, style: NumberStyle) -> Proof {
    // Few digits are the shortest text of their double once no zero ends them, and those of its rounding to as many places.
    // Numbers with exponents, and those that the encoder may write with one, are left to it.
    let small = number.mantissa != 0 && number.places.is_some_and(|places| number.mantissa < thousandth(places));
    if !number.plain() || small {
        return Proof::Open;
    }
    let ends_in_zero = number.text.ends_with('0');
    let same = match (style, number.places) {
        (NumberStyle::Fixed(fixed), places) => places == Some(usize::from(fixed)),
        (NumberStyle::Bare, None) => true,
        (NumberStyle::Shortest, None) => false,
        (NumberStyle::Bare, Some(_)) => !ends_in_zero,
        (NumberStyle::Shortest, Some(places)) => !ends_in_zero || places == 1,
    };
    if same { Proof::Same } else { Proof::Differs }
}

/// The digits of a number with this many places that is a thousandth.
fn thousandth(places: usize) -> u64 {
    10u64.saturating_pow(u32::try_from(places.saturating_sub(3)).unwrap_or(u32::MAX))
}

/// Whether the encoder, told to write `column`, writes a time that stands there in the style `found` just so.
pub(super) fn time_proof(found: TimeStyle, column: TimeStyle) -> Proof {
    // Digits beyond the microsecond are cut, and `-00:00` would come back as `+00:00`.
    match found {
        _ if found != column => Proof::Differs,
        TimeStyle { digits: 0..=6, zone: Zone::None | Zone::Zulu | Zone::East(1.. | ..=-1), .. } => Proof::Same,
        _ => Proof::Open,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::encode::write_double;
    use super::super::json::Parser;
    use super::*;

    fn check(text: &str, style: NumberStyle) -> Proof {
        let number = Parser::new(text.as_bytes()).and_then(|mut parser| parser.number()).expect("a number");
        assert_eq!(number.text, text);
        let value: f64 = text.parse().expect("a number");
        assert_eq!(number.double().map(f64::to_bits), Some(value.to_bits()), "{text}");
        let mut written = String::new();
        write_double(&mut written, value, style);
        let proof = double_proof(number, style);
        match proof {
            Proof::Same => assert_eq!(written, text, "{style:?}"),
            Proof::Differs => assert_ne!(written, text, "{style:?}"),
            Proof::Open => {}
        }
        proof
    }

    const STYLES: [NumberStyle; 6] = [
        NumberStyle::Shortest,
        NumberStyle::Bare,
        NumberStyle::Fixed(1),
        NumberStyle::Fixed(2),
        NumberStyle::Fixed(3),
        NumberStyle::Fixed(9),
    ];

    #[test]
    fn every_spelling_of_a_number_is_judged_as_it_is_written() {
        for text in [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "0.00",
            "-0.00",
            "1",
            "1.0",
            "1.10",
            "230.10",
            "1e3",
            "1E-7",
            "0.1",
            "0.001",
            "0.0001",
            "0.00012",
            "0.00001",
            "0.000000001",
            "-0.5",
            "123456789012345",
            "1234567890123456",
            "9007199254740993",
            "0.1234567890123",
            "99999999999999.9",
            "0.30000000000000004",
            "123456789.123456",
            "1.5e300",
            "100000000000000.5",
            "5e-324",
            "0.12345678901234",
        ] {
            for style in STYLES {
                check(text, style);
            }
        }
        assert_eq!(check("230.1", NumberStyle::Shortest), Proof::Same);
        assert_eq!(check("230.10", NumberStyle::Fixed(2)), Proof::Same);
        assert_eq!(check("230", NumberStyle::Bare), Proof::Same);
        assert_eq!(check("0.30000000000000004", NumberStyle::Shortest), Proof::Open);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_number_said_to_be_canonical_is_written_just_so(
            sign in "-?", whole in "0|[1-9][0-9]{0,9}", fraction in "(\\.[0-9]{1,9})?", style in 0usize..6,
        ) {
            check(&format!("{sign}{whole}{fraction}"), STYLES[style]);
        }

        #[test]
        fn any_double_is_judged_as_it_is_written(value in any::<f64>().prop_filter("finite", |n| n.is_finite()), style in 0usize..6) {
            check(&format!("{value:?}"), STYLES[style]);
            check(&format!("{value}"), STYLES[style]);
        }
    }
}
