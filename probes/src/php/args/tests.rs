use super::super::frames::{Stack, Want, read_stack};
use super::super::testing::{Fake, MAIN, build, user};
use super::*;
use glasspool_abi::zend::PhpBuild;

use crate::memory::{Image, TargetAddr};

const GLOBALS_IGNORE_ARGS: u64 = super::super::testing::GLOBALS + 1_624;

fn allow(entries: &[&str]) -> AllowList {
    AllowList::parse(entries.iter().copied()).unwrap()
}

#[test]
fn the_list_allows_what_it_names_and_nothing_else() {
    let list = allow(&["PDO::query#1", "\\file_get_contents#2", " App\\Repo::find#3 "]);
    assert!(list.allows(Some("pdo"), "QUERY", 1));
    assert!(!list.allows(Some("PDO"), "query", 2));
    assert!(!list.allows(None, "query", 1));
    assert!(!list.allows(Some("MyPDO"), "query", 1));
    assert!(list.allows(None, "file_get_contents", 2));
    assert!(!list.allows(Some("A"), "file_get_contents", 2));
    assert!(list.allows(Some("App\\Repo"), "find", 3));
    for bad in ["", "PDO::query", "#1", "f#0", "f#x", "::f#1", "PDO::#1", "f#-1"] {
        let error = AllowList::parse([bad]).unwrap_err();
        assert_eq!(error, BadEntry(bad.to_owned()));
    }
}

/// main calls login($user, $password), whose second parameter is marked.
struct Login {
    fake: Fake,
    function: u64,
    frame: u64,
    attribute: u64,
    table: u64,
}

fn login() -> Login {
    let mut fake = Fake::new();
    let main = fake.function(MAIN, 1);
    fake.call(main);
    let function = fake.function(user("login"), 5);
    let frame = fake.call(function);
    let write32 = |fake: &mut Fake, at: u64, value: u32| {
        assert!(fake.image.write(TargetAddr(at), &value.to_le_bytes()));
    };
    write32(&mut fake, function + 32, 2);
    let info = fake.alloc(64);
    for (index, name) in ["user", "password"].into_iter().enumerate() {
        let name = fake.string(name);
        fake.put(info + index as u64 * 32, name);
        let value = fake.string(["bob", "hunter2"][index]);
        fake.put(frame + 80 + index as u64 * 16, value);
        write32(&mut fake, frame + 88 + index as u64 * 16, 6);
    }
    fake.put(function + 40, info);
    write32(&mut fake, frame + 44, 2);
    let attribute = fake.alloc(48);
    let name = fake.string("sensitiveparameter");
    fake.put(attribute + 8, name);
    write32(&mut fake, attribute + 24, 2);
    let element = fake.alloc(16);
    fake.put(element, attribute);
    let table = fake.alloc(56);
    write32(&mut fake, table + 8, 1 << 2);
    fake.put(table + 16, element);
    write32(&mut fake, table + 24, 1);
    fake.put(function + 48, table);
    Login {
        fake,
        function,
        frame,
        attribute,
        table,
    }
}

fn shown(image: &Image, build: &PhpBuild, arguments: Arguments) -> Option<String> {
    let want = Want {
        max_frames: 8,
        arguments,
    };
    let stack: Stack = read_stack(image, build, want).unwrap();
    stack.frames[0].arguments.as_ref().map(ToString::to_string)
}

fn all() -> Arguments {
    Arguments::Values(Arc::new(allow(&["login#1", "login#2"])))
}

const HIDDEN: &str = "user: \"bob\", password: SensitiveParameterValue";
/// Neither values nor lengths.
const UNKNOWN: &str = "user: string, password: string";

#[test]
fn a_marked_parameter_is_hidden_and_types_are_the_default() {
    let image = login().fake.finish();
    assert_eq!(shown(&image, &build(), all()).as_deref(), Some(HIDDEN));
    assert_eq!(
        shown(&image, &build(), Arguments::default()).as_deref(),
        Some("user: string(3), password: SensitiveParameterValue")
    );
    assert_eq!(shown(&image, &build(), Arguments::Off), None);
}

