//! `glasspool top`: what PHP processes do, as it happens.
//!
//! On a terminal a table to sort, filter and look into; elsewhere the same table as text,
//! once or again and again. Start reading at [`run_top`]; `model` is the state, `view` and
//! `plain` show it, `screen` is the terminal.

mod model;
mod plain;
mod screen;
mod view;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::TopArguments;
use super::console::Console;
use super::crew::{Crew, Trouble, Want};
use super::dump;
use super::record::Stop;
use model::{Action, Model};
use screen::Screen;

/// Frames of a row; three are shown, and of one that is still inside a library's code the
/// filter finds the application's.
const FRAMES: usize = 8;
/// Frames of a dump.
const DUMP_FRAMES: usize = 128;
/// How often new workers are looked for: it costs a look at every process of the machine.
const REFRESH: Duration = Duration::from_secs(2);
/// How late a signal may be noticed while the terminal is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

const WANT: Want = Want {
    frames: FRAMES,
    types: false,
    native: false,
    request: true,
};

/// Shows the table until it is left.
pub fn run_top(arguments: &TopArguments, console: &mut Console<'_>) -> ExitCode {
    let (mut crew, problems) = Crew::gather(&arguments.targets, WANT);
    if crew.len() == 0 || !console.out_is_screen || arguments.once {
        for message in &problems {
            console.complain(message);
        }
    }
    if crew.len() == 0 {
        return ExitCode::from(super::INCOMPLETE);
    }
    let mut model = Model::new();
    model.trouble = problems.first().cloned();
    let done = if arguments.once {
        look(&mut crew, &mut model);
        console.result(plain::table(&model).as_bytes())
    } else if console.out_is_screen {
        live(&mut crew, &mut model, arguments.interval, console.colour)
    } else {
        lines(&mut crew, &mut model, arguments.interval, console)
    };
    match done {
        Ok(()) => ExitCode::from(super::DONE),
        Err(e) => {
            console.complain(format_args!("cannot show the table: {e}"));
            ExitCode::from(super::INCOMPLETE)
        }
    }
}

/// A table for each interval, an empty line between two, until a signal or until nobody
/// reads it any more.
fn lines(
    crew: &mut Crew,
    model: &mut Model,
    interval: Duration,
    console: &mut Console<'_>,
) -> io::Result<()> {
    let stop = Stop::on_signals()?;
    let mut pace = Pace::new(interval);
    loop {
        look(crew, model);
        let text = plain::table(model) + "\n";
        match console
            .out
            .write_all(text.as_bytes())
            .and_then(|()| console.out.flush())
        {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        if stop.wait(pace.left())? {
            return Ok(());
        }
        pace.next(crew);
    }
}

fn live(crew: &mut Crew, model: &mut Model, interval: Duration, colour: bool) -> io::Result<()> {
    let stop = Stop::on_signals()?;
    let mut screen = Screen::open(colour)?;
    let mut pace = Pace::new(interval);
    look(crew, model);
    loop {
        screen.draw(model)?;
        if stop.wait(Duration::ZERO)? {
            return Ok(());
        }
        if let Some(key) = screen.key(pace.left().min(PATIENCE))? {
            match model.on(key) {
                Some(Action::Quit) => return Ok(()),
                Some(Action::Dump(pid)) => {
                    let want = Want {
                        frames: DUMP_FRAMES,
                        ..WANT
                    };
                    let text = match crew.look(pid, want) {
                        Ok(seen) => dump::describe(seen),
                        Err(Trouble::Gone { pid, fate }) => format!("process {pid} {fate}"),
                        Err(Trouble::Failed(message)) => message,
                    };
                    model.show_dump(pid, text);
                }
                None => {}
            }
        }
        if pace.left().is_zero() {
            pace.next(crew);
            if !model.paused {
                look(crew, model);
            }
        }
    }
}

fn look(crew: &mut Crew, model: &mut Model) {
    let mut rows = Vec::with_capacity(crew.len());
    let mut trouble = None;
    crew.round(|seen| match seen {
        Ok(seen) => rows.push(seen),
        Err(Trouble::Gone { .. }) => {}
        Err(Trouble::Failed(message)) => trouble = Some(message),
    });
    model.update(rows);
    if trouble.is_some() {
        model.trouble = trouble;
    }
}

/// Even intervals, and when to look for new workers.
struct Pace {
    interval: Duration,
    due: Instant,
    refreshed: Instant,
}

impl Pace {
    fn new(interval: Duration) -> Pace {
        let now = Instant::now();
        Pace {
            interval,
            due: now + interval,
            refreshed: now,
        }
    }

    /// Until the next look.
    fn left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Starts the next interval. Those that passed during a slow look are left out.
    fn next(&mut self, crew: &mut Crew) {
        let now = Instant::now();
        self.due = (self.due + self.interval).max(now);
        if now.duration_since(self.refreshed) >= REFRESH {
            self.refreshed = now;
            // Refusals were shown at the start; the same would come again and again.
            crew.refresh();
        }
    }
}
