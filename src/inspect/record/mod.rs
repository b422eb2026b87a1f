//! `glasspool record`: where the time goes, over some seconds.
//!
//! Every process is looked at some times a second and never stopped. What it waits in is
//! its innermost frame, so that a profile shows wall-clock time: an application's
//! slowness is waiting more often than computing.
//!
//! Start reading at [`run_record`]; `schedule` says when to look, `tally` counts, `write`
//! and `pprof` make files of it.

mod pprof;
mod schedule;
mod tally;
mod write;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

pub(super) use schedule::Stop;
pub(super) use write::{cell, draw_flamegraph};

use super::args::{By, Format, RecordArguments};
use super::console::Console;
use super::crew::{Crew, Trouble, Want};
use schedule::{Next, Schedule};
use tally::{Tally, Totals};
use write::About;

/// Deeper stacks lose their outermost frames. Flame graphs of more are not readable.
const FRAMES: usize = 256;
/// How often new workers are looked for, and progress is shown.
const REFRESH: Duration = Duration::from_secs(1);

/// Where a profile goes.
pub(super) enum Output {
    Console,
    File(File),
}

/// Records, writes the profile, and says on standard error what it is made of.
pub fn run_record(arguments: &RecordArguments, console: &mut Console<'_>) -> ExitCode {
    if arguments.output.is_none() && console.out_is_terminal && arguments.format != Format::Collapsed {
        console.complain(
            "this format is nothing for a terminal: give a file with -o FILE, or --format collapsed",
        );
        return ExitCode::from(super::USAGE);
    }
    let want = Want {
        frames: FRAMES,
        types: false,
        native: false,
        request: arguments.by == By::Uri,
    };
    let (mut crew, problems) = Crew::gather(&arguments.targets, want);
    for message in &problems {
        console.complain(message);
    }
    if crew.len() == 0 {
        return ExitCode::from(super::INCOMPLETE);
    }
    let mut output = match open(arguments.output.as_deref()) {
        Ok(output) => output,
        Err(message) => {
            console.complain(message);
            return ExitCode::from(super::INCOMPLETE);
        }
    };
    let (tally, about) = match record(&mut crew, arguments, console) {
        Ok(recorded) => recorded,
        Err(e) => {
            console.complain(format_args!("cannot keep time: {e}"));
            return ExitCode::from(super::INCOMPLETE);
        }
    };
    console.complain(summary(&tally.totals, about.took));
    if tally.is_empty() {
        console.complain("nothing to write: no process was seen in a script (--idle counts the others, too)");
        return ExitCode::from(super::INCOMPLETE);
    }
    if let Err(e) = write_to(&mut output, &tally, &about, arguments, console) {
        console.complain(format_args!("cannot write the profile: {e}"));
        return ExitCode::from(super::INCOMPLETE);
    }
    ExitCode::from(if problems.is_empty() {
        super::DONE
    } else {
        super::INCOMPLETE
    })
}

/// Makes room for what is to be written; a pipe or a device has nothing to make room of.
pub(super) fn empty(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => file.set_len(0),
        false => Ok(()),
    }
}

/// Before the time is spent: a file that cannot be written is told at once.
pub(super) fn open(path: Option<&Path>) -> Result<Output, String> {
    match path {
        None => Ok(Output::Console),
        Some(path) if path == Path::new("-") => Ok(Output::Console),
        // What is there stays until there is something to put in its place.
        Some(path) => File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map(Output::File)
            .map_err(|e| format!("cannot write {}: {e}", path.display())),
    }
}

fn record(
    crew: &mut Crew,
    arguments: &RecordArguments,
    console: &mut Console<'_>,
) -> io::Result<(Tally, About)> {
    let time = Duration::from_secs(arguments.seconds.into());
    let mut tally = Tally::new(arguments.by, arguments.idle);
    let (began, start) = (SystemTime::now(), Instant::now());
    let mut schedule = Schedule::start(arguments.rate, time, Stop::on_signals()?)?;
    let mut refreshed = start;
    while let Next::Look { missed } = schedule.next()? {
        let round = Instant::now();
        tally.totals.missed += missed * crew.len() as u64;
        crew.round(|seen| match seen {
            Ok(seen) => tally.add(&seen),
            Err(Trouble::Gone { .. }) => {}
            Err(Trouble::Failed(_)) => tally.totals.failed += 1,
        });
        if refreshed.elapsed() >= REFRESH {
            refreshed = Instant::now();
            // What cannot be opened was said at the start, of those that were there.
            crew.refresh();
            progress(console, start.elapsed(), time, &tally.totals);
        }
        schedule.cost(round.elapsed());
        if crew.len() == 0
            && arguments
                .targets
                .iter()
                .all(|target| matches!(target, super::targets::Selector::Pid(_)))
        {
            break;
        }
    }
    clear(console);
    let took = start.elapsed().min(time);
    let targets: Vec<String> = arguments.targets.iter().map(ToString::to_string).collect();
    let about = About {
        title: format!(
            "{}: {:.0} s at {} Hz",
            super::console::plain(&targets.join(", ")),
            took.as_secs_f64(),
            arguments.rate
        ),
        period: schedule.period(),
        began,
        took,
    };
    Ok((tally, about))
}

