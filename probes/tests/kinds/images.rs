//! The golden images, as they are and damaged.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use glasspool_abi::zend::PhpBuild;
use glasspool_probes::memory::Image;
use glasspool_probes::php::fibers::read_suspended;
use glasspool_probes::{AllowList, Arguments, How, TargetAddr, Want, read_stack};

use super::golden::{self, Runs, lines};
use super::series;

/// All golden images.
fn images() -> Vec<PathBuf> {
    let directories = fs::read_dir(series::fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut images: Vec<PathBuf> = directories
        .filter(|directory| directory.is_dir())
        .flat_map(|directory| {
            fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().path())
        })
        .filter(|file| file.extension().is_some_and(|extension| extension == "image"))
        .collect();
    images.sort();
    images
}

/// The decoders, without any PHP: what the versions above had in their memory.
#[test]
fn golden_images_give_their_stacks() {
    let images = images();
    assert!(images.len() >= 20, "only {} images", images.len());
    for file in images {
        let (build, image) = golden::load(&file);
        let stack = read_stack(&image, &build, golden::want()).unwrap();
        let expected = fs::read_to_string(file.with_extension("stack")).unwrap();
        assert_eq!(
            lines(&stack),
            expected.lines().collect::<Vec<_>>(),
            "{}",
            file.display()
        );
        assert_eq!(stack.how, How::Exact, "{}", file.display());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    /// Real memory with words of it overwritten, often by pointers into it.
    #[test]
    fn no_damage_to_an_image_panics_loops_or_grows(
        which in proptest::prelude::any::<usize>(),
        changes in proptest::collection::vec((proptest::prelude::any::<(usize, usize, u64)>(), 0_u8..4), 1..30),
    ) {
        static IMAGES: OnceLock<Vec<(PhpBuild, Runs)>> = OnceLock::new();
        let images = IMAGES.get_or_init(|| images().iter().map(|file| golden::load_runs(file)).collect());
        let (build, runs) = &images[which % images.len()];
        let mut image = Image::new();
        for (addr, bytes) in runs {
            image.map(*addr, bytes.as_slice());
        }
        let word = |run: usize, at: usize| {
            let (addr, bytes) = &runs[run % runs.len()];
            (addr.0 + at as u64 % bytes.len() as u64) & !7
        };
        for ((run, at, value), kind) in changes {
            let value = match kind {
                0 => value,
                1 => word(at, run),
                2 => value % 4_096,
                _ => word(run, at),
            };
            // The first bytes of a run may lie before it.
            image.write(TargetAddr(word(run, at)), &value.to_le_bytes());
        }
        let allowed = AllowList::parse(["fgets#1", "down#1", "inner#1", "last#2"]).unwrap();
        let want = Want { max_frames: 50, arguments: Arguments::Values(Arc::new(allowed)) };
        // Any error is an answer; a stack must be within its bounds.
        if let Ok(stack) = read_stack(&image, build, want) {
            proptest::prop_assert!(stack.frames.len() <= 50);
            for line in lines(&stack) {
                proptest::prop_assert!(!line.chars().any(char::is_control));
                proptest::prop_assert!(line.chars().count() < 8_000);
            }
        }
        if let Ok(suspended) = read_suspended(&image, build, 8) {
            proptest::prop_assert!(suspended.stacks.len() <= 256);
        }
    }
}
