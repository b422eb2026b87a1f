use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::inspect::testing::{blocked, idle, running};

fn filled() -> Model {
    let mut model = Model::new();
    model.update(vec![idle(1), blocked(2), running(3), blocked(4)]);
    model
}

fn pids(model: &Model) -> Vec<i32> {
    model.shown().iter().map(|seen| seen.pid.0).collect()
}

fn type_in(model: &mut Model, text: &str) {
    for letter in text.chars() {
        assert_eq!(model.on(Key::Char(letter)), None);
    }
}

#[test]
fn trouble_is_on_top_and_idle_workers_at_the_end() {
    assert_eq!(pids(&filled()), [3, 2, 4, 1]);
    assert_eq!(filled().counts(), [1, 2, 1]);
}

#[test]
fn s_goes_through_the_columns_and_r_turns_round() {
    let mut model = filled();
    let mut sorts = Vec::new();
    for _ in COLUMNS {
        model.on(Key::Char('s'));
        sorts.push(model.sort);
    }
    assert_eq!(sorts[..2], [Column::Age, Column::Wait]);
    assert_eq!(sorts[6], Column::State);
    model.sort = Column::Pid;
    assert_eq!(pids(&model), [1, 2, 3, 4]);
    model.on(Key::Char('r'));
    assert_eq!(pids(&model), [4, 3, 2, 1]);
}

#[test]
fn the_longest_wait_comes_first_but_no_idle_one() {
    let mut model = filled();
    let mut rows = vec![idle(1), blocked(2), blocked(4)];
    for (seen, seconds) in rows.iter_mut().zip([90, 1, 30]) {
        seen.wait.as_mut().unwrap().since = Some(Duration::from_secs(seconds));
    }
    model.update(rows);
    model.sort = Column::Wait;
    assert_eq!(pids(&model), [4, 2, 1]);
}

#[test]
fn a_filter_is_found_in_any_column_and_escape_ends_it() {
    let mut model = filled();
    model.on(Key::Char('/'));
    type_in(&mut model, "REPO.php");
    assert_eq!(pids(&model), [2, 4]);
    for _ in 0.."REPO.php".len() {
        model.on(Key::Backspace);
    }
    type_in(&mut model, "idle");
    model.on(Key::Enter);
    assert_eq!((pids(&model), &model.mode), (vec![1], &Mode::Table));
    // A letter is a command again.
    model.on(Key::Char('r'));
    assert_eq!(model.filter, "idle");
    model.on(Key::Escape);
    assert_eq!(pids(&model).len(), 4);
}

#[test]
fn a_pause_keeps_what_is_seen() {
    let mut model = filled();
    model.on(Key::Char(' '));
    model.update(vec![running(9)]);
    assert_eq!(pids(&model).len(), 4);
    model.on(Key::Char(' '));
    model.update(vec![running(9)]);
    assert_eq!(pids(&model), [9]);
}

#[test]
fn the_selection_stays_with_its_process() {
    let mut model = filled();
    model.on(Key::Down);
    model.on(Key::Down);
    assert_eq!(model.on(Key::Enter), Some(Action::Dump(Pid(4))));
    model.update(vec![blocked(4), running(3)]);
    assert_eq!(model.on(Key::Enter), Some(Action::Dump(Pid(4))));
    model.update(vec![running(3)]);
    assert_eq!(model.on(Key::Enter), Some(Action::Dump(Pid(3))));
    model.update(Vec::new());
    assert_eq!((model.on(Key::Enter), model.position()), (None, None));
    model.on(Key::Down);
}

#[test]
fn a_dump_scrolls_within_its_lines_and_closes() {
    let mut model = filled();
    model.show_dump(Pid(2), "a\nb\nc\n".to_owned());
    let scroll = |model: &Model| match model.mode {
        Mode::Dump { scroll, .. } => scroll,
        _ => panic!("no dump"),
    };
    model.on(Key::Up);
    assert_eq!(scroll(&model), 0);
    model.on(Key::PageDown);
    assert_eq!(scroll(&model), 2);
    assert_eq!(model.on(Key::Char('q')), None);
    assert_eq!(model.mode, Mode::Table);
    assert_eq!(model.on(Key::Char('q')), Some(Action::Quit));
}

#[test]
fn what_it_does_is_wait_and_inner_frames() {
    assert_eq!(
        cell(&blocked(2), Column::Doing),
        "[poll, tcp 10.0.3.7:3306] < PDO->query() < App\\Repo->find() Repo.php:42 < {closure}() Page.php:9"
    );
    assert_eq!(
        cell(&running(3), Column::Doing),
        "crunch() job.php:~7 < {main} job.php:12"
    );
    assert_eq!(cell(&idle(1), Column::Doing), "");
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        proptest::sample::select("srkj/? qhx".chars().collect::<Vec<char>>()).prop_map(Key::Char),
        Just(Key::Enter),
        Just(Key::Escape),
        Just(Key::Backspace),
        Just(Key::Up),
        Just(Key::Down),
        Just(Key::PageUp),
        Just(Key::PageDown),
    ]
}

proptest! {
    #[test]
    fn no_keys_lead_astray(keys in proptest::collection::vec(key(), 0..60), rows in 0..5) {
        let mut model = Model::new();
        model.update((0..rows).map(blocked).collect());
        for key in keys {
            match model.on(key) {
                Some(Action::Dump(pid)) => model.show_dump(pid, "x\ny".to_owned()),
                Some(Action::Quit) | None => {}
            }
            let count = model.shown().len();
            prop_assert!(model.position().is_none_or(|at| at < count));
            prop_assert_eq!(model.position().is_none(), count == 0);
        }
        // Whatever was pressed, these leave.
        model.on(Key::Escape);
        model.on(Key::Escape);
        prop_assert_eq!(model.on(Key::Char('q')), Some(Action::Quit));
    }
}