fn progress(console: &mut Console<'_>, passed: Duration, of: Duration, totals: &Totals) {
    if console.err_is_terminal {
        let text = format!(
            "\r{} of {} s, {} samples, {} missed ",
            passed.as_secs(),
            of.as_secs(),
            totals.samples(),
            totals.missed
        );
        console.progress(&text);
    }
}

fn clear(console: &mut Console<'_>) {
    if console.err_is_terminal {
        // Erase in line (ECMA-48, EL).
        console.progress("\r\x1b[K");
    }
}

fn write_to(
    output: &mut Output,
    tally: &Tally,
    about: &About,
    arguments: &RecordArguments,
    console: &mut Console<'_>,
) -> io::Result<()> {
    match output {
        Output::File(file) => {
            empty(file)?;
            let mut out = BufWriter::new(file);
            write_profile(tally, about, arguments, &mut out)?;
            out.flush()
        }
        Output::Console => {
            let mut bytes = Vec::new();
            write_profile(tally, about, arguments, &mut bytes)?;
            console.result(&bytes)
        }
    }
}

fn write_profile(
    tally: &Tally,
    about: &About,
    arguments: &RecordArguments,
    out: &mut dyn Write,
) -> io::Result<()> {
    match arguments.format {
        Format::Flamegraph => write::write_flamegraph(tally, about, out),
        Format::Speedscope => write::write_speedscope(tally, about, out),
        Format::Collapsed => write::write_collapsed(tally, out),
        Format::Pprof => {
            let label = match arguments.by {
                By::Pool => "pool",
                By::Uri => "uri",
                By::Process => "process",
            };
            pprof::write_pprof(tally, about, label, out)
        }
    }
}

/// What a profile is made of, and what it lacks.
fn summary(totals: &Totals, took: Duration) -> String {
    let mut text = format!(
        "{} samples in {:.1} s: {} running, {} waiting, {} idle; {} missed",
        totals.samples(),
        took.as_secs_f64(),
        totals.running,
        totals.waiting,
        totals.idle,
        totals.missed
    );
    if totals.partial > 0 {
        text.push_str(&format!(", {} without their inner frames", totals.partial));
    }
    if totals.failed > 0 {
        text.push_str(&format!(", {} could not be read", totals.failed));
    }
    text
}

impl Totals {
    /// Looks that told something.
    fn samples(&self) -> u64 {
        self.running + self.waiting + self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_what_it_has_until_there_is_something_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("precious.svg");
        std::fs::write(&path, "precious").expect("writes");
        let Ok(Output::File(mut file)) = open(Some(&path)) else {
            panic!("it can be written")
        };
        let read = || std::fs::read_to_string(&path).expect("reads");
        assert_eq!(read(), "precious");
        empty(&file).expect("is a file");
        file.write_all(b"new").expect("writes");
        assert_eq!(read(), "new");
        let null = File::options().write(true).open("/dev/null").expect("opens");
        empty(&null).expect("has nothing to make room of");
    }

    #[test]
    fn the_summary_says_what_is_missing() {
        let mut totals = Totals {
            running: 600,
            waiting: 380,
            idle: 10,
            missed: 2,
            ..Totals::default()
        };
        let took = Duration::from_millis(10_020);
        assert_eq!(
            summary(&totals, took),
            "990 samples in 10.0 s: 600 running, 380 waiting, 10 idle; 2 missed"
        );
        totals.partial = 3;
        totals.failed = 1;
        assert!(
            summary(&totals, took).ends_with("2 missed, 3 without their inner frames, 1 could not be read")
        );
    }
}
