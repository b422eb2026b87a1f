//! The table of known loads.

use glasspool_waits::Settings;

use crate::php::{Php, load, measure};

#[test]
fn a_sleep_is_a_sleep() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start("", "usleep(50000);");
    php.watch(&mut waits, 1);
    let turn = measure(&mut waits, &mut php, 1);
    eprintln!("{:?} cpu {:?} delay {:?}\n{:#?}", turn.times, turn.cpu, turn.delay, turn.waits);
    eprintln!("odd {} lost {}", waits.odd(), waits.lost());
}
