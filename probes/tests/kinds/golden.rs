//! Golden images: the bytes that reading one stack touched, and the stack as text.
//!
//! `NAME.image` begins with lines (format, PHP version, address of the executor globals,
//! an empty one), then has runs of bytes: address (8 bytes, little-endian), length (4),
//! bytes. `NAME.stack` has one frame per line and is meant to be read.

use std::fs;
use std::path::Path;

use glasspool_abi::zend::PhpBuild;
use glasspool_probes::memory::{Image, LiveMemory, Recording};
use glasspool_probes::php::layouts;
use glasspool_probes::{
    Arguments, Frame, Process, ReadError, Stack, TargetAddr, TargetMemory, Want, read_stack,
};

const FORMAT: &str = "glasspool image 1";

/// All frames, with the types of their arguments.
pub(crate) fn want() -> Want {
    Want {
        max_frames: 64,
        arguments: Arguments::Types,
    }
}

/// One line per frame: name with arguments, base name of the file, line, `~` where the
/// line is a guess. Closures have the name that they have in all versions.
pub(crate) fn lines(stack: &Stack) -> Vec<String> {
    stack.frames.iter().map(line).collect()
}

fn line(frame: &Frame) -> String {
    let mut name = frame.php_name();
    // PHP 8.4 and later: {closure:/srv/main.php:12}
    if let Some(at) = name.find("{closure:") {
        name.replace_range(at.., "{closure}");
    }
    let arguments = match &frame.arguments {
        Some(arguments) if !frame.function.starts_with('{') || frame.function.starts_with("{closure") => {
            format!("({arguments})")
        }
        _ => String::new(),
    };
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            let guess = if frame.line_exact { "" } else { "~" };
            format!("{name}{arguments} {file}:{line}{guess}")
        }
        _ => format!("{name}{arguments}"),
    }
}

/// A memory that refuses to be read ahead, so that an image has in it what the decoders
/// need and not what happens to lie beside it. They read frame by frame then.
struct Narrow<'a>(&'a LiveMemory);

impl TargetMemory for Narrow<'_> {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        if buf.len() > 1_024 {
            return Err(ReadError::Fault { addr });
        }
        self.0.read_prefix(addr, buf)
    }
}

/// Reads the stack of a sleeping process and keeps what was touched.
pub(crate) fn bless(process: &Process, series: &str, name: &str) {
    let build = process.build();
    let recording = Recording::new(Narrow(process.memory()));
    let stack = read_stack(&recording, build, want()).unwrap();
    let mut image = format!("{FORMAT}\n{}\n{:#x}\n\n", build.version, build.executor_globals).into_bytes();
    for (addr, bytes) in recording.runs() {
        image.extend(addr.0.to_le_bytes());
        image.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        image.extend(bytes);
    }
    let directory = super::series::fixtures().join(format!("php-{series}"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("{name}.image")), image).unwrap();
    let text = lines(&stack).join("\n") + "\n";
    fs::write(directory.join(format!("{name}.stack")), text).unwrap();
}

/// Reads a golden image.
pub(crate) fn load(file: &Path) -> (PhpBuild, Image) {
    let (build, runs) = load_runs(file);
    let mut image = Image::new();
    for (addr, bytes) in runs {
        image.map(addr, bytes);
    }
    (build, image)
}

/// Runs of bytes, each at its address.
pub(crate) type Runs = Vec<(TargetAddr, Vec<u8>)>;

/// The same as runs of bytes.
pub(crate) fn load_runs(file: &Path) -> (PhpBuild, Runs) {
    let bytes = fs::read(file).unwrap();
    let mut lines = bytes.splitn(5, |&byte| byte == b'\n');
    let mut text = || String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
    assert_eq!(text(), FORMAT, "{}", file.display());
    let version = text();
    let globals = text();
    assert_eq!(text(), "");
    let mut rest = lines.next().unwrap();
    let mut runs = Vec::new();
    while let Some((addr, after)) = rest.split_first_chunk() {
        let (len, after) = after.split_first_chunk().unwrap();
        let (bytes, after) = after.split_at(u32::from_le_bytes(*len).try_into().unwrap());
        runs.push((TargetAddr(u64::from_le_bytes(*addr)), bytes.to_vec()));
        rest = after;
    }
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let minor = (parts.next().unwrap(), parts.next().unwrap());
    let build = PhpBuild {
        api: layouts::api_of(minor).unwrap(),
        version,
        zts: false,
        executor_globals: u64::from_str_radix(globals.trim_start_matches("0x"), 16).unwrap(),
        layout: layouts::layout(minor, false).unwrap(),
    };
    (build, runs)
}
