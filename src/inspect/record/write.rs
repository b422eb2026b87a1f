//! Profiles as text and JSON: collapsed stacks, flame graph, speedscope. Pure but for
//! the writer. The binary one is `pprof`.

use std::io::{self, Write};
use std::time::Duration;

use inferno::flamegraph::{self, Options};
use serde::Serialize;

use super::tally::{Entry, Tally};

/// What a profile is about.
#[derive(Debug)]
pub(super) struct About {
    /// Such as `www, 10 s at 99 Hz`.
    pub(super) title: String,
    /// From one look to the next.
    pub(super) period: Duration,
    /// When it began, wall clock.
    pub(super) began: std::time::SystemTime,
    /// How long it took.
    pub(super) took: Duration,
}

/// `group;outermost;…;innermost count`, a line for each stack, in order. Functions are
/// told apart by name only: this format's readers draw a box for each different text.
pub(super) fn collapsed(tally: &Tally) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for entry in tally.entries() {
        let mut stack = cell(entry.group);
        for id in entry.stack {
            stack.push(';');
            stack.push_str(&cell(&tally.spot(*id).title()));
        }
        *counts.entry(stack).or_default() += entry.count;
    }
    counts
        .into_iter()
        .map(|(stack, count)| format!("{stack} {count}"))
        .collect()
}

/// A semicolon separates frames and a line end stacks; neither can be escaped.
pub(in crate::inspect) fn cell(text: &str) -> String {
    let text = crate::inspect::console::plain(text);
    text.replace(';', ":")
}

pub(super) fn write_collapsed(tally: &Tally, out: &mut dyn Write) -> io::Result<()> {
    for line in collapsed(tally) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// An SVG to look around in.
///
/// # Errors
/// The writer's; also if there is no stack at all.
pub(super) fn write_flamegraph(tally: &Tally, about: &About, out: &mut dyn Write) -> io::Result<()> {
    let subtitle = "wall-clock time; [..] is what a process waits in";
    draw_flamegraph(&collapsed(tally), &about.title, subtitle, "samples", out)
}

/// An SVG of collapsed stacks, whose numbers are of that unit. Errors as above.
pub(in crate::inspect) fn draw_flamegraph(
    lines: &[String],
    title: &str,
    subtitle: &str,
    unit: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.subtitle = Some(subtitle.to_owned());
    unit.clone_into(&mut options.count_name);
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out).map_err(io::Error::other)
}

#[derive(Serialize)]
struct Speedscope<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: &'a str,
    exporter: String,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared,
    profiles: Vec<Profile<'a>>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct Profile<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: f64,
    #[serde(rename = "endValue")]
    end: f64,
    samples: Vec<Vec<usize>>,
    weights: Vec<f64>,
}

/// JSON as <https://www.speedscope.app/file-format-schema.json> has it: a profile for
/// each group, with the seconds that each stack was seen for.
pub(super) fn write_speedscope(tally: &Tally, about: &About, out: &mut dyn Write) -> io::Result<()> {
    let entries = tally.entries();
    let frames = tally.spots().iter().map(|spot| Frame {
        name: spot.title(),
        file: spot.file.clone(),
        line: spot.line,
    });
    let document = Speedscope {
        schema: "https://www.speedscope.app/file-format-schema.json",
        name: &about.title,
        exporter: concat!("glasspool ", env!("CARGO_PKG_VERSION")).to_owned(),
        active: 0,
        shared: Shared {
            frames: frames.collect(),
        },
        profiles: entries
            .chunk_by(|a, b| a.group == b.group)
            .map(|group| profile(group, about.period))
            .collect(),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn profile<'a>(group: &[Entry<'a>], period: Duration) -> Profile<'a> {
    let weights = group.iter().map(|entry| seconds(entry.count, period));
    let all: u64 = group.iter().map(|entry| entry.count).sum();
    Profile {
        kind: "sampled",
        name: group.first().map_or("", |entry| entry.group),
        unit: "seconds",
        start: 0.0,
        end: seconds(all, period),
        samples: group
            .iter()
            .map(|entry| entry.stack.iter().map(|id| id.0).collect())
            .collect(),
        weights: weights.collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^52")]
fn seconds(count: u64, period: Duration) -> f64 {
    count as f64 * period.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::args::By;
    use crate::inspect::testing::{blocked, running};

    fn some() -> (Tally, About) {
        let mut tally = Tally::new(By::Pool, false);
        for _ in 0..3 {
            tally.add(&blocked(1));
        }
        let mut other = running(2);
        tally.add(&other);
        other.lines[0].line = Some(8);
        tally.add(&other);
        let about = About {
            title: "www, 1 s at 10 Hz".to_owned(),
            period: Duration::from_millis(100),
            began: std::time::UNIX_EPOCH,
            took: Duration::from_secs(1),
        };
        (tally, about)
    }

    #[test]
    fn collapsed_lines_have_the_wait_last_and_merge_by_name() {
        let (tally, _) = some();
        assert_eq!(
            collapsed(&tally),
            [
                "php;{main} /srv/job.php;crunch 2",
                "www;{main} /srv/index.php;{closure} /srv/src/Page.php;App\\Repo->find;PDO->query;[poll, tcp 10.0.3.7:3306] 3",
            ]
        );
    }

    #[test]
    fn no_name_breaks_the_lines() {
        let mut seen = running(1);
        seen.lines[0].name = "a;b\nc 7".to_owned();
        let mut tally = Tally::new(By::Pool, false);
        tally.add(&seen);
        assert_eq!(collapsed(&tally), ["php;{main} /srv/job.php;a:b\\nc 7 1"]);
    }

    #[test]
    fn a_flame_graph_has_every_frame() {
        let (tally, about) = some();
        let mut svg = Vec::new();
        write_flamegraph(&tally, &about, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        for text in [
            "www, 1 s at 10 Hz",
            "PDO-&gt;query (3 samples, 60.00%)",
            "crunch (2 samples, 40.00%)",
        ] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
    }

    #[test]
    fn speedscope_has_a_profile_for_each_group() {
        let (tally, about) = some();
        let mut text = Vec::new();
        write_speedscope(&tally, &about, &mut text).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let profiles = value["profiles"].as_array().unwrap();
        let names: Vec<_> = profiles
            .iter()
            .map(|profile| profile["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["php", "www"]);
        assert_eq!(profiles[1]["type"], "sampled");
        assert!((profiles[1]["endValue"].as_f64().unwrap() - 0.3).abs() < 1e-9);
        let frames = value["shared"]["frames"].as_array().unwrap();
        let stack: Vec<_> = profiles[1]["samples"][0]
            .as_array()
            .unwrap()
            .iter()
            .map(|index| {
                frames[usize::try_from(index.as_u64().unwrap()).unwrap()]["name"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        assert_eq!(stack.first(), Some(&"{main} /srv/index.php"));
        assert_eq!(stack.last(), Some(&"[poll, tcp 10.0.3.7:3306]"));
        // Two lines of one function are two frames here.
        assert_eq!(profiles[0]["samples"].as_array().unwrap().len(), 2);
        assert_eq!(
            value["$schema"],
            "https://www.speedscope.app/file-format-schema.json"
        );
    }
}
