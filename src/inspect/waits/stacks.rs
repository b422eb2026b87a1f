//! Waits added up by stack, as lines that flame graphs are made of. Pure.

use std::collections::HashMap;
use std::time::Duration;

use glasspool_waits::{Frame, Wait};

use super::tally::with;
use crate::inspect::record::cell;

/// Different stacks that are kept; an application has some thousands.
const MOST_STACKS: usize = 100_000;

/// Time blocked, by stack.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    blocked: HashMap<String, Duration>,
    /// Of stacks beyond [`MOST_STACKS`].
    others: Duration,
}

impl Stacks {
    pub(super) fn add(&mut self, group: &str, wait: &Wait, blocked: Duration) {
        let stack = stack(group, wait);
        if self.blocked.len() >= MOST_STACKS && !self.blocked.contains_key(&stack) {
            self.others += blocked;
            return;
        }
        *self.blocked.entry(stack).or_default() += blocked;
    }

    /// `group;outermost;…;builtin;[what for] microseconds`, a line for each stack, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |stack: &str, blocked: Duration| format!("{stack} {}", blocked.as_micros());
        let mut lines: Vec<_> = self
            .blocked
            .iter()
            .map(|(stack, blocked)| line(stack, *blocked))
            .collect();
        lines.sort();
        if !self.others.is_zero() {
            lines.push(line("other", self.others));
        }
        lines
    }
}

fn stack(group: &str, wait: &Wait) -> String {
    let mut stack = cell(group);
    if wait.cut {
        stack.push_str(";…");
    }
    for frame in wait.frames.iter().rev() {
        stack.push(';');
        stack.push_str(&cell(&title(frame)));
    }
    let with = with(wait);
    let space = if with.is_empty() { "" } else { " " };
    stack.push(';');
    stack.push_str(&cell(&format!("[{}{space}{with}]", wait.cause)));
    stack
}

/// The name; of code that has none of its own, with its file.
fn title(frame: &Frame) -> String {
    match &frame.file {
        Some(file) if frame.function.starts_with('{') => format!("{} {file}", frame.name()),
        _ => frame.name(),
    }
}

#[cfg(test)]
mod tests {
    use glasspool_waits::Cause;

    use super::*;
    use crate::inspect::waits::tally::tests::wait;

    #[test]
    fn stacks_are_told_outermost_first_and_end_with_what_is_waited_for() {
        let mut stacks = Stacks::default();
        let ms = Duration::from_millis;
        let query = wait(Cause::Network, Some("10.0.3.7:3306"), 42);
        stacks.add("www", &query, ms(400));
        // Another line of the same function.
        stacks.add("www", &wait(Cause::Network, Some("10.0.3.7:3306"), 7), ms(1));
        let mut nap = wait(Cause::Sleep, None, 3);
        nap.cut = true;
        nap.frames.truncate(1);
        nap.frames[0].function = "a;b".to_owned();
        stacks.add("php", &nap, Duration::from_micros(1500));
        assert_eq!(
            stacks.lines(),
            [
                "php;…;a:b;[sleep] 1500",
                "www;{main} /srv/app/Repo.php;find;mysqli_query;[network 10.0.3.7:3306] 401000",
            ]
        );
    }
}
