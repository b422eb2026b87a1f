//! The right side of `=`: quotes, `${NAME}`, adjacent pieces, trailing comment.

use super::expression::{self, Term};
use super::{bool_word, expand, is_blank, is_value_word};
use crate::config::effective::Environment;
use crate::config::error::{Fault, Shown};

/// Operators of PHP's INI language; outside quotes they compute.
const OPERATORS: &str = "|&^~!()";

pub(super) fn parse(name: &str, text: &str, environment: &Environment) -> Result<String, Fault> {
    let mut reader = Reader {
        name,
        rest: text.trim_start_matches(is_blank),
        environment,
    };
    let terms = reader.terms()?;
    match <[Term; 1]>::try_from(terms) {
        Ok([Term::Text(text)]) => Ok(text),
        Ok([term]) => expression::evaluate(name, &[term]),
        Err(terms) if terms.is_empty() => Ok(String::new()),
        Err(terms) => expression::evaluate(name, &terms),
    }
}

struct Reader<'a> {
    name: &'a str,
    rest: &'a str,
    environment: &'a Environment,
}

/// One operand being put together from adjacent pieces.
#[derive(Default)]
struct Operand {
    text: String,
    /// Where in `text` the unquoted run that is being read began.
    run: usize,
    pieces: usize,
    /// The last word that PHP turns into a value; it must stand alone.
    bool_word: Option<String>,
}

impl Reader<'_> {
    fn terms(&mut self) -> Result<Vec<Term>, Fault> {
        let mut terms = Vec::new();
        let mut operand = Operand::default();
        while let Some(c) = self.rest.chars().next() {
            let after = &self.rest[c.len_utf8()..];
            match c {
                ';' => break,
                '"' => {
                    self.end_run(&mut operand, true)?;
                    let rest = expand::double_quoted(after, self.environment, &mut operand.text);
                    let rest = rest.ok_or_else(|| self.unterminated("\" or }"))?;
                    self.rest = rest.trim_start_matches(is_blank);
                    operand.piece_ends();
                }
                '\'' => {
                    self.end_run(&mut operand, false)?;
                    let Some((quoted, rest)) = after.split_once('\'') else {
                        return Err(self.unterminated("'"));
                    };
                    operand.text.push_str(quoted);
                    self.rest = rest;
                    operand.piece_ends();
                }
                '$' if after.starts_with('{') => {
                    self.end_run(&mut operand, false)?;
                    let rest = expand::variable(self.rest, self.environment, &mut operand.text);
                    self.rest = rest.ok_or_else(|| self.unterminated("}"))?;
                    operand.piece_ends();
                }
                '=' => return Err(self.unexpected(self.rest)),
                _ if OPERATORS.contains(c) => {
                    self.rest = after;
                    self.finish(operand, false, &mut terms)?;
                    operand = Operand::default();
                    terms.push(Term::Operator(c));
                }
                _ => {
                    operand.text.push(c);
                    self.rest = after;
                }
            }
        }
        self.finish(operand, true, &mut terms)?;
        Ok(terms)
    }

    /// Ends an unquoted run: whitespace before `"` and at the very end is dropped, constants are substituted.
    fn end_run(&self, operand: &mut Operand, trim: bool) -> Result<(), Fault> {
        let run = operand.text.split_off(operand.run);
        let kept = if trim {
            run.trim_end_matches(is_blank)
        } else {
            run.as_str()
        };
        // Whitespace between two operands belongs to neither.
        let kept = if operand.pieces == 0 {
            kept.trim_start_matches(is_blank)
        } else {
            kept
        };
        for (count, piece) in kept.split_inclusive(is_blank).enumerate() {
            let word = piece.trim_end_matches(is_blank);
            if is_value_word(word) {
                operand.bool_word = Some(word.to_owned());
            }
            operand.pieces += usize::from(count == 0 || !word.is_empty());
            match expression::constant(word) {
                Some(value) => operand.text.push_str(&value.to_string()),
                None if word.starts_with("PHP_") && word.chars().all(is_constant_char) => {
                    return Err(Fault::Constant {
                        name: Shown::from(self.name),
                        constant: Shown::from(word),
                    });
                }
                None => operand.text.push_str(word),
            }
            operand.text.push_str(&piece[word.len()..]);
        }
        Ok(())
    }

    /// Makes a term of the operand; `last` when no operator follows.
    fn finish(&self, mut operand: Operand, last: bool, terms: &mut Vec<Term>) -> Result<(), Fault> {
        self.end_run(&mut operand, true)?;
        if operand.pieces == 0 {
            return Ok(());
        }
        match operand.bool_word {
            Some(word) if !last || operand.pieces > 1 || !terms.is_empty() => Err(self.unexpected(&word)),
            Some(word) => {
                terms.push(Term::Text(bool_word(&word).unwrap_or_default().to_owned()));
                Ok(())
            }
            None => {
                terms.push(Term::Text(operand.text));
                Ok(())
            }
        }
    }

    fn unexpected(&self, found: &str) -> Fault {
        Fault::Unquoted {
            name: Shown::from(self.name),
            found: Shown::from(found),
        }
    }

    fn unterminated(&self, delimiter: &'static str) -> Fault {
        Fault::Unterminated {
            name: Shown::from(self.name),
            delimiter,
        }
    }
}

impl Operand {
    fn piece_ends(&mut self) {
        self.pieces += 1;
        self.run = self.text.len();
    }
}

fn is_constant_char(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}
