//! Integer expressions in unquoted values, above all `E_ALL & ~E_DEPRECATED`.
//!
//! All operators have one precedence and group from the left (`%left '|' '&' '^' '~' '!'` in php-src
//! `Zend/zend_ini_parser.y`), so `8 | 6 & 3` is 2. Unlike PHP, an operand that is not an integer is refused instead
//! of counting as 0.

use crate::config::error::{Fault, Shown};

/// Deepest nesting of parentheses and of `~` and `!` together.
const MAX_DEPTH: usize = 64;

/// An operand, or one of `| & ^ ~ ! ( )`.
#[derive(Debug)]
pub(super) enum Term {
    Text(String),
    Operator(char),
}

/// The value of an error level constant. They are part of PHP's interface and have not changed since 5.3.
pub(super) fn constant(name: &str) -> Option<i32> {
    Some(match name {
        "E_ERROR" => 1,
        "E_WARNING" => 1 << 1,
        "E_PARSE" => 1 << 2,
        "E_NOTICE" => 1 << 3,
        "E_CORE_ERROR" => 1 << 4,
        "E_CORE_WARNING" => 1 << 5,
        "E_COMPILE_ERROR" => 1 << 6,
        "E_COMPILE_WARNING" => 1 << 7,
        "E_USER_ERROR" => 1 << 8,
        "E_USER_WARNING" => 1 << 9,
        "E_USER_NOTICE" => 1 << 10,
        "E_STRICT" => 1 << 11,
        "E_RECOVERABLE_ERROR" => 1 << 12,
        "E_DEPRECATED" => 1 << 13,
        "E_USER_DEPRECATED" => 1 << 14,
        "E_ALL" => (1 << 15) - 1,
        _ => return None,
    })
}

/// The value in decimal.
pub(super) fn evaluate(name: &str, terms: &[Term]) -> Result<String, Fault> {
    let operator = terms.iter().find_map(|term| match term {
        Term::Operator(operator) => Some(*operator),
        Term::Text(_) => None,
    });
    let mut evaluator = Evaluator {
        name,
        terms,
        operator: operator.unwrap_or('|'),
    };
    let value = evaluator.expression(0)?;
    if evaluator.terms.is_empty() {
        Ok(value.to_string())
    } else {
        Err(evaluator.fault())
    }
}

struct Evaluator<'a> {
    name: &'a str,
    terms: &'a [Term],
    /// The first operator, for messages.
    operator: char,
}

impl Evaluator<'_> {
    fn expression(&mut self, depth: usize) -> Result<i32, Fault> {
        let mut value = self.operand(depth)?;
        while let Some((Term::Operator(operator @ ('|' | '&' | '^')), rest)) = self.terms.split_first() {
            self.terms = rest;
            let right = self.operand(depth)?;
            value = match operator {
                '|' => value | right,
                '&' => value & right,
                _ => value ^ right,
            };
        }
        Ok(value)
    }

    fn operand(&mut self, depth: usize) -> Result<i32, Fault> {
        let Some((term, rest)) = self.terms.split_first().filter(|_| depth < MAX_DEPTH) else {
            return Err(self.fault());
        };
        match term {
            Term::Text(text) => {
                let value = text.trim().parse().map_err(|_not_an_integer| self.fault())?;
                self.terms = rest;
                Ok(value)
            }
            Term::Operator('~') => {
                self.terms = rest;
                self.operand(depth + 1).map(|value| !value)
            }
            Term::Operator('!') => {
                self.terms = rest;
                self.operand(depth + 1).map(|value| i32::from(value == 0))
            }
            Term::Operator('(') => {
                self.terms = rest;
                let value = self.expression(depth + 1)?;
                let Some((Term::Operator(')'), rest)) = self.terms.split_first() else {
                    return Err(self.fault());
                };
                self.terms = rest;
                Ok(value)
            }
            Term::Operator(_) => Err(self.fault()),
        }
    }

    fn fault(&self) -> Fault {
        let found = match self.terms.first() {
            Some(Term::Text(text)) => Shown::from(text.as_str()),
            Some(Term::Operator(operator)) => Shown::from(operator.to_string().as_str()),
            None => Shown::from("end of line"),
        };
        Fault::Operand {
            name: Shown::from(self.name),
            operator: self.operator,
            found,
        }
    }
}
