//! A dump for people. Pure.

use std::fmt::Write;
use std::time::Duration;

use super::group::Group;
use crate::inspect::look::{Seen, Waiting, short};
use crate::inspect::paint::{Paint, Role};

/// Ids of a group that are listed; a program asks for JSON.
const MOST_PIDS: usize = 24;
/// Requests of a group that are listed.
const MOST_REQUESTS: usize = 3;

/// All groups, an empty line between two.
pub(super) fn text(groups: &[Group<'_>], paint: Paint) -> String {
    let mut text = String::new();
    for (index, group) in groups.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str(&one(group, paint));
    }
    text
}

/// One group, or one process.
pub(super) fn one(group: &Group<'_>, paint: Paint) -> String {
    let first = group.first();
    let mut lines = vec![head(group, paint)];
    if group.members.len() > 1 {
        lines.push(format!("  {}", pids(group)));
    }
    if first.state() != crate::inspect::look::State::Idle
        && let Some(wait) = &first.wait
    {
        lines.push(format!("  {}", paint.show(Role::Wait, waits(group, wait))));
    }
    let native = |functions: &[String]| {
        let shown = |function| format!("     {}", paint.show(Role::Place, function));
        functions.iter().map(shown).collect::<Vec<_>>()
    };
    for (number, line) in first.lines.iter().enumerate() {
        lines.extend(native(&line.native));
        let place = paint.show(Role::Place, line.place());
        lines.push(format!("  #{number} {}{place}", line.call()));
    }
    lines.extend(native(&first.native));
    if first.cut {
        lines.push("  … callers further out are left out (--limit)".to_owned());
    }
    if let Some(doubt) = &first.doubt {
        lines.push(format!(
            "  {}",
            paint.show(Role::Doubt, format_args!("({doubt})"))
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// `4182, pool www, PHP 8.2.36, waiting: GET /orders for 1.3 s`.
fn head(group: &Group<'_>, paint: Paint) -> String {
    let first = group.first();
    let pool = first
        .pool
        .as_ref()
        .map(|pool| format!("pool {}", crate::inspect::console::plain(pool)));
    let who = match (group.members.len(), pool) {
        (1, Some(pool)) => format!("process {}, {pool}", first.pid),
        (1, None) => format!("process {}", first.pid),
        (many, Some(pool)) => format!("{many} processes of {pool}"),
        (many, None) => format!("{many} processes"),
    };
    let mut head = format!(
        "{}, PHP {}, {}",
        paint.show(Role::Title, who),
        first.php,
        first.state().word()
    );
    let requests = requests(group);
    let ages = range(group.members.iter().filter_map(|seen| seen.age));
    match (requests, ages) {
        (Some(requests), Some(ages)) => write!(head, ": {requests} for {ages}"),
        (Some(requests), None) => write!(head, ": {requests}"),
        (None, Some(ages)) => write!(head, ", {ages} old"),
        (None, None) => Ok(()),
    }
    .expect("writing to a string does not fail");
    head
}

fn pids(group: &Group<'_>) -> String {
    let listed: Vec<String> = group.pids().take(MOST_PIDS).map(|pid| pid.to_string()).collect();
    match group.members.len().checked_sub(MOST_PIDS) {
        None | Some(0) => listed.join(", "),
        Some(more) => format!("{} and {more} more", listed.join(", ")),
    }
}

fn requests(group: &Group<'_>) -> Option<String> {
    let all = group.requests();
    match all.as_slice() {
        [] => None,
        [(only, count)] if *count == group.members.len() => Some(only.clone()),
        all => {
            let mut words: Vec<String> = all
                .iter()
                .take(MOST_REQUESTS)
                .map(|(request, count)| format!("{request} ({count})"))
                .collect();
            if all.len() > MOST_REQUESTS {
                words.push(format!("{} others", all.len() - MOST_REQUESTS));
            }
            Some(words.join(", "))
        }
    }
}

/// `waits about 1.2 s in poll, …`; of a group what they have in common.
fn waits(group: &Group<'_>, wait: &Waiting) -> String {
    let what = if group.members.len() == 1 {
        &wait.what
    } else {
        &wait.alike
    };
    let times = group
        .members
        .iter()
        .filter_map(|seen: &&Seen| seen.wait.as_ref()?.since);
    match range(times) {
        Some(times) => format!("waits about {times} in {what}"),
        None => format!("waits in {what}"),
    }
}

/// `1.2 s`, or `1.2 s to 9.0 s`.
fn range(times: impl Iterator<Item = Duration>) -> Option<String> {
    let times: Vec<Duration> = times.collect();
    let (least, most) = (short(*times.iter().min()?), short(*times.iter().max()?));
    Some(if least == most {
        least
    } else {
        format!("{least} to {most}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::group::{group, singly};
    use super::*;
    use crate::inspect::testing::{blocked, idle, running};

    const PLAIN: Paint = Paint { on: false };

    #[test]
    fn each_by_itself() {
        let all = [blocked(102), running(7), idle(103)];
        let expected = "\
process 7, PHP 8.2.36, running
  #0 crunch() /srv/job.php:~7
  #1 {main} /srv/job.php:12

process 102, pool www, PHP 8.2.36, waiting: GET /orders for 1.3 s
  waits about 1.2 s in poll, fd 4: tcp 127.0.0.1:40102 -> 10.0.3.7:3306
  #0 PDO->query()
  #1 App\\Repo->find() /srv/src/Repo.php:42
  #2 {closure}() /srv/src/Page.php:9
  #3 {main} /srv/index.php:3

process 103, pool www, PHP 8.2.36, idle
";
        assert_eq!(text(&singly(&all), PLAIN), expected);
    }

    #[test]
    fn those_alike_as_one() {
        let mut all: Vec<Seen> = (100..138).map(blocked).collect();
        all[3].request = Some(crate::inspect::look::Request::new("POST", "/cart"));
        all[4].age = Some(Duration::from_secs(75));
        if let Some(wait) = &mut all[5].wait {
            wait.since = Some(Duration::from_secs(3));
        }
        all.extend((200..203).map(idle));
        let expected = "\
38 processes of pool www, PHP 8.2.36, waiting: GET /orders (37), POST /cart (1) for 1.3 s to 1 min 15 s
  100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123 and 14 more
  waits about 1.2 s to 3.0 s in poll, tcp 10.0.3.7:3306
  #0 PDO->query()
  #1 App\\Repo->find() /srv/src/Repo.php:42
  #2 {closure}() /srv/src/Page.php:9
  #3 {main} /srv/index.php:3

3 processes of pool www, PHP 8.2.36, idle
  200, 201, 202
";
        assert_eq!(text(&group(&all), PLAIN), expected);
    }

    #[test]
    fn doubts_cuts_types_and_c_functions_are_shown() {
        let mut seen = blocked(5);
        seen.lines.truncate(2);
        seen.lines[0].arguments = Some(vec!["string(41)".to_owned()]);
        seen.cut = true;
        seen.doubt = Some("the chain breaks after 2 frames: a pointer leads nowhere".to_owned());
        seen.lines[0].native = vec!["poll+0x10 [libc.so.6] ./io/poll.c:29".to_owned()];
        seen.lines[0].source = Some("ext/pdo/pdo_dbh.c:1162".to_owned());
        seen.native = vec!["execute_ex+0x2e7 [php8.2]".to_owned()];
        let expected = "\
process 5, pool www, PHP 8.2.36, waiting: GET /orders for 1.3 s
  waits about 1.2 s in poll, fd 4: tcp 127.0.0.1:40005 -> 10.0.3.7:3306
     poll+0x10 [libc.so.6] ./io/poll.c:29
  #0 PDO->query(string(41)) (ext/pdo/pdo_dbh.c:1162)
  #1 App\\Repo->find() /srv/src/Repo.php:42
     execute_ex+0x2e7 [php8.2]
  … callers further out are left out (--limit)
  (the chain breaks after 2 frames: a pointer leads nowhere)
";
        assert_eq!(text(&singly(&[seen]), PLAIN), expected);
    }

    #[test]
    fn colours_add_nothing_but_escapes() {
        let all = [blocked(1), running(2)];
        let coloured = text(&singly(&all), Paint { on: true });
        assert!(coloured.contains("\x1b[33mwaits about 1.2 s"), "{coloured}");
        let mut plain = coloured;
        for code in ["1", "2", "33", "35", "0"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, text(&singly(&all), PLAIN));
    }
}
