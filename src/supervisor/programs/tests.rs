//! Pages given and taken back, and what is wished. Plain memory stands in for maps.

use glasspool_abi::create_slot_memory;
use glasspool_abi::times::PAGE_BYTES;

use super::*;
use crate::config::{Ebpf, ListenAddress, LogLevel, Pool};

const MAPS: [ProgramPart; 5] = [
    ProgramPart::Workers,
    ProgramPart::Layouts,
    ProgramPart::Counts,
    ProgramPart::Ring,
    ProgramPart::Pages,
];

fn asked(pages: u32) -> LoadPrograms {
    LoadPrograms {
        pages,
        wait_threshold: Duration::from_millis(1),
        frames: 16,
        ring_bytes: RING_BYTES,
        system_calls: false,
    }
}

/// Plain memory in place of maps.
fn parts(pages: u32) -> Vec<(ProgramPart, OwnedFd)> {
    let bytes = usize::try_from(pages).expect("fits") * PAGE_BYTES;
    let memory = || create_slot_memory(bytes).expect("a memory file");
    MAPS.map(|part| (part, memory())).into()
}

fn running(pages: u32) -> Waits {
    Waits::Running(Rc::new(
        Programs::assemble(asked(pages), parts(pages)).expect("all parts"),
    ))
}

#[test]
fn a_page_goes_back_when_nobody_needs_it_and_is_clean_for_the_next() {
    let (waits, log) = (running(2), ErrorLog::stderr(LogLevel::Alert));
    let take = || waits.take_page(Instant::now(), &log);
    let (first, second) = (take().expect("is free"), take().expect("is free"));
    assert_eq!((first.number(), second.number()), (0, 1));
    assert!(take().is_none(), "there are two");
    let word = |page: &Page| {
        let mut word = [0; 8];
        rustix::io::pread(page.map(), &mut word, 0).expect("reads");
        u64::from_ne_bytes(word)
    };
    TimesPage::map(first.map(), 0).expect("maps").set_request(7);
    assert_eq!(word(&first), 7);
    drop(first);
    let again = take().expect("is free again");
    assert_eq!((again.number(), word(&again)), (0, 0));
}

#[test]
fn a_page_means_something_to_observers_of_its_own_programs_only() {
    let (old, new, log) = (running(2), running(2), ErrorLog::stderr(LogLevel::Alert));
    let page = old.take_page(Instant::now(), &log);
    assert_eq!(
        (old.number_of(page.as_ref()), new.number_of(page.as_ref())),
        (Some(0), None)
    );
    assert_eq!(Waits::NotWanted.number_of(page.as_ref()), None);
    assert!(old.are_those(&old.clone()) && !old.are_those(&new) && !old.are_those(&Waits::NotWanted));
    let programs = match &old {
        Waits::Running(programs) => Rc::downgrade(programs),
        other => panic!("{other:?}"),
    };
    drop(old);
    assert!(programs.upgrade().is_some(), "a worker still has a page of them");
    drop(page);
    assert!(programs.upgrade().is_none());
}

#[test]
fn clocks_are_not_shared_and_may_be_none() {
    assert!(running(2).clocks().is_empty() && Waits::NotWanted.clocks().is_empty());
    let mut parts = parts(2);
    let clock = || create_slot_memory(PAGE_BYTES).expect("a memory file");
    parts.extend((0..9).map(|_| (ProgramPart::Clock, clock())));
    let programs = Programs::assemble(asked(2), parts).expect("all parts");
    let waits = Waits::Running(Rc::new(programs));
    assert_eq!((waits.clocks().len(), waits.shared().len()), (9, 4));
}

#[test]
fn what_is_missing_is_refused() {
    for missing in 0..MAPS.len() {
        let mut parts = parts(2);
        parts.remove(missing);
        assert!(Programs::assemble(asked(2), parts).is_err());
    }
}

fn settings(ebpf: Ebpf, pools: &[u32], process_max: Option<u32>) -> Settings {
    let workers = |count| std::num::NonZeroU32::new(count).expect("some");
    let pool = |count: &u32| Pool::new("www", ListenAddress::Unix("/s".into()), workers(*count));
    let mut settings = Settings::single(pool(&1));
    settings.pools = pools.iter().map(pool).collect();
    settings.overlay.ebpf = ebpf;
    settings.global.process_max = process_max.map(workers);
    settings
}

#[test]
fn there_are_pages_for_a_reload_and_the_dead() {
    let pages = |pools: &[u32], process_max| {
        let wish = Wish::of(&settings(Ebpf::default(), pools, process_max), true);
        wish.expect("is wanted").asked.pages
    };
    assert_eq!(pages(&[5], None), 256);
    assert_eq!(pages(&[100, 400], None), 1064);
    assert_eq!(pages(&[100, 400], Some(200)), 464);
    assert_eq!(pages(&[u32::MAX, 7], None), 65_536);
}

#[test]
fn they_are_wanted_where_spans_are_made_and_nobody_has_said_off() {
    let wish = |mode, spans| {
        Wish::of(
            &settings(
                Ebpf {
                    mode,
                    ..Ebpf::default()
                },
                &[1],
                None,
            ),
            spans,
        )
    };
    assert!(wish(EbpfMode::Off, true).is_none() && wish(EbpfMode::Required, false).is_none());
    assert!(wish(EbpfMode::Required, true).expect("is wanted").required);
    let auto = wish(EbpfMode::Auto, true).expect("is wanted");
    assert!(!auto.required);
    let waits = running(2);
    assert!(
        waits.fulfil(&auto),
        "more workers than at the start are no reason to load anew"
    );
    let mut other = auto.clone();
    other.asked.frames = 3;
    assert!(!waits.fulfil(&other) && !Waits::NotWanted.fulfil(&auto));
}

#[test]
fn alike_lines_are_counted() {
    let mut seldom = Seldom::default();
    let now = Instant::now();
    assert_eq!(
        [seldom.pass(now), seldom.pass(now), seldom.pass(now)],
        [Some(0), None, None]
    );
    assert_eq!(seldom.pass(now + SELDOM), Some(2));
}
