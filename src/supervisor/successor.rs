//! Another program behind our name: after an upgrade, or when `php-fpm` is stock php-fpm
//! again. A reload then does what php-fpm's does: this process becomes that program, with
//! the same arguments and the same sockets.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, Signal};

use super::error::StartError;
use super::process::Child;
use super::raising;
use super::run::Supervisor;
use super::sockets::{Handover, is_private};

/// This program; the link stays the same file when its name is given to another one.
const OURSELVES: &str = "/proc/self/exe";
/// Arguments that php-fpm shows, its name included.
const SHOWN: usize = 11;

/// How this program was called.
#[derive(Debug, Clone)]
pub(super) struct Call {
    argv: Vec<OsString>,
    folder: PathBuf,
}

impl Call {
    /// With the working directory of now.
    pub(super) fn new(argv: Vec<OsString>) -> io::Result<Call> {
        let folder = std::env::current_dir()?;
        Ok(Call { argv, folder })
    }

    /// The program that our name leads to now, if it is not this one. A name that leads
    /// nowhere is no reason to stop serving.
    pub(super) fn successor(&self) -> Option<PathBuf> {
        let path = self.find(std::env::var_os("PATH").as_deref())?;
        let (theirs, ours) = (std::fs::metadata(&path).ok()?, std::fs::metadata(OURSELVES).ok()?);
        let differs = (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino());
        differs.then_some(path)
    }

    /// As execvp(3) finds it.
    fn find(&self, path: Option<&OsStr>) -> Option<PathBuf> {
        let name = Path::new(self.argv.first()?);
        if name.as_os_str().as_encoded_bytes().contains(&b'/') {
            return Some(self.folder.join(name));
        }
        let folders = std::env::split_paths(path?).collect::<Vec<_>>();
        folders
            .into_iter()
            .map(|folder| self.folder.join(folder).join(name))
            .find(|path| path.is_file())
    }

    /// What php-fpm calls a reload in its log: `execvp("php-fpm", {"php-fpm", "-y", "x.conf"})`.
    pub(super) fn shown(&self) -> String {
        let quoted = |argument: &OsString| format!("\"{}\"", argument.display());
        let name = self.argv.first().map_or("\"glasspool\"".to_owned(), quoted);
        let shown: Vec<String> = self.argv.iter().take(SHOWN).map(quoted).collect();
        format!("execvp({name}, {{{}}})", shown.join(", "))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let mut arguments = self.argv.iter();
        command
            .arg0(
                arguments
                    .next()
                    .map_or(OsStr::new("glasspool"), OsString::as_os_str),
            )
            .args(arguments)
            .current_dir(&self.folder);
        command
    }

    /// Starts it with `-t`, to hear whether it accepts the configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn check(&self, program: &Path) -> io::Result<Child> {
        let mut command = self.command(program);
        command
            .arg("-t")
            .stdin(Stdio::null())
            .stdout(Stdio::from(rustix::stdio::stderr().try_clone_to_owned()?))
            .process_group(0);
        Child::spawn(&mut command)
    }

    /// Becomes it; returns only on failure.
    pub(super) fn become_it(&self, program: &Path, handover: &Handover) -> io::Error {
        // A reload that is asked for meanwhile waits for the next image's handlers instead
        // of ending it; signal masks survive execve(2), and php-fpm undoes this one.
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGCHLD] {
            signals.add(signal);
        }
        if let Err(e) = signals.thread_block() {
            return e.into();
        }
        let mut command = self.command(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_private(name)) {
            command.env_remove(name);
        }
        command.env_remove(raising::VARIABLE);
        command.envs(handover.variables.iter().map(|(name, value)| (name, value)));
        command.exec()
    }
}

impl Supervisor {
    /// Everything has stopped but our hold on the sockets: becomes the program.
    pub(super) fn become_successor(&self, program: &Path) -> StartError {
        self.log.debug("Blocking some signals before reexec");
        self.log.notice(format_args!("reloading: {}", self.call.shown()));
        let failed = self.log.with_original_stderr(|| match self.sockets.export() {
            Ok(mut handover) => {
                handover
                    .variables
                    .extend(self.raising.handover(super::monotonic_ns()));
                self.call.become_it(program, &handover)
            }
            Err(e) => e,
        });
        StartError::Successor {
            program: program.to_path_buf(),
            source: failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(argv: &[&str]) -> Call {
        Call {
            argv: argv.iter().map(OsString::from).collect(),
            folder: "/srv".into(),
        }
    }

    #[test]
    fn the_name_is_searched_like_execvp_does() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("php-fpm"), "").expect("writes");
        let path = std::env::join_paths([Path::new("/nowhere"), folder.path()]).expect("joins");
        let find = |name| call(&[name]).find(Some(&path));
        assert_eq!(find("php-fpm"), Some(folder.path().join("php-fpm")));
        assert_eq!(find("other"), None);
        assert_eq!(find("./php-fpm"), Some("/srv/./php-fpm".into()));
        assert_eq!(find("/usr/sbin/php-fpm"), Some("/usr/sbin/php-fpm".into()));
        assert_eq!(call(&[]).find(Some(&path)), None);
    }

    #[test]
    fn only_another_file_is_a_successor() {
        let own = std::env::current_exe().expect("has one");
        let ours = call(&[own.to_str().expect("text")]);
        assert_eq!(ours.successor(), None);
        assert_eq!(call(&["/bin/sh"]).successor(), Some("/bin/sh".into()));
        assert_eq!(call(&["/no/such/file"]).successor(), None);
        assert_eq!(call(&[]).successor(), None);
    }

    #[test]
    fn a_call_is_shown_as_php_fpm_shows_it() {
        let shown = call(&["php-fpm", "-y", "x.conf"]).shown();
        assert_eq!(shown, r#"execvp("php-fpm", {"php-fpm", "-y", "x.conf"})"#);
        let many: Vec<&str> = std::iter::once("php-fpm").chain(["-n"; 20]).collect();
        assert_eq!(call(&many).shown().matches("\"-n\"").count(), 10);
    }
}
