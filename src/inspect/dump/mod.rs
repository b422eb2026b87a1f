//! `glasspool dump`: what PHP processes do right now.
//!
//! Start reading at [`run_dump`]; `group` finds those that do the same, `text` and `json`
//! write.

mod group;
mod json;
mod text;

use std::process::ExitCode;

use jiff::Timestamp;

use super::args::{DumpArguments, ShowArgs};
use super::console::Console;
use super::crew::{Crew, Trouble, Want, cannot_look};
use super::look::Seen;
use super::paint::Paint;

/// One process in words, without colours.
pub(super) fn describe(seen: Seen) -> String {
    text::text(&group::singly(&[seen]), Paint { on: false })
}

/// Looks once at every process that is meant and writes what they do. Each one that
/// could not be looked at is a line on standard error, and then the status is 1.
pub fn run_dump(arguments: &DumpArguments, console: &mut Console<'_>) -> ExitCode {
    let want = Want {
        frames: arguments.limit.get(),
        types: arguments.args == ShowArgs::Types,
        native: arguments.native,
        request: true,
    };
    let taken_at = Timestamp::now();
    let (mut crew, mut unread) = Crew::gather(&arguments.targets, want);
    let mut all = Vec::with_capacity(crew.len());
    crew.round(|seen| match seen {
        Ok(seen) => all.push(seen),
        Err(Trouble::Gone { pid, fate }) => unread.push(cannot_look(pid, fate)),
        Err(Trouble::Failed(message)) => unread.push(message),
    });
    for message in &unread {
        console.complain(message);
    }
    let groups = if arguments.no_group {
        group::singly(&all)
    } else {
        group::group(&all)
    };
    let written = if arguments.json {
        json::json(&groups, &unread, taken_at)
    } else {
        text::text(&groups, Paint { on: console.colour })
    };
    if let Err(e) = console.result(written.as_bytes()) {
        console.complain(format_args!("cannot write the dump: {e}"));
        return ExitCode::from(super::INCOMPLETE);
    }
    ExitCode::from(if unread.is_empty() {
        super::DONE
    } else {
        super::INCOMPLETE
    })
}
