//! The live view on a screen. Pure: a model in, cells out.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::model::{COLUMNS, Column, Mode, Model, cell};
use crate::inspect::look::{Seen, State};

const KEYS: &str = "\
up down, j k    select a process
enter           its whole stack
s               sort by the next column
r               turn the order round
/               show only what contains a text; esc shows all
space           pause, and go on
?               this list
q, ctrl-c       quit

STATE    running: on a CPU or ready for one
         waiting: inside a script, blocked in the kernel
         idle: in no script
A line after ~ is the last one that PHP noted.";

/// Cells that what a process does should have.
const DOING: u16 = 32;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, colour: bool) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(model)), head);
    match &model.mode {
        Mode::Dump { pid, text, scroll } => {
            let block = Block::bordered().title(format!(" {pid} "));
            let text = Paragraph::new(text.as_str())
                .wrap(Wrap { trim: false })
                .scroll((*scroll, 0))
                .block(block);
            frame.render_widget(text, body);
        }
        Mode::Table | Mode::Filter | Mode::Help => table(frame, body, model, colour),
    }
    if model.mode == Mode::Help {
        help(frame, body);
    }
    frame.render_widget(Paragraph::new(hint(model)), foot);
}

fn table(frame: &mut Frame<'_>, area: Rect, model: &Model, colour: bool) {
    let rows = model.shown();
    let header = COLUMNS.map(|column| match (column == model.sort, model.reverse) {
        (true, false) => format!("{}v", column.title()),
        (true, true) => format!("{}^", column.title()),
        (false, _) => column.title().to_owned(),
    });
    let cells: Vec<_> = rows
        .iter()
        .map(|seen| COLUMNS.map(|column| cell(seen, column)))
        .collect();
    let widths = widths(&cells, area.width);
    let rows = rows
        .iter()
        .zip(cells)
        .map(|(seen, cells)| Row::new(cells).style(style(seen, colour)));
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(model.position());
    frame.render_stateful_widget(table, area, &mut state);
}

/// As wide as what is in it, within bounds; where there is no room for what they do, requests
/// give way.
fn widths(cells: &[[String; COLUMNS.len()]], screen: u16) -> [Constraint; COLUMNS.len()] {
    let mut widths: [u16; COLUMNS.len()] = std::array::from_fn(|column| {
        let (least, most) = COLUMNS[column].bounds();
        let texts = cells.iter().map(|cells| cells[column].chars().count());
        let longest = u16::try_from(texts.max().unwrap_or(0)).unwrap_or(u16::MAX);
        longest.clamp(least, most)
    });
    let spaces = u16::try_from(COLUMNS.len() - 1).unwrap_or(u16::MAX);
    let taken = widths
        .iter()
        .fold(spaces, |sum, width| sum.saturating_add(*width));
    let lacking = taken.saturating_add(DOING).saturating_sub(screen);
    for (column, width) in COLUMNS.iter().zip(&mut widths) {
        if *column == Column::Request {
            *width = width.saturating_sub(lacking).max(column.bounds().0);
        }
    }
    std::array::from_fn(|column| match COLUMNS[column] {
        Column::Doing => Constraint::Fill(1),
        _ => Constraint::Length(widths[column]),
    })
}

fn style(seen: &Seen, colour: bool) -> Style {
    match seen.state() {
        _ if !colour => Style::new(),
        State::Running => Style::new().fg(Color::Green),
        State::Waiting => Style::new().fg(Color::Yellow),
        State::Idle => Style::new().add_modifier(Modifier::DIM),
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(KEYS.lines().count() + 2).unwrap_or(u16::MAX);
    let [_, across, _] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Length(height),
        Constraint::Fill(1),
    ])
    .areas(area);
    let [_, middle, _] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(64), Constraint::Fill(1)]).areas(across);
    frame.render_widget(Clear, middle);
    frame.render_widget(
        Paragraph::new(KEYS).block(Block::bordered().title(" keys ")),
        middle,
    );
}

fn summary(model: &Model) -> Line<'static> {
    let [running, waiting, idle] = model.counts();
    let mut text = format!(
        "{} PHP processes: {running} running, {waiting} waiting, {idle} idle",
        running + waiting + idle
    );
    if model.paused {
        text.push_str("  PAUSED");
    }
    Line::from(text)
}

fn hint(model: &Model) -> Line<'static> {
    match &model.mode {
        Mode::Filter => Line::from(format!("/{}_  enter keeps it, esc shows all", model.filter)),
        Mode::Dump { .. } => Line::from("j k scroll, esc back"),
        Mode::Help => Line::from("any key goes back"),
        Mode::Table => match &model.trouble {
            Some(trouble) => Line::from(trouble.clone()),
            None if model.filter.is_empty() => {
                Line::from("enter dump  s sort  r reverse  / filter  space pause  ? help  q quit")
            }
            None => Line::from(format!("only with \"{}\" (esc shows all)", model.filter)),
        },
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::Key;
    use super::*;
    use crate::inspect::testing::{blocked, idle, running};

    fn screen(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, false)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content().chunks(usize::from(width)).map(|row| {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned() + "\n"
        });
        lines.collect()
    }

    fn filled() -> Model {
        let mut model = Model::new();
        model.update(vec![idle(101), blocked(102), running(7)]);
        model
    }

    #[test]
    fn the_table_is_as_people_see_it() {
        let expected = "\
3 PHP processes: 1 running, 1 waiting, 1 idle
PID     POOL  STATEv   AGE      WAITING  REQUEST     DOING
7       -     running                                crunch() job.php:~7 < {main} job.php:12
102     www   waiting  1.3 s    1.2 s    GET /orders [poll, tcp 10.0.3.7:3306] < PDO->query() < App\\Repo->find() Repo.php:42
101     www   idle

enter dump  s sort  r reverse  / filter  space pause  ? help  q quit
";
        assert_eq!(screen(&filled(), 124, 7), expected);
    }

    #[test]
    fn a_narrow_screen_shows_what_processes_do() {
        let text = screen(&filled(), 80, 6);
        for part in ["7       -", "[poll, tcp 10.0.3.7:3306]", "GET /ord"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    #[test]
    fn a_filter_a_pause_and_a_sort_are_shown() {
        let mut model = filled();
        for key in ['s', 'r', ' ', '/', 'p', 'o', 'l'] {
            model.on(Key::Char(key));
        }
        let text = screen(&model, 100, 5);
        for part in ["1 idle  PAUSED", "AGE^", "/pol_  enter keeps it"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        model.on(Key::Enter);
        assert!(screen(&model, 100, 5).contains("only with \"pol\" (esc shows all)"));
    }

    #[test]
    fn help_and_dumps_cover_the_table() {
        let mut model = filled();
        model.on(Key::Char('?'));
        let text = screen(&model, 90, 24);
        for part in ["┌ keys ─", "sort by the next column", "any key goes back"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        model.show_dump(glasspool_abi::Pid(102), "first\nsecond\n".to_owned());
        model.on(Key::Down);
        let text = screen(&model, 90, 10);
        assert!(
            text.contains("┌ 102 ─") && text.contains("second") && !text.contains("first"),
            "{text}"
        );
    }

    #[test]
    fn the_smallest_of_screens_does_no_harm() {
        let mut model = filled();
        for (width, height) in [(1, 1), (2, 3), (20, 2), (300, 1)] {
            screen(&model, width, height);
        }
        model.on(Key::Char('?'));
        screen(&model, 3, 3);
    }
}
