//! Numbers that add up the same in any order: millionths, in 128-bit integers.
//!
//! In: lexemes of events, bounds of rules. Out: exact integers. Invariant: addition is exact for 100 billion values.

use crate::rule::ast::Comparison;

/// Values beyond ±10^21 count as that.
const LIMIT: f64 = 1e21;

/// Millionths; `None` for what isn't a finite number.
pub fn parse(lexeme: &str) -> Option<i128> {
    let number: f64 = lexeme.trim().parse().ok()?;
    number.is_finite().then(|| micros(number))
}

/// Rounded to the nearest millionth.
pub fn micros(number: f64) -> i128 {
    (number.clamp(-LIMIT, LIMIT) * 1e6).round() as i128
}

pub fn to_bytes(micros: i128) -> [u8; 16] {
    (micros ^ i128::MIN).to_be_bytes()
}

pub fn from_bytes(bytes: [u8; 16]) -> i128 {
    i128::from_be_bytes(bytes) ^ i128::MIN
}

/// As people write it: at most six decimals, no trailing zeros.
pub fn text(micros: i128) -> String {
    let (whole, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let sign = if micros < 0 { "-" } else { "" };
    let part = format!("{part:06}");
    match part.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        decimals => format!("{sign}{whole}.{decimals}"),
    }
}

/// One comparison of a condition, its number in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub op: Comparison,
    pub micros: i128,
}

impl Bound {
    pub fn holds(&self, value: i128) -> bool {
        match self.op {
            Comparison::Lt => value < self.micros,
            Comparison::Lte => value <= self.micros,
            Comparison::Gt => value > self.micros,
            Comparison::Gte => value >= self.micros,
            Comparison::Eq => value == self.micros,
            Comparison::Neq => value != self.micros,
        }
    }

    /// More items can't make it false again.
    pub fn is_lower(&self) -> bool {
        matches!(self.op, Comparison::Gt | Comparison::Gte)
    }
}

/// The smallest value that satisfies all of several lower bounds.
pub fn least(bounds: &[Bound]) -> i128 {
    bounds.iter().map(|b| if b.op == Comparison::Gt { b.micros + 1 } else { b.micros }).max().unwrap_or(i128::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexemes_become_millionths() {
        for (lexeme, expected) in [
            ("0.1", Some(100_000)),
            (" 7 ", Some(7_000_000)),
            ("-2.5e3", Some(-2_500_000_000)),
            ("0.0000004", Some(0)),
            ("1e99", Some(micros(1e21))),
            ("NaN", None),
            ("inf", None),
            ("", None),
            ("7 days", None),
        ] {
            assert_eq!(parse(lexeme), expected, "{lexeme}");
        }
    }

    #[test]
    fn bytes_order_as_numbers() {
        let numbers = [micros(-1e21), -1, 0, 1, micros(1e21)];
        for pair in numbers.windows(2) {
            assert!(to_bytes(pair[0]) < to_bytes(pair[1]));
        }
        for n in numbers {
            assert_eq!(from_bytes(to_bytes(n)), n);
        }
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        for (micros, expected) in [(0, "0"), (7_000_000, "7"), (-500_000, "-0.5"), (1_000_001, "1.000001")] {
            assert_eq!(text(micros), expected);
        }
    }
}
