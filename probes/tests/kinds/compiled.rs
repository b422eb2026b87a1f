//! What is compiled with the headers of each PHP: extensions, and files with nothing but
//! debug information.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use glasspool_probes::php::layouts;

use super::series::Series;

/// An extension for one series; removed on drop.
pub(crate) struct Extension {
    /// What loads it, as in php.ini.
    pub(crate) setting: String,
    /// The object file.
    pub(crate) file: PathBuf,
    _directory: Option<tempfile::TempDir>,
}

impl Series {
    /// A C compiler that makes shared objects with debug information of code that includes
    /// this PHP's headers. `None` without those.
    fn compiler(&self) -> Option<Command> {
        let minor = self.name.split_once('.').unwrap();
        let minor = (minor.0.parse().unwrap(), minor.1.parse().unwrap());
        let api = layouts::api_of(minor).unwrap();
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let headers = root.join(format!("usr/include/php/{api}"));
        let includes = ["", "main", "Zend", "TSRM"].map(|part| format!("-I{}", headers.join(part).display()));
        let mut compiler = Command::new("cc");
        compiler.args(["-g", "-O1", "-shared", "-fPIC"]).args(includes);
        headers.join("main/php.h").exists().then_some(compiler)
    }

    /// Compiles an extension of one file, with debug information. `None` without headers.
    pub(crate) fn compile_extension(&self, source: &str) -> Option<Extension> {
        self.compile_extension_with(source, &["-fomit-frame-pointer"])
    }

    /// The same with more arguments for the compiler.
    pub(crate) fn compile_extension_with(&self, source: &str, arguments: &[&str]) -> Option<Extension> {
        let mut compiler = self.compiler()?;
        // Tests run at the same time, each with its own.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let case = format!("extension-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (directory, inside, cleanup) = self.directory(&case);
        let file = directory.join("extension.so");
        fs::write(directory.join("extension.c"), source).unwrap();
        let status = compiler
            .args(arguments)
            .args(["-Wl,--build-id", "-o"])
            .args([&file, &directory.join("extension.c")])
            .status()
            .expect("needs a C compiler: run `make deps`");
        assert!(status.success());
        Some(Extension {
            setting: format!("extension={}", inside.join("extension.so").display()),
            file,
            _directory: cleanup,
        })
    }

    /// A file with PHP's types as this series has them, and the build id of its `php`, in
    /// the place in a folder where it is found by that. `None` without the headers.
    pub(crate) fn compile_debug_file(&self) -> Option<tempfile::TempDir> {
        let mut compiler = self.compiler()?;
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let program = fs::read(root.join(format!("usr/bin/php{}", self.name))).unwrap();
        let id = object::File::parse(program.as_slice()).unwrap();
        let id = object::Object::build_id(&id).unwrap().unwrap();
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(".build-id").join(&id[..2]);
        fs::create_dir_all(&folder).unwrap();
        let mut compiler = compiler
            .args(["-gz=zlib", "-fno-eliminate-unused-debug-types", "-nostdlib"])
            .arg(format!("-Wl,--build-id=0x{id}"))
            .arg("-o")
            .arg(folder.join(format!("{}.debug", &id[2..])))
            .args(["-x", "c", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("needs a C compiler: run `make deps`");
        let text = "#include <php.h>
#include <SAPI.h>
#include <zend_generators.h>
#if PHP_VERSION_ID >= 80000
#include <zend_attributes.h>
#endif
#if PHP_VERSION_ID >= 80100
#include <zend_fibers.h>
#endif
";
        compiler.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(compiler.wait().unwrap().success());
        Some(directory)
    }
}
