//! Colours, where they are wanted.

use std::fmt;

/// Whether to colour. Without, text is passed on as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    /// Whether the reader is a terminal that wants colours.
    pub(super) on: bool,
}

/// What a piece of text is, not what it looks like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// Who it is about.
    Title,
    /// What it waits for.
    Wait,
    /// Where it is.
    Place,
    /// What deserves a doubt.
    Doubt,
    /// What has failed.
    Bad,
    /// What is as it should be.
    Fine,
}

impl Paint {
    /// Text in its role's colour.
    pub(super) fn show<T: fmt::Display>(self, role: Role, text: T) -> Painted<T> {
        Painted {
            code: self.on.then_some(match role {
                Role::Title => "1",
                Role::Wait => "33",
                Role::Place => "2",
                Role::Doubt => "35",
                Role::Bad => "31",
                Role::Fine => "32",
            }),
            text,
        }
    }
}

/// Text with the escape sequences around it, if any (ECMA-48, SGR).
pub(super) struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.text),
            None => self.text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_closed_and_can_be_off() {
        let text = |on| Paint { on }.show(Role::Wait, "poll").to_string();
        assert_eq!(text(true), "\x1b[33mpoll\x1b[0m");
        assert_eq!(text(false), "poll");
    }
}