#[test]
fn attributes_that_are_not_understood_take_all_values_away() {
    let unknown = |change: &dyn Fn(&mut Login)| {
        let mut login = login();
        change(&mut login);
        let shown = shown(&login.fake.finish(), &build(), all());
        assert_eq!(shown.as_deref(), Some(UNKNOWN));
    };
    unknown(&|login| login.fake.put(login.function + 48, 0x1000));
    unknown(&|login| login.fake.put(login.table + 16, 0x1000));
    unknown(&|login| login.fake.put(login.table + 24, 65));
    unknown(&|login| login.fake.put(login.attribute + 8, 0x1000));
    // The struct has grown, as it did in PHP 8.5: the name is elsewhere.
    unknown(&|login| login.fake.put(login.attribute + 8, 0));
    unknown(&|login| {
        let name = login.fake.string("\u{1}\u{2}");
        login.fake.put(login.attribute + 8, name);
    });
    let mut blank = build();
    blank.layout.attribute_offset = None;
    let image = login().fake.finish();
    assert_eq!(shown(&image, &blank, all()).as_deref(), Some(UNKNOWN));
    // PHP 8, but nobody knows where a function has its attributes.
    let mut blank = build();
    blank.layout.func_attributes = None;
    assert_eq!(
        shown(&image, &blank, all()).as_deref(),
        Some("user: string(3), password: string(7)")
    );
    let mut blank = build();
    blank.layout.zval_size = None;
    assert_eq!(shown(&image, &blank, all()), None);
}

#[test]
fn the_configuration_and_a_blank_for_it_take_all_values_away() {
    let types = Some("user: string(3), password: SensitiveParameterValue");
    let mut login = login();
    login.fake.publish();
    assert!(login.fake.image.write(TargetAddr(GLOBALS_IGNORE_ARGS), &[1]));
    assert_eq!(shown(&login.fake.image, &build(), all()).as_deref(), types);
    let mut blank = build();
    blank.layout.eg_exception_ignore_args = None;
    assert!(login.fake.image.write(TargetAddr(GLOBALS_IGNORE_ARGS), &[0]));
    assert_eq!(shown(&login.fake.image, &blank, all()).as_deref(), types);
}

#[test]
fn slots_that_lie_are_bounded() {
    let with = |change: &dyn Fn(&mut Login)| {
        let mut login = login();
        change(&mut login);
        shown(&login.fake.finish(), &build(), all())
    };
    // A number of arguments that cannot be.
    let many = with(&|login| login.fake.put(login.frame + 40, u64::MAX));
    assert!(many.unwrap().ends_with("…4294967287 more, …named"));
    // A string whose length is too great for what is mapped, or that is nowhere.
    let long = with(&|login| {
        let text = login.fake.get(login.frame + 80);
        login.fake.put(text + 16, u64::MAX);
    });
    assert!(long.unwrap().contains("user: \"bob"));
    let nowhere = with(&|login| login.fake.put(login.frame + 80, 0x1000));
    assert_eq!(
        nowhere.as_deref(),
        Some("user: string, password: SensitiveParameterValue")
    );
    // A reference to itself ends.
    let loops = with(&|login| {
        let slot = login.frame + 80;
        login.fake.put(slot, slot - 8);
        assert!(login.fake.image.write(TargetAddr(slot + 8), &[10]));
    });
    assert_eq!(
        loops.as_deref(),
        Some("user: &?, password: SensitiveParameterValue")
    );
    // Variables beyond all measure: no arguments.
    let slots = with(&|login| {
        assert!(
            login
                .fake
                .image
                .write(TargetAddr(login.function + 76), &[0xff; 4])
        );
    });
    assert_eq!(slots, None);
}
